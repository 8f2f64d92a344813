"""Work that comes back with the same shapes, recorded once as a CUDA graph and replayed.

A replay costs the host next to nothing. On one GPU that gains little, because its kernels outlast
the host's launching; shared by several GPUs a call's kernels are done sooner than the host can
launch them, and every GPU waits for the slowest host at each exchange.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

Work = Callable[..., Tensor]

_EAGER = 2
"""Calls under a key before it is recorded: recording takes the host as long as a call and saves
nothing then, so it has to be a key that comes back (a chunk of the published sampler makes two
calls a stage, and where tokens are left out the next chunk has another number of them)."""
_KEPT = 8
"""Recordings: three stages with two prompts, and some."""
_NOTED = 64
"""Keys whose calls are counted."""


class Record(Protocol):
    """Records ``work`` without arguments: how to do it again, and where its result then lies."""

    def __call__(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]: ...


class CudaGraphs:
    """Records on one GPU. All recordings share one pool of memory, so a result has to be used up
    before anything else is replayed."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        graph = torch.cuda.CUDAGraph()
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            work()  # once before, so that nothing is compiled or looked up meanwhile
            # Of this thread alone: another one may be decoding meanwhile.
            graph.capture_begin(self._pool, capture_error_mode="thread_local")
            try:
                found = work()
            finally:
                graph.capture_end()
        torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)
        return graph.replay, found


@dataclass(frozen=True, eq=False)
class _Recorded:
    given: tuple[Tensor, ...]
    replay: Callable[[], None]
    found: Tensor
    work: Work  # holds what its kernels read


class Replays:
    """Does work, and records what comes back.

    Args:
        record: makes a recording; None: nothing is recorded.
    """

    def __init__(self, record: Record | None) -> None:
        self._record = record
        self._noted: dict[Hashable, int] = {}
        self._made: dict[Hashable, _Recorded] = {}

    def __call__(self, key: Hashable, work: Work, given: Sequence[Tensor]) -> Tensor:
        """``work(*given)``. What a replay finds is overwritten by the next one.

        Args:
            key: equal for works that differ in the values of ``given`` alone, which have the same
                shapes; what else the work reads must stay where it is while the key is in use.
            work: launches the same kernels at every call and waits for nothing.
        """
        if self._record is None:
            return work(*given)
        made = self._made.pop(key, None)
        if made is None:
            calls = self._noted.pop(key, 0)
            if calls < _EAGER:
                self._noted[key] = calls + 1
                _drop_oldest(self._noted, _NOTED)
                return work(*given)
            made = self._recorded(self._record, work, given)
        self._made[key] = made  # the newest now
        _drop_oldest(self._made, _KEPT)
        for mine, theirs in zip(made.given, given, strict=True):
            mine.copy_(theirs)
        made.replay()
        return made.found

    def _recorded(self, record: Record, work: Work, given: Sequence[Tensor]) -> _Recorded:
        with torch.inference_mode(False), torch.no_grad():  # or they could not be overwritten
            own = tuple(part.clone() for part in given)
        replay, found = record(lambda: work(*own))
        return _Recorded(own, replay, found, work)


def _drop_oldest(kept: dict[Hashable, Any], most: int) -> None:
    while len(kept) > most:
        del kept[next(iter(kept))]
