"""Frames of finished chunks on disk while a job runs, so that long videos need no more memory."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np

from flythrough.errors import FaultError
from flythrough.media.checks import reason
from flythrough.rollout.chunk import Chunk
from flythrough.rollout.rollout import Rollout


class FrameSpool:
    """A temporary folder of raw frames; it goes when the spool does.

    Chunks that come back are equal to those that went in, but their frames are read from disk when
    they are looked at.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None

    def kept(self, chunk: Chunk) -> Chunk:
        """``chunk`` with its frames on disk.

        Raises:
            FaultError: the disk is full or failed.
        """
        try:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="flythrough-"))
                weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
            file = self._folder / f"{chunk.request.index:06d}-{chunk.digest()}"
            if not file.exists():
                file.write_bytes(np.ascontiguousarray(chunk.frames).data)
            shape = chunk.frames.shape
            frames = np.memmap(file, dtype=np.uint8, mode="r", shape=shape)
        except OSError as error:
            raise FaultError(
                f"Frames cannot be kept in {tempfile.gettempdir()} ({reason(error)}); free space "
                "there or set TMPDIR to another disk."
            ) from error
        return replace(chunk, frames=frames)

    def kept_all(self, rollout: Rollout) -> Rollout:
        """``rollout`` with the frames of all its chunks on disk."""
        return replace(rollout, chunks=tuple(self.kept(chunk) for chunk in rollout.chunks))
