"""200 frames of WorldWarp: finished, taken back at every chunk, and opened by other programs."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flythrough.media.video import read_video
from flythrough.rollout import store
from throwaway import Command

FRAMES = 200
CHUNKS = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run for the tests below."""
    return tmp_path_factory.mktemp("long")


@pytest.fixture
def run(folder: Path, tiny_st_diff: Path, photo: Path, flythrough: Command) -> Path:
    """200 frames in chunks of 49 that share 5, as published; two steps each."""
    if not (folder / "run").is_dir():
        words: list[object] = ["generate", photo, "--camera", "forward 0.5; orbit left 20deg"]
        words += ["--model", tiny_st_diff, "--geometry", "flat", "--frames", FRAMES]
        words += ["--chunk-frames", 49, "--overlap", 5, "--steps", 2, "--guidance", 1]
        words += ["--rollout", folder / "run", "-o", folder / "out.mp4"]
        answer = flythrough(*words)
        assert answer.status == 0, answer.err
        assert (answer.result["frames"], answer.result["chunks"]) == (FRAMES, CHUNKS)
    return folder / "run"


def test_it_can_be_taken_back_at_any_chunk(
    run: Path, folder: Path, flythrough: Command, tmp_path: Path
) -> None:
    assert len(read_video(folder / "out.mp4").frames) == FRAMES
    whole = store.load(run)
    assert [len(chunk.frames) for chunk in whole.chunks] == [49, 44, 44, 44, 44]
    for kept in range(1, CHUNKS):
        branch = tmp_path / f"branch-{kept}"
        assert flythrough("branch", run, branch, "--chunks", kept).status == 0
        assert store.load(branch).digest() == whole.kept(kept).digest()
    last = tmp_path / f"branch-{CHUNKS - 2}"
    again = flythrough("continue", last, "-o", tmp_path / "again.mp4")
    assert again.status == 0, again.err
    assert again.result["digest"] == whole.digest()


def exported(run: Path, folder: Path, flythrough: Command) -> Path:
    target = folder / "export"
    if not target.is_dir():
        answer = flythrough("export", run, "-o", target)
        assert answer.status == 0, answer.err
        assert answer.result["frames"] == FRAMES
    return target


def test_cameras_and_points_are_exported(run: Path, folder: Path, flythrough: Command) -> None:
    target = exported(run, folder, flythrough)
    found = store.load(run).cameras()
    assert found is not None
    with np.load(target / "cameras.npz") as archive:
        assert np.allclose(archive["c2w"], found[0][:FRAMES])
    assert (target / "points.ply").stat().st_size > 1000


@pytest.mark.skipif(find_spec("pycolmap") is None, reason="pycolmap is not installed")
def test_pycolmap_opens_them(run: Path, folder: Path, flythrough: Command) -> None:
    import pycolmap

    target = exported(run, folder, flythrough)
    opened: Any = pycolmap.Reconstruction(str(target / "sparse" / "0"))
    assert len(opened.images) == FRAMES
    assert len(opened.points3D) > 100


@pytest.mark.skipif(find_spec("bpy") is None, reason="bpy is not installed")
def test_blender_opens_them(run: Path, folder: Path, flythrough: Command) -> None:
    import runpy

    import bpy

    target = exported(run, folder, flythrough)
    runpy.run_path(str(target / "blender_scene.py"))["build"](target)
    made = bpy.data.collections["Flythrough"]
    assert bpy.context.scene.frame_end - bpy.context.scene.frame_start + 1 == FRAMES
    kinds = {one.type for one in made.objects}
    assert {"CAMERA", "MESH"} <= kinds
    assert json.loads((run / "rollout.json").read_text())
