"""Frames on disk while a job runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flythrough.engine.spool import spooled
from flythrough.errors import FaultError
from flythrough.rollout.chunk import CHUNK_FRAMES, Chunk, ChunkRequest


def chunk(index: int = 0) -> Chunk:
    rng = np.random.default_rng(index)
    return Chunk(
        request=ChunkRequest(index=index),
        latents=rng.normal(size=(16, 9, 2, 4)).astype(np.float32),
        frames=rng.integers(0, 255, (CHUNK_FRAMES, 16, 32, 3), dtype=np.uint8),
    )


def test_a_spooled_chunk_is_equal_and_its_frames_lie_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made = chunk()
    kept = spooled(made)
    assert kept.digest() == made.digest()
    assert np.array_equal(kept.frames, made.frames)
    assert isinstance(kept.frames.base, np.memmap)
    assert not list(tmp_path.iterdir())  # the file has no name, so nothing can be left behind
    with pytest.raises(ValueError, match="read-only"):
        kept.frames[0] = 0


def test_a_failing_disk_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "memmap", lambda *_a, **_k: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(FaultError, match="set TMPDIR"):
        spooled(chunk())
