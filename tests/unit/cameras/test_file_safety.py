"""Conventions of camera files, and files that are whole or absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flythrough.cameras.formats import read_trajectory, write_trajectory
from flythrough.cameras.path_language import parse_path
from flythrough.cameras.trajectory import Trajectory
from flythrough.errors import CameraError

POSES = parse_path("forward 2; pan left 30deg", 5).world_from_camera
FLIP = np.diag([1.0, -1, -1, 1])


def test_a_convention_can_be_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    np.savez(file, camera_poses=POSES @ FLIP, unit="metre")
    made = read_trajectory(file, 3, convention="opengl")
    np.testing.assert_array_equal(made.world_from_camera, POSES[:3])


def test_a_stated_convention_is_honoured_and_not_contradicted(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    np.savez(file, camera_poses=POSES @ FLIP, unit="metre", convention="opengl")
    np.testing.assert_array_equal(read_trajectory(file).world_from_camera, POSES)
    with pytest.raises(CameraError, match="states opengl,world-from-camera"):
        read_trajectory(file, convention="opencv")
    inverse = np.linalg.inv(POSES @ FLIP)
    np.savez(file, camera_poses=inverse, unit="metre", convention="opengl,camera-from-world")
    np.testing.assert_allclose(read_trajectory(file).world_from_camera, POSES, atol=1e-12)
    np.savez(file, camera_poses=np.swapaxes(POSES, 1, 2), unit="metre")
    with pytest.raises(CameraError, match="translations in the last row"):
        read_trajectory(file)
    np.savez(file, camera_poses=POSES, convention="maya")
    with pytest.raises(CameraError, match="'maya'"):
        read_trajectory(file)


def test_json_has_one_convention(tmp_path: Path) -> None:
    file = tmp_path / "b.json"
    write_trajectory(file, Trajectory(POSES, np.arange(5)))
    with pytest.raises(CameraError, match="no effect"):
        read_trajectory(file, convention="opengl")


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_a_failed_write_keeps_the_old_file(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, path = tmp_path / f"a{suffix}", Trajectory(POSES, np.arange(5))
    write_trajectory(file, path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CameraError, match="No space left"):
        write_trajectory(file, path[:2])
    assert [entry.name for entry in tmp_path.iterdir()] == [file.name]
    assert read_trajectory(file).digest() == path.digest()


@pytest.mark.parametrize("name", ["no/a.npz", "folder.npz", "folder.json"])
def test_unwritable_targets(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(CameraError, match="cannot be written"):
        write_trajectory(tmp_path / name, Trajectory(POSES, np.arange(5)))
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_equal_paths_give_equal_bytes(tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b"):
        write_trajectory(tmp_path / f"{name}{suffix}", Trajectory(POSES, np.arange(5)))
    first, second = (tmp_path / f"{name}{suffix}" for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
