"""Frames of finished chunks on disk while a job runs, so that long videos need no more memory."""

from __future__ import annotations

import tempfile
from dataclasses import replace

import numpy as np

from flythrough.errors import FaultError
from flythrough.media.checks import reason
from flythrough.rollout.chunk import Chunk
from flythrough.rollout.rollout import Rollout


def spooled(chunk: Chunk) -> Chunk:
    """``chunk`` with its frames in a nameless temporary file, read when they are looked at.

    The file goes with the last value that shows it, also when the process is killed.

    Raises:
        FaultError: the disk is full or failed.
    """
    try:
        with tempfile.TemporaryFile(prefix="flythrough-") as file:
            file.write(np.ascontiguousarray(chunk.frames).data)
            file.flush()
            frames = np.memmap(file, dtype=np.uint8, mode="r", shape=chunk.frames.shape)
    except OSError as error:
        raise FaultError(
            f"Frames cannot be kept in {tempfile.gettempdir()} ({reason(error)}); free space there "
            "or set TMPDIR to another disk."
        ) from error
    return replace(chunk, frames=frames)


def all_spooled(rollout: Rollout) -> Rollout:
    """``rollout`` with the frames of all its chunks on disk."""
    return replace(rollout, chunks=tuple(spooled(chunk) for chunk in rollout.chunks))
