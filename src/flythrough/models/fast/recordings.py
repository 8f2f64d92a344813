"""Calls that come back with the same shapes, recorded once as CUDA graphs and replayed.

A replay costs the host next to nothing. On one GPU that gains little, because its kernels outlast
the host's launching; where several GPUs share a call, each is done sooner than its host has
launched it, and all wait for the slowest host at every exchange.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

Work = Callable[..., Tensor]

_LAUNCHED = 2
"""Calls of a key that are launched before one is recorded: recording takes the host as long as a
call, so it has to be a key that comes back. What is compiled or looked up at first is so by then.
"""
_KEPT = 8
"""Recordings: three stages with two prompts, and some."""
_COUNTED = 64
"""Keys whose calls are counted."""


class Record(Protocol):
    """Records ``work`` without doing it: how to do it, and where its result will lie then.

    Raises:
        torch.OutOfMemoryError: no memory for a recording; ``work`` has to have waited for all that
            it began elsewhere by then.
    """

    def __call__(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]: ...


class CudaGraphs:
    """Records on one GPU. Recordings share one pool of memory, so a result has to be used up before
    anything else is replayed."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        # torch records nothing more into a pool whose recordings are all gone, so one stays.
        self._anchor = self(lambda: torch.zeros(1, device=device))

    def __call__(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        graph = torch.cuda.CUDAGraph()
        # Of this thread alone: torch's watchdog of exchanges asks the GPU meanwhile.
        recording = torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        )
        with torch.cuda.device(self._device), recording:
            found = work()
        return graph.replay, found


@dataclass(frozen=True, eq=False)
class _Recording:
    """``inputs`` are what a replay reads, ``result`` is where it writes; ``work`` keeps alive what
    else its kernels read."""

    inputs: tuple[Tensor, ...]
    replay: Callable[[], None]
    result: Tensor
    work: Work


class Recordings:
    """Does work, and records what comes back.

    Processes that exchange something within ``work`` need not record at the same call: recording
    exchanges nothing, and a replay what a launched call does. All calls must be made on one stream.
    """

    def __init__(self, record: Record) -> None:
        self._record = record
        self._counts: dict[Hashable, int] = {}
        self._made: dict[Hashable, _Recording] = {}
        self._full = False

    def run(self, key: Hashable, work: Work, inputs: Sequence[Tensor]) -> Tensor:
        """``work(*inputs)``. The result of a replay is overwritten by the next one.

        Args:
            key: equal for works that differ in the values of ``inputs`` alone, which have the same
                shapes; what else the work reads must stay where it is while the key is in use.
            work: launches the same kernels at every call and waits for nothing.
        """
        made = self._made.pop(key, None) or self._recorded(key, work, inputs)
        if made is None:
            return work(*inputs)
        self._made[key] = made  # the newest now
        _drop_oldest(self._made, _KEPT)
        for own, given in zip(made.inputs, inputs, strict=True):
            own.copy_(given)
        made.replay()
        return made.result

    def _recorded(self, key: Hashable, work: Work, inputs: Sequence[Tensor]) -> _Recording | None:
        """A new recording, if the key has come back often enough and there is memory."""
        launched = self._counts.pop(key, 0)
        if launched < _LAUNCHED or self._full:
            self._counts[key] = min(launched + 1, _LAUNCHED)
            _drop_oldest(self._counts, _COUNTED)
            return None
        try:
            with torch.inference_mode(False), torch.no_grad():  # or they could not be overwritten
                own = tuple(given.clone() for given in inputs)
            replay, result = self._record(lambda: work(*own))
        except torch.OutOfMemoryError:
            self._full = True  # what is recorded stays; all else is launched until a drop
            return None
        return _Recording(own, replay, result, work)

    def drop(self, outdated: Callable[[Any], bool] = lambda _key: True) -> None:
        """Give up the recordings whose key is ``outdated``, in place; all if nothing is given."""
        self._full = False
        for kept in (self._made, self._counts):
            for key in [key for key in kept if outdated(key)]:
                del kept[key]


def _drop_oldest(kept: dict[Hashable, Any], most: int) -> None:
    while len(kept) > most:
        del kept[next(iter(kept))]
