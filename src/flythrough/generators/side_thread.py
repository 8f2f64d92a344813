"""Two kinds of host work at once: one thread keeps a GPU fed, the other does what takes long.

There is one such thread for the whole process, because cuDNN keeps its plans by thread.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch
from torch import Tensor


def with_work_beside(
    launch: Callable[[], Tensor], beside: Callable[[], None], device: torch.device
) -> Tensor:
    """The result of ``launch``, made in the side thread, and ``beside`` done in this one meanwhile.

    ``launch`` runs under the inference mode and on the stream of ``device`` that are current here,
    so what is launched here afterwards comes after it. Neither may call this again. A fault of
    ``beside`` counts before one of ``launch``, which is waited for in any case. torch's choice of
    an attention kernel is one for all threads: ``launch`` must not depend on it.
    """
    inference = torch.is_inference_mode_enabled()
    stream: AbstractContextManager[object] = nullcontext()
    if device.type == "cuda":
        stream = torch.cuda.stream(torch.cuda.current_stream(device))

    def run() -> Tensor:
        with torch.inference_mode(inference), stream:
            return launch()

    under_way = _thread().submit(run)
    try:
        beside()
    except BaseException:
        wait([under_way])
        raise
    return under_way.result()


@cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "flythrough-device")
