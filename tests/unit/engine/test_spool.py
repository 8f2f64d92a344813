"""Frames on disk while a job runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flythrough.engine.spool import FrameSpool
from flythrough.errors import FaultError
from flythrough.rollout.chunk import CHUNK_FRAMES, Chunk, ChunkRequest


def chunk(index: int = 0) -> Chunk:
    rng = np.random.default_rng(index)
    return Chunk(
        request=ChunkRequest(index=index),
        latents=rng.normal(size=(16, 9, 2, 4)).astype(np.float32),
        frames=rng.integers(0, 255, (CHUNK_FRAMES, 16, 32, 3), dtype=np.uint8),
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_a_kept_chunk_is_equal_and_its_frames_lie_on_disk(folder: Path) -> None:
    spool, made = FrameSpool(), chunk()
    kept = spool.kept(made)
    assert kept.digest() == made.digest()
    assert np.array_equal(kept.frames, made.frames)
    assert isinstance(kept.frames.base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        kept.frames[0] = 0
    assert len(list(folder.rglob("000000-*"))) == 1


def test_the_files_go_with_the_spool(folder: Path) -> None:
    spool = FrameSpool()
    spool.kept(chunk())
    del spool
    assert not list(folder.iterdir())


def test_nothing_is_made_before_the_first_chunk(folder: Path) -> None:
    FrameSpool()
    assert not list(folder.iterdir())


def test_a_failing_disk_is_one_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "memmap", lambda *_a, **_k: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(FaultError, match="set TMPDIR"):
        FrameSpool().kept(chunk())
    assert folder.is_dir()
