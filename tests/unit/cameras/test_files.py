"""Camera files, the file-or-words argument, the plot and the command."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from flythrough.cameras import pose as se3
from flythrough.cameras.formats import camera_poses_npz, read_trajectory, write_trajectory
from flythrough.cameras.path_language import parse_path
from flythrough.cameras.plot import plot_trajectory
from flythrough.cameras.source import camera_notes, trajectory_from
from flythrough.cameras.trajectory import LengthUnit, Trajectory
from flythrough.cli.camera import camera
from flythrough.errors import CameraError

PHOTO = np.array([[300.0, 0, 160], [0, 310.0, 90], [0, 0, 1]])
POSES = parse_path("forward 2; pan left 30deg", 5).world_from_camera


@pytest.mark.parametrize("suffix", [".npz", ".json"])
@pytest.mark.parametrize("unit", LengthUnit)
@pytest.mark.parametrize("lens", ["none", "zoom", "own"])
def test_round_trips_are_exact(tmp_path: Path, suffix: str, unit: LengthUnit, lens: str) -> None:
    path = parse_path("forward 1; orbit left 20deg" + "; zoom 2x" * (lens == "zoom"), 7, 23.976)
    if lens == "own":
        path = path.resolve(PHOTO, (180, 320), 3.3)
    path = path.scaled(1.7, unit).moved(se3.translation(1, 2, 3))
    file = tmp_path / f"path{suffix}"
    write_trajectory(file, path)
    assert read_trajectory(file).digest() == path.digest()


@pytest.mark.parametrize("poses", [POSES, POSES[None], POSES[:, :3], POSES.astype(np.float32)])
def test_published_archives_count_tenths_of_the_median_depth(
    tmp_path: Path, poses: np.ndarray
) -> None:
    file = tmp_path / "a.npz"
    np.savez(file, camera_poses=poses)
    path = read_trajectory(file)
    assert path.unit is LengthUnit.MEDIAN_DEPTH
    np.testing.assert_allclose(path.world_from_camera[-1, :3, 3], (0, 0, 0.2), atol=1e-7)
    np.testing.assert_allclose(path.times, np.arange(5) / 16)
    whole = camera_poses_npz.read(file, translation_scale=1.0)
    np.testing.assert_allclose(whole.world_from_camera[-1, :3, 3], (0, 0, 2), atol=1e-6)


def test_archive_options(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    flip = np.diag([1.0, -1, -1, 1])
    np.savez(
        file, camera_poses=POSES @ flip, intrinsics=PHOTO, size=[180, 320], fps=8, unit="metre"
    )
    path = camera_poses_npz.read(file, convention="opengl")
    np.testing.assert_allclose(path.world_from_camera, POSES)
    assert path.unit is LengthUnit.METRE
    assert path.size == (180, 320)
    assert path.intrinsics is not None
    np.testing.assert_array_equal(path.intrinsics, [PHOTO] * 5)
    np.testing.assert_allclose(path.times, np.arange(5) / 8)
    with pytest.raises(CameraError, match="'blender'"):
        camera_poses_npz.read(file, convention="blender")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"poses": POSES}, ["'camera_poses'", "'poses'"]),
        ({"camera_poses": POSES[0]}, ["shape [4, 4]"]),
        ({"camera_poses": POSES * 1.1}, ["frame 0", "last row"]),
        ({"camera_poses": POSES[:, :3] * 1.1}, ["frame 0", "0.21"]),
        ({"camera_poses": POSES.astype(str)}, ["type"]),
        ({"camera_poses": POSES, "intrinsics": PHOTO}, ["size"]),
        ({"camera_poses": POSES, "fps": 0}, ["fps"]),
        ({"camera_poses": POSES, "unit": "foot"}, ["'foot'"]),
        ({"camera_poses": np.array([None])}, ["pickle"]),
    ],
)
def test_archive_errors_name_the_file(
    tmp_path: Path, arrays: dict[str, np.ndarray], words: list[str]
) -> None:
    file = tmp_path / "bad.npz"
    np.savez(file, **arrays)
    with pytest.raises(CameraError) as caught:
        read_trajectory(file)
    for word in ("bad.npz", *words):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps([1, 2]))
    (tmp_path / "empty.npz").write_bytes(b"")
    np.savez(tmp_path / "cut.npz", camera_poses=POSES)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:300])
    (tmp_path / "text.json").write_text("{")
    (tmp_path / "other.json").write_text("[1]")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "keys.json").write_text(
        json.dumps({"format": "flythrough-trajectory", "version": 1})
    )
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "path.txt").write_text("1 0 0")
    names = [*sorted(entry.name for entry in tmp_path.iterdir()), "missing.npz", "x" * 400 + ".npz"]
    assert len(names) == 12
    for name in names:
        with pytest.raises(CameraError, match=name):
            read_trajectory(tmp_path / name)


def test_source_reads_files_at_the_wanted_length(tmp_path: Path) -> None:
    path = parse_path("forward 1; zoom 2x", 9)
    file = tmp_path / "path.json"
    write_trajectory(file, path)
    assert trajectory_from(str(file), 9, 30).digest() == path.digest()
    assert trajectory_from(file, 5).digest() == path[:5].digest()
    assert trajectory_from(file, 20).digest() == path.padded(20).digest()
    assert trajectory_from("forward 1; zoom 2x", 9).digest() == path.digest()


def test_source_tells_files_from_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "orbit").mkdir()
    (tmp_path / "mine").write_text("")
    assert len(trajectory_from("orbit", 9)) == 9
    for text, word in [
        ("mine", "suffix"),
        ("lost.npz", "no camera file"),
        ("a/b", "no camera file"),
        (str(tmp_path), "folder"),
        ("sideways 1", "no known move"),
        ("", "no steps"),
        ("y" * 5000, "yyy...' is no known move"),
    ]:
        with pytest.raises(CameraError, match=word):
            trajectory_from(text, 9)
    with pytest.raises(CameraError):
        trajectory_from("static", 0)


@pytest.mark.parametrize("text", ["static", "lemniscate", "forward 1m; zoom 2x"])
def test_plot(text: str) -> None:
    image = plot_trajectory(parse_path(text, 33))
    assert image.mode == "RGB"
    assert len(np.unique(np.asarray(image).reshape(-1, 3), axis=0)) > 20


def test_plot_of_one_resolved_frame() -> None:
    path = Trajectory(np.eye(4)[None], np.zeros(1)).resolve(PHOTO, (180, 320), 2.0)
    assert plot_trajectory(path).size == plot_trajectory(path.padded(4)).size


def test_command_converts_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "a.npz", tmp_path / "b.json"
    camera("forward 1; pan left 20deg", output=first, frames=9, plot=tmp_path / "a.png")
    camera(str(first), output=second, frames=9)
    assert read_trajectory(first).digest() == read_trajectory(second).digest()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "a.png", "b.json"]
    assert "9 frames" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a.txt", "no/a.npz", "folder.npz"])
def test_command_refuses_outputs_before_writing(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(CameraError):
        camera("static", output=tmp_path / name)
    with pytest.raises(CameraError):
        camera("static", output=tmp_path / "a.npz", plot=tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["folder.npz"]


def test_lengths_without_a_unit_are_announced(tmp_path: Path) -> None:
    poses = np.tile(np.eye(4), (5, 1, 1))
    poses[:, 2, 3] = np.arange(5)
    bare, stated = tmp_path / "bare.npz", tmp_path / "stated.npz"
    np.savez(bare, camera_poses=poses)
    np.savez(stated, camera_poses=poses, unit="median-depth")
    (note,) = camera_notes(bare, 5)
    assert "states no unit" in note
    assert "0.1 median depths" in note
    assert trajectory_from(bare, 5).world_from_camera[-1, 2, 3] == pytest.approx(0.4)
    assert camera_notes(stated, 5) == []
    assert trajectory_from(stated, 5).world_from_camera[-1, 2, 3] == pytest.approx(4.0)
    (cut,) = camera_notes(stated, 3)
    assert "only the first 3 are used" in cut
    assert camera_notes("forward 0.3", 3) == []
