"""Two kinds of host work at once: one thread keeps a GPU fed, the other does what takes long.

There is one such thread for the whole process, because cuDNN keeps its plans by thread.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
from torch import Tensor


def with_work_beside(
    launch: Callable[[], Tensor], beside: Callable[[], None], device: torch.device
) -> Tensor:
    """The result of ``launch``, and ``beside`` done in this thread meanwhile.

    On a CUDA device ``launch`` runs in the side thread, on the stream that is current here, so what
    is launched here afterwards comes after it. Elsewhere one runs after the other.
    """
    if device.type != "cuda":
        found = launch()
        beside()
        return found
    stream, inference = torch.cuda.current_stream(device), torch.is_inference_mode_enabled()

    def run() -> Tensor:
        with torch.inference_mode(inference), torch.cuda.stream(stream):
            return launch()

    under_way = _thread().submit(run)
    try:
        beside()
    finally:
        made = under_way.result()
    return made


@cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "flythrough-device")
