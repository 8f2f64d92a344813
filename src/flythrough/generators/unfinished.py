"""A chunk whose latents are known and whose frames are still on the way.

On a CUDA GPU frames may be decoded on a stream of their own while the next chunk is denoised.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from flythrough.generators.base import Generator, Report
from flythrough.rollout.chunk import Chunk, ChunkRequest
from flythrough.rollout.rollout import Rollout


class Frames(Protocol):
    """Frames under way."""

    def ready(self) -> bool:
        """Whether :meth:`wait` would return at once."""
        ...

    def wait(self) -> tuple[np.ndarray, float]:
        """uint8 [T,H,W,3], and the seconds that decoding took."""
        ...


@dataclass(frozen=True, eq=False)
class Unfinished:
    """``sampled`` has the chunk's request and latents and stands in for it where no frame is looked
    at: its frames are black."""

    sampled: Chunk
    frames: Frames

    def ready(self) -> bool:
        """Whether the chunk can be had without waiting."""
        return self.frames.ready()

    def finished(self) -> Chunk:
        """The chunk; waits for its frames."""
        frames, seconds = self.frames.wait()
        before = self.sampled
        timings = {**before.timings, "decode": seconds}
        return Chunk(before.request, before.latents, frames, timings)


def unfinished(
    request: ChunkRequest,
    latents: np.ndarray,
    size: tuple[int, int],
    timings: Mapping[str, float],
    decode: Callable[[], Frames],
) -> Unfinished:
    """The chunk of ``latents`` whose frames ``decode`` begins to make, if the latents are finite.

    Raises:
        FaultError: they are not.
    """
    black = np.broadcast_to(np.uint8(0), (request.frames, *size, 3))
    sampled = Chunk(request, latents, black, timings)
    return Unfinished(sampled, decode())


class Ahead(Protocol):
    """A generator that can go on before the frames of its newest chunk are there."""

    def begin(self, rollout: Rollout, request: ChunkRequest, report: Report) -> Unfinished:
        """Like ``chunk``, without waiting for frames. It looks at no frames of the newest chunk of
        ``rollout``, unless they are there when it returns."""
        ...


def begin(
    generator: Generator, rollout: Rollout, request: ChunkRequest, report: Report
) -> Unfinished:
    """The next chunk of any generator; finished at once where the method needs its frames."""
    starts: Callable[..., Unfinished] | None = getattr(generator, "begin", None)
    if starts is not None:
        return starts(rollout, request, report)
    chunk = generator.chunk(rollout, request, report)
    return Unfinished(chunk, Made(chunk.frames, chunk.timings.get("decode", 0.0)))


@dataclass(frozen=True, eq=False)
class Made:
    """Frames that are there."""

    frames: np.ndarray
    seconds: float

    def ready(self) -> bool:
        return True

    def wait(self) -> tuple[np.ndarray, float]:
        return self.frames, self.seconds


def decoded_now(work: Callable[[], Tensor]) -> Made:
    """Frames of ``work``, uint8 [T,H,W,3] on any device."""
    started = time.monotonic()
    frames = work().cpu().numpy()
    return Made(frames, time.monotonic() - started)


class OnSideStream:
    """Frames that a GPU makes beside other work.

    Args:
        work: decodes ``given`` to uint8 [T,H,W,3] on the GPU.
        given: made on the current stream.
    """

    def __init__(self, work: Callable[[], Tensor], given: Tensor) -> None:
        side = _side_stream(given.device)
        side.wait_stream(torch.cuda.current_stream(given.device))
        self._begun, self._done = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        with torch.cuda.stream(side):
            self._begun.record(side)
            self._pixels = work()
            self._host = torch.empty(self._pixels.shape, dtype=torch.uint8, pin_memory=True)
            self._host.copy_(self._pixels, non_blocking=True)
            self._done.record(side)
        given.record_stream(side)

    def ready(self) -> bool:
        return bool(self._done.query())

    def wait(self) -> tuple[np.ndarray, float]:
        self._done.synchronize()
        frames = self._host.numpy().copy()  # locked pages go back for the next chunk
        return frames, self._begun.elapsed_time(self._done) / 1000


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One stream a device, ahead of others in line: frames are waited for, and the sum of the work
    stays the same."""
    return torch.cuda.Stream(device, priority=-1)
