"""``flythrough export``: what other programs get from a rollout."""

from __future__ import annotations

import ast
import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from flythrough.cameras.formats import read_trajectory
from flythrough.cameras.formats.colmap_files import read_model
from flythrough.engine import export as exporting
from flythrough.geometry.estimators.shape_files import read_shape
from flythrough.media.image import read_photo
from flythrough.media.video import read_video
from flythrough.rollout import store
from flythrough.scene.splat_files import read_splats
from throwaway import Answer, Command

FRAMES = 20
ALL = "cameras,points,glb,colmap,blender,gaussians"


@pytest.fixture
def run(flythrough: Command, tiny_model: Path, photo: Path, tmp_path: Path) -> Path:
    """A rollout of 20 frames before a wall, by a model whose fits are brief."""
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    file = model / "flythrough.json"
    settings = json.loads(file.read_text())
    settings["defaults"].setdefault("warp", {})["gaussian_steps"] = 2
    file.write_text(json.dumps(settings))
    words = ["generate", photo, "--camera", "forward 0.2; pan left 10deg", "--model", model]
    words += ["--frames", FRAMES, "--geometry", "flat", "--rollout", tmp_path / "run"]
    answer = flythrough(*words, "-o", tmp_path / "out.mp4")
    assert answer.status == 0, answer.err
    return tmp_path / "run"


def refused(answer: Answer, word: str) -> None:
    assert answer.status == 2
    assert word in answer.err
    assert "Traceback" not in answer.err


def test_every_format(flythrough: Command, run: Path, tmp_path: Path) -> None:
    target = tmp_path / "export"
    answer = flythrough("export", run, "-o", target, "--formats", ALL)
    assert answer.status == 0, answer.err
    for stage in ("loading the network", "estimating", "pictures", "the video", "Gaussians"):
        assert stage in answer.err
    assert answer.result["frames"] == FRAMES
    assert set(answer.result["files"]) == set(ALL.split(","))
    rollout = store.load(run)
    found = rollout.cameras()
    assert found is not None
    poses, matrices = found[0][:FRAMES], found[1][:FRAMES]

    with np.load(target / "cameras.npz") as cameras:
        assert np.array_equal(cameras["c2w"], poses)
        assert np.array_equal(cameras["K"], matrices)
        assert (int(cameras["height"]), int(cameras["width"])) == rollout.size
        assert float(cameras["fps"]) == rollout.spec.fps
        point = np.array([0.3, -0.2, 2.0])
        world = poses[-1] @ [*point, 1]
        assert np.allclose(cameras["R"][-1] @ world[:3] + cameras["t"][-1], point)
    again = read_trajectory(target / "cameras.npz")
    assert np.allclose(again.world_from_camera, poses)  # the wall stands at depth 1
    assert np.allclose(again.intrinsics, matrices)

    model = read_model(target / "sparse" / "0")
    assert np.allclose(model.world_from_camera, poses, atol=1e-12)
    assert np.allclose(model.intrinsics, matrices, atol=1e-9)
    assert model.size == rollout.size
    assert len(model.points) == rollout.size[0] * rollout.size[1]
    assert np.allclose(model.points[:, 2], 1)
    for name, frame in zip(model.names, rollout.frames(), strict=False):
        assert np.array_equal(read_photo(target / "images" / name).pixels, frame)
    assert len(list((target / "images").iterdir())) == FRAMES

    shown = read_shape(str(target / "points.ply"))
    assert len(shown.shape.points) == len(model.points)
    assert read_shape(str(target / "points.glb")).shape.points.shape == shown.shape.points.shape
    splats = read_splats(target / "gaussians.ply")
    assert len(splats) == len(model.points)
    assert splats.means.isfinite().all()
    assert len(read_video(target / "video.mp4").frames) == FRAMES
    ast.parse((target / "blender_scene.py").read_text())
    refused(flythrough("export", run, "-o", target), "a new folder")


def test_text_models_and_what_is_refused(flythrough: Command, run: Path, tmp_path: Path) -> None:
    target = tmp_path / "text"
    answer = flythrough("export", run, "-o", target, "--formats", "colmap-text")
    assert answer.status == 0, answer.err
    assert sorted(p.name for p in target.iterdir()) == ["images", "sparse"]
    model = read_model(target / "sparse" / "0")
    found = store.load(run).cameras()
    assert found is not None
    assert np.allclose(model.intrinsics, found[1][:FRAMES], atol=1e-9)
    assert np.allclose(model.world_from_camera, found[0][:FRAMES], atol=1e-12)
    if find_spec("pycolmap") is not None:
        import pycolmap

        assert len(pycolmap.Reconstruction(str(target / "sparse" / "0")).images) == FRAMES
    refused(flythrough("export", run, "-o", tmp_path / "x", "--formats", "usd"), "'usd'")
    both = "colmap,colmap-text"
    refused(flythrough("export", run, "-o", tmp_path / "x", "--formats", both), "keep one")
    refused(flythrough("export", run, "-o", tmp_path / "no" / "x"), "does not exist")
    refused(flythrough("export", tmp_path, "-o", tmp_path / "x"), "rollout")
    assert not (tmp_path / "x").exists()


def test_chunks_that_share_frames(
    flythrough: Command, tiny_st_diff: Path, photo: Path, tmp_path: Path
) -> None:
    """9 frames, then 4: neither what overlaps nor what the plan cut off is exported."""
    run = tmp_path / "run"
    words = ["generate", photo, "--camera", "forward 0.2", "--geometry", "flat"]
    words += ["--model", tiny_st_diff, "--frames", 12, "--rollout", run]
    assert flythrough(*words, "-o", tmp_path / "out.mp4").status == 0
    for chunks, frames in ((2, 12), (1, 9)):
        target = tmp_path / f"export{chunks}"
        answer = flythrough("export", run, "-o", target, "--formats", "cameras,colmap")
        assert answer.status == 0, answer.err
        assert answer.result["frames"] == frames
        assert ("the run has 9 of its 12 frames" in answer.err) == (chunks == 1)
        with np.load(target / "cameras.npz") as cameras:
            assert len(cameras["K"]) == frames
        assert len(list((target / "images").iterdir())) == frames
        assert len(read_model(target / "sparse" / "0").names) == frames
        flythrough("rewind", run, "--chunks", 1)


def test_an_interrupted_export_leaves_nothing(
    flythrough: Command, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "export"
    target.mkdir()
    before = set(tmp_path.iterdir())

    def stopped(*_: object) -> list[str]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "_write_blender", stopped)
    answer = flythrough("export", run, "-o", target)
    assert answer.status == 1
    assert "No space left" in answer.err
    assert set(tmp_path.iterdir()) == before
    assert list(target.iterdir()) == []
    monkeypatch.undo()
    assert flythrough("export", run, "-o", target, "--formats", "cameras").status == 0
    assert [path.name for path in target.iterdir()] == ["cameras.npz"]
