"""Camera files of other programs on the command line, in Python and in a batch."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

import flythrough as ft
from flythrough.cameras.formats import read_trajectory
from flythrough.cameras.formats.colmap import ColmapModel, write_model
from flythrough.cameras.path_language import parse_path
from flythrough.rollout import store
from throwaway import Command

ORBIT = parse_path("orbit left 30deg", 33).world_from_camera
FLIP = np.diag([1.0, -1, -1, 1])


@pytest.fixture
def transforms(tmp_path: Path) -> Path:
    """An orbit at a distance of 4, as NeRF stores it."""
    poses = ORBIT.copy()
    poses[:, :3, 3] *= 4
    frames = [
        {"file_path": f"r_{n}", "transform_matrix": (pose @ FLIP).tolist()}
        for n, pose in enumerate(poses)
    ]
    file = tmp_path / "transforms.json"
    file.write_text(json.dumps({"camera_angle_x": 0.9, "frames": frames}))
    return file


def colmap(folder: Path, depth: float | None = None) -> Path:
    """A model of 21 pictures along ``forward 0.2``, with points at ``depth``."""
    folder.mkdir(exist_ok=True)
    poses = parse_path("forward 0.2", 21).world_from_camera
    matrices = np.repeat(np.array([[[90.0, 0, 64], [0, 90.0, 48], [0, 0, 1]]]), 21, 0)
    points = np.zeros((0, 3)) if depth is None else np.array([[0.0, 0, depth]] * 9)
    names = [f"{n}.png" for n in range(21)]
    model = ColmapModel(poses, matrices, (96, 128), names, points, points.astype(np.uint8))
    write_model(folder, model)
    return folder


def test_conversion(flythrough: Command, transforms: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    made = flythrough("camera", transforms, "-o", out, "--plot", tmp_path / "out.png")
    assert made.status == 0, made.err
    assert made.result["frames"] == 33
    assert made.result["unit"] == "median-depth"
    assert "0.25 median depths" in made.err
    assert "square one is assumed" in made.err
    path = read_trajectory(out)
    np.testing.assert_allclose(path.world_from_camera, ORBIT, atol=1e-9)
    assert path.intrinsics is not None
    double = tmp_path / "double.npz"
    made = flythrough("camera", transforms, "--camera-scale", 0.5, "-o", double)
    assert "states no unit" not in made.err
    np.testing.assert_allclose(
        read_trajectory(double).world_from_camera[:, :3, 3], 2 * ORBIT[:, :3, 3], atol=1e-9
    )
    for source, option, word in (
        (transforms, ["--convention", "opengl"], "no effect"),
        (out, ["--camera-scale", 2], "states its unit"),
        ("forward 1", ["--camera-scale", 2], "path in words"),
        (transforms, ["--camera-scale", 0], "not a finite number above 0"),
        (tmp_path, [], "without a COLMAP model"),
    ):
        refused = flythrough("camera", source, *option, "-o", tmp_path / "no.json")
        assert refused.status == 2
        assert word in refused.err
        assert refused.err.count("\n") == 1
    assert not (tmp_path / "no.json").exists()


def test_generate_and_continue(
    flythrough: Command, tiny_model: Path, photo: Path, transforms: Path, tmp_path: Path
) -> None:
    run, out = tmp_path / "run", tmp_path / "o.mp4"
    words = ["generate", photo, "--geometry", "flat", "--model", tiny_model, "--frames", 33]
    words += ["--camera", transforms, "-o", out]
    refused = flythrough(*words, "--camera-convention", "opengl")
    assert refused.status == 2
    assert "NeRF transforms fixes" in refused.err
    made = flythrough(*words, "--rollout", run)
    assert made.status == 0, made.err
    assert "0.25 median depths" in made.err
    assert "loses sight" not in made.err
    request = store.load(run).chunks[0].request
    assert request.world_from_camera is not None
    np.testing.assert_allclose(request.world_from_camera, ORBIT, atol=1e-9)

    folder = colmap(tmp_path / "sparse")
    on = ["continue", run, "--camera", folder, "--frames", 20, "-o", out]
    usual = flythrough(*on)
    assert usual.status == 0, usual.err
    assert "0.5 median depths" in usual.err
    assert flythrough("rewind", run, "--chunks", 1).status == 0
    scaled = flythrough(*on, "--camera-scale", 1)
    assert scaled.status == 0, scaled.err
    assert "states no unit" not in scaled.err
    start, end = (store.load(run).cameras()[0][n] for n in (32, 52))  # type: ignore[index]
    assert np.linalg.norm((np.linalg.inv(start) @ end)[:3, 3]) == pytest.approx(0.2)
    alone = flythrough("continue", run, "--prompt", "dusk", "--camera-scale", 1)
    assert "no effect on a continuation without --camera" in alone.err


def test_python_and_batch(tiny_model: Path, photo: Path, transforms: Path, tmp_path: Path) -> None:
    pipe = ft.load(tiny_model, geometry="flat")
    first = pipe.start(photo)
    with pytest.warns(UserWarning, match=r"0\.25 median depths"):
        usual = pipe.warp(first, transforms)
    same = pipe.warp(first, transforms, camera_scale=0.25)
    assert np.array_equal(usual.mask, same.mask)
    row = {"image": str(photo), "camera": str(transforms), "frames": 8, "geometry": "flat"}
    rows = [{"id": "a", **row}, {"id": "b", **row, "camera-scale": 0.5}]
    folder = tmp_path / "out"
    with pytest.warns(UserWarning, match=r"0\.25 median depths"):
        made = ft.run_batch(rows, folder, model=str(tiny_model))
    assert [result.id for result in made] == ["a", "b"]
    lines = (folder / "results.jsonl").read_text().splitlines()
    digests = [json.loads(line)["request_digest"] for line in lines]
    assert len(set(digests)) == 2


def test_a_batch_knows_a_model_by_all_its_files(
    tiny_model: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    colmap(tmp_path / "sparse", 2.0)
    row = {"id": "a", "image": str(photo), "camera": "sparse/", "frames": 8, "geometry": "flat"}

    def lines() -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ft.run_batch([row], "out", model=str(tiny_model))
        return len((tmp_path / "out" / "results.jsonl").read_text().splitlines())

    assert [lines(), lines()] == [1, 1]
    colmap(tmp_path / "sparse", 4.0)  # other points, so other lengths
    assert lines() == 2


def test_a_tool_that_writes_other_axes_is_told(
    flythrough: Command, tiny_model: Path, photo: Path, tmp_path: Path
) -> None:
    orbit = parse_path("orbit left 60deg", 33).world_from_camera
    file = tmp_path / "transforms.json"
    file.write_text(json.dumps({"frames": [{"transform_matrix": p.tolist()} for p in orbit]}))
    words = ["generate", photo, "--geometry", "flat", "--model", tiny_model, "--frames", 33]
    told = flythrough(*words, "--camera", file, "--camera-scale", 1, "-o", tmp_path / "o.mp4")
    assert told.status == 0, told.err
    assert "check that the tool that wrote it keeps to the format" in told.err
