"""Camera files of NeRF, nerfstudio, COLMAP and RealEstate10K: meaning, lengths, bad content."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flythrough.cameras import pose as se3
from flythrough.cameras.formats import colmap_cameras, files_of, read_recorded, read_trajectory
from flythrough.cameras.formats.cameras_npz import write_cameras
from flythrough.cameras.formats.colmap import ColmapModel, write_model
from flythrough.cameras.formats.colmap_files import read_files
from flythrough.cameras.formats.fixed import natural_key
from flythrough.cameras.formats.lengths import meeting_depth
from flythrough.cameras.path_language import parse_path
from flythrough.cameras.source import believed_file, camera_notes, trajectory_from
from flythrough.cameras.trajectory import LengthUnit
from flythrough.errors import CameraError

POSES = parse_path("forward 2; pan left 30deg", 5).world_from_camera
ORBIT = parse_path("orbit left 60deg", 9).world_from_camera
FLIP = np.diag([1.0, -1, -1, 1])
K = np.array([[300.0, 0, 165], [0, 300.0, 88], [0, 0, 1]])
EULER = {"fl_x": 300, "fl_y": 300, "cx": 165, "cy": 88, "w": 320, "h": 180}


def transforms(poses: np.ndarray = POSES, **keys: Any) -> dict[str, Any]:
    frames = [
        {"file_path": f"images/r_{n}.png", "transform_matrix": (p @ FLIP).tolist()}
        for n, p in enumerate(poses, start=8)
    ]
    return {"frames": frames[::-1], **keys}


def render_path(poses: np.ndarray = POSES, **keys: Any) -> dict[str, Any]:
    entries = [{"camera_to_world": (p @ FLIP).reshape(-1).tolist(), "fov": 50.0} for p in poses]
    return {"camera_path": entries, **keys}


def re10k(poses: np.ndarray = POSES) -> str:
    back = np.linalg.inv(poses)[:, :3].reshape(-1, 12)
    lens = "0.9375 1.6666666666666667 0.515625 0.4888888888888889 0 0"
    rows = [f"{40000 * n} {lens} {' '.join(repr(float(v)) for v in m)}" for n, m in enumerate(back)]
    return "\n".join(["https://example.org/watch?v=1", *rows]) + "\n"


def colmap(folder: Path, form: Any = "binary", points: np.ndarray | None = None) -> Path:
    folder.mkdir()
    seen = np.zeros((0, 3)) if points is None else points
    model = ColmapModel(
        world_from_camera=POSES,
        intrinsics=np.repeat(K[None], len(POSES), 0),
        size=(180, 320),
        names=[f"frame_{n}.png" for n in range(len(POSES))],
        points=seen,
        colours=np.full(seen.shape, 7, np.uint8),
    )
    write_model(folder, model, form)
    return folder


def stored(folder: Path, name: str, content: object) -> Path:
    file = folder / name
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def every_format(folder: Path) -> list[Path]:
    return [
        stored(folder, "transforms.json", transforms(**EULER)),
        stored(folder, "camera_path.json", render_path(fps=24)),
        stored(folder, "clip.txt", re10k()),
        colmap(folder / "binary"),
        colmap(folder / "text", "text") / "images.txt",
    ]


def test_every_format_gives_the_same_path(tmp_path: Path) -> None:
    for file in every_format(tmp_path):
        path = read_trajectory(file, scale=1.0)
        np.testing.assert_allclose(path.world_from_camera, POSES, atol=1e-12, err_msg=str(file))
        assert path.unit is LengthUnit.MEDIAN_DEPTH
        assert path.intrinsics is not None
        half = read_trajectory(str(file), 3, scale=0.5).world_from_camera
        np.testing.assert_allclose(half[:, :3, 3], POSES[:3, :3, 3] / 2, atol=1e-12)
        believed = believed_file(str(file), None)
        assert believed is not None
        assert believed.stated
        assert believed.fixed
        with pytest.raises(CameraError, match=r"convention 'opengl' has no effect"):
            read_trajectory(file, convention="opengl")
        with pytest.raises(CameraError, match="camera scale -1"):
            read_trajectory(file, scale=-1.0)


@pytest.mark.parametrize("name", ["transforms.json", "clip.txt", "binary", "text/images.txt"])
def test_intrinsics_in_pixels(tmp_path: Path, name: str) -> None:
    every_format(tmp_path)
    path = read_trajectory(tmp_path / name)
    assert path.size is not None
    assert path.intrinsics is not None
    assert path.size[1] / path.size[0] == pytest.approx(320 / 180)
    scaled = path.intrinsics[2] * np.array([180 / path.size[0], 180 / path.size[0], 1])[:, None]
    np.testing.assert_allclose(scaled, K, rtol=1e-9)


def test_angles_of_view_and_times(tmp_path: Path) -> None:
    wide = read_trajectory(stored(tmp_path, "a.json", transforms(camera_angle_x=np.pi / 2)))
    assert wide.size == (1000, 1000)
    assert wide.intrinsics is not None
    assert wide.intrinsics[0, 0, 0] == pytest.approx(500)
    assert read_trajectory(stored(tmp_path, "b.json", transforms())).intrinsics is None
    sides = {"render_width": 640, "render_height": 360}
    rendered = read_trajectory(stored(tmp_path, "c.json", render_path(seconds=2, **sides)))
    assert rendered.size == (360, 640)
    assert rendered.intrinsics is not None
    assert rendered.intrinsics[0, 1, 1] == pytest.approx(180 / np.tan(np.deg2rad(25)))
    np.testing.assert_allclose(rendered.times, [0, 0.5, 1, 1.5, 2])
    np.testing.assert_allclose(
        read_trajectory(stored(tmp_path, "d.txt", re10k())).times, np.arange(5) / 25
    )


def test_frames_come_in_natural_order_of_distinct_names(tmp_path: Path) -> None:
    assert sorted(["r_10", "r_9", "a"], key=natural_key) == ["a", "r_9", "r_10"]
    listed = transforms()
    for frame in listed["frames"]:
        frame["file_path"] = "same.png"
    path = read_trajectory(stored(tmp_path, "a.json", listed), scale=1.0)
    np.testing.assert_allclose(path.world_from_camera, POSES[::-1], atol=1e-12)


def test_points_give_colmap_its_length(tmp_path: Path) -> None:
    """Behind the camera, and outside the picture, points do not count."""
    inside = np.array([[0.0, 0.1 * n, 4.0] for n in range(-4, 5)])
    aside = np.array([[50.0, 0, 1], [0, 0, -3], [0, 60, 2]])
    folder = colmap(tmp_path / "a", points=np.concatenate([inside, aside]))
    path = trajectory_from(str(folder), 5)
    np.testing.assert_allclose(path.world_from_camera[-1, :3, 3], (0, 0, 0.5), atol=1e-12)
    (note,) = camera_notes(str(folder), 5)
    assert "0.25 median depths" in note
    assert "--camera-scale" in note
    assert camera_notes(str(folder), 5, 0.25) == []
    assert [file.name for file in files_of(folder)] == ["cameras.bin", "images.bin", "points3D.bin"]
    assert read_recorded(folder, own_lengths=True).unit is LengthUnit.SCENE
    assert read_recorded(folder, own_lengths=False).digest() == path.digest()


def test_points_with_tracks_are_read_past_them(tmp_path: Path) -> None:
    rows = [
        ((1.0, 2.0, 3.0), (9, 8, 7), 0),
        ((4.0, 5.0, 6.0), (1, 2, 3), 3),
        ((7, 8, 9), (0,) * 3, 1),
    ]
    data = struct.pack("<Q", len(rows))
    for number, (xyz, rgb, length) in enumerate(rows):
        data += struct.pack("<Q3d3BdQ", number, *xyz, *rgb, 0.5, length) + bytes(range(8)) * length
    folder = colmap(tmp_path / "a")
    (folder / "points3D.bin").write_bytes(data)
    files = read_files(folder, "bin")
    assert files.points.tolist() == [list(xyz) for xyz, _, _ in rows]
    assert files.colours.tolist() == [list(rgb) for _, rgb, _ in rows]
    assert files.colours.dtype == np.uint8
    (folder / "points3D.bin").write_bytes(data[:-20])
    with pytest.raises(CameraError, match="ends too early"):
        read_files(folder, "bin")


def test_notes_read_a_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, read = colmap(tmp_path / "a", points=np.array([[0.0, 0, 4]])), []

    def counted(*given: Any) -> Any:
        read.append(given)
        return read_files(*given)

    monkeypatch.setattr(colmap_cameras, "read_files", counted)
    assert len(camera_notes(str(folder), 2)) == 2
    assert len(read) == 1


def test_without_points_the_meeting_of_views_or_the_reach_gives_the_length(tmp_path: Path) -> None:
    orbit = ORBIT.copy()
    orbit[:, :3, 3] *= 7.0
    path = read_trajectory(stored(tmp_path, "a.json", transforms(orbit)))
    np.testing.assert_allclose(path.world_from_camera, ORBIT, atol=1e-9)
    straight = read_trajectory(stored(tmp_path, "b.json", transforms()))
    assert np.linalg.norm(straight.world_from_camera[-1, :3, 3]) == pytest.approx(0.5)
    turn = parse_path("pan left 40deg", 5).world_from_camera
    assert meeting_depth(turn[:, :3, 3], turn[:, :3, 2]) is None
    file = stored(tmp_path, "c.json", transforms(turn))
    np.testing.assert_allclose(read_trajectory(file).world_from_camera, turn, atol=1e-12)
    away = orbit @ np.diag([-1.0, 1, -1, 1])
    assert meeting_depth(away[:, :3, 3], away[:, :3, 2]) is None
    assert read_recorded(file, own_lengths=False).unit is LengthUnit.SCENE


def test_lengths_of_files_with_a_unit_are_not_scaled(tmp_path: Path) -> None:
    bare, own = tmp_path / "bare.npz", tmp_path / "own.npz"
    np.savez(bare, camera_poses=POSES)
    np.savez(own, camera_poses=POSES, unit="metre")
    assert read_trajectory(bare, scale=2.0).world_from_camera[-1, 2, 3] == pytest.approx(4.0)
    assert camera_notes(bare, 5, 2.0) == []
    with pytest.raises(CameraError, match=r"states its unit \(metre\)"):
        read_trajectory(own, scale=2.0)
    with pytest.raises(CameraError, match="no effect on a path in words"):
        trajectory_from("forward 1", 5, scale=2.0)


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("SIMPLE_PINHOLE", "300 165 88"),
        ("SIMPLE_RADIAL", "300 165 88 0.1"),
        ("RADIAL", "300 165 88 0.1 0.2"),
        ("OPENCV", "300 300 165 88 0.1 0 0 0"),
        ("FULL_OPENCV", "300 300 165 88 0.1 0 0 0 0 0 0 0"),
    ],
)
def test_lenses_of_colmap(tmp_path: Path, model: str, parameters: str) -> None:
    folder = colmap(tmp_path / "a", "text")
    stored(folder, "cameras.txt", f"# cameras\n1 {model} 320 180 {parameters}\n")
    path = read_trajectory(folder)
    assert path.intrinsics is not None
    np.testing.assert_array_equal(path.intrinsics, [K] * 5)
    notes = [n for n in camera_notes(folder, 5) if "distortion" in n]
    assert len(notes) == ("RADIAL" in model or "OPENCV" in model)


def test_what_is_assumed_is_said(tmp_path: Path) -> None:
    stretched = transforms(**{**EULER, "fl_y": 400, "k1": 0.1})
    stretched["frames"][0] |= {"w": 640, "h": 360}
    said = " ".join(camera_notes(stored(tmp_path, "a.json", stretched), 5))
    for word in ("distortion is left out", "not square", "differ in size", "states no unit"):
        assert word in said
    one = stored(tmp_path, "b.json", transforms(POSES[:1], camera_angle_x=1.0))
    said = " ".join(camera_notes(one, 5))
    assert "one camera" in said
    assert "no picture size" in said


def test_our_own_export_comes_back(tmp_path: Path) -> None:
    """The COLMAP model and cameras.npz of one scene are the same path in median depths."""
    depth = 3.5
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-0.5, 0.5, 9)), -1)
    points = np.concatenate([grid.reshape(-1, 2), np.full((81, 1), depth)], axis=1)
    folder = colmap(tmp_path / "sparse", points=points)
    matrices = np.repeat(K[None], 5, 0)
    write_cameras(
        tmp_path / "cameras.npz", POSES, matrices, (180, 320), 16, metric=False, median_depth=depth
    )
    first, second = read_trajectory(folder), read_trajectory(tmp_path / "cameras.npz")
    np.testing.assert_allclose(first.world_from_camera, second.world_from_camera, atol=1e-12)
    np.testing.assert_allclose(first.intrinsics, second.intrinsics)
    assert (first.unit, first.size) == (second.unit, second.size)


def without(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda data: data["frames"][1].pop(key)


def put(**keys: Any) -> Callable[[dict[str, Any]], None]:
    return lambda data: data["frames"][1].update(keys)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("transform_matrix"), "frame 1 has no 'transform_matrix'"),
        (put(transform_matrix=[[1, 2]]), "frame 1 is not a table"),
        (put(transform_matrix="no"), "frame 1 is not a table"),
        (put(transform_matrix=(2 * np.eye(3, 4)).tolist()), "frame 1 is not a rotation"),
        (put(transform_matrix=np.diag([-1.0, 1, 1, 1]).tolist()), "frame 1 is a mirror image"),
        (put(camera_angle_x=1.0), "frame 0 has no focal length"),
        (lambda d: d.update(camera_angle_x=7), "'camera_angle_x' is 7"),
        (lambda d: d.update(fl_x="wide"), "'fl_x' is 'wide'"),
        (lambda d: d.update(fl_x=-3, w=4, h=4), "not positive"),
        (lambda d: d.update(fl_x=3, w=0, h=4), "picture size"),
        (lambda d: d.update(camera_model="EQUIRECTANGULAR", fl_x=3), "EQUIRECTANGULAR"),
        (lambda d: d.update(frames=[]), "'frames' is empty"),
        (lambda d: d.update(frames=3), "'frames' is not a list"),
        (lambda d: d.update(frames=[3]), "frame 0 has no"),
    ],
)
def test_bad_transforms(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    data = transforms()
    change(data)
    refused(stored(tmp_path, "bad.json", data), words)


def refused(file: Path, words: str) -> None:
    with pytest.raises(CameraError) as caught:
        read_trajectory(file)
    said = str(caught.value)
    assert words in said
    assert file.name in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"camera_path": []}, "'camera_path' is empty"),
        ({"camera_path": [{"fov": 50}]}, "camera 0 has no 'camera_to_world'"),
        ({"camera_path": [{"camera_to_world": [1, 2]}]}, "camera 0 has no 'camera_to_world'"),
        ({"camera_path": [{"camera_to_world": [2] * 16}]}, "last row other than"),
        ({"fps": 0}, "not above 0"),
        ({"seconds": 0}, "not above 0"),
        ({"camera_type": "equirectangular"}, "no pinhole"),
    ],
)
def test_bad_render_paths(tmp_path: Path, keys: dict[str, Any], words: str) -> None:
    refused(stored(tmp_path, "bad.json", {**render_path(), **keys}), words)


def test_a_render_path_stored_by_columns_is_named(tmp_path: Path) -> None:
    data = render_path()
    for entry in data["camera_path"]:
        entry["camera_to_world"] = np.reshape(entry["camera_to_world"], (4, 4)).T.ravel().tolist()
    refused(stored(tmp_path, "bad.json", data), "translations in the last row")


def test_bad_texts(tmp_path: Path) -> None:
    lines = re10k().split("\n")
    cases = {
        "19 numbers": "words\n",
        "line 3 does not have 19 numbers": "\n".join([*lines[:2], "1 2 3"]),
        "comes after": "",
        "the time of camera 1": "\n".join([lines[0], lines[2], lines[1]]),
        "not finite": lines[1].replace("0.9375", "inf"),
        "not above 0": lines[1].replace("0.9375", "-1"),
        "not a rotation": lines[1].replace(" 1.0 ", " 1.5 ", 1),
    }
    del cases["comes after"]
    for words, text in cases.items():
        refused(stored(tmp_path, "bad.txt", text), words)


def test_bad_models(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "without a COLMAP model")
    refused(stored(tmp_path, "points.bin", ""), "not called")
    refused(tmp_path / "images.txt", "no camera file")
    folder = colmap(tmp_path / "cut")
    data = (folder / "images.bin").read_bytes()
    for end in (3, 30, len(data) - 4):
        (folder / "images.bin").write_bytes(data[:end])
        with pytest.raises(CameraError, match=r"cut cannot be read \("):
            read_trajectory(folder)
    (folder / "images.bin").write_bytes(bytes(8))
    with pytest.raises(CameraError, match="no pictures"):
        read_trajectory(folder)
    text = colmap(tmp_path / "text", "text")
    for part, content, words in (
        ("cameras", "1 MAGIC 3 4 5\n", "MAGIC"),
        ("cameras", "1 PINHOLE 3 4 5\n", "PINHOLE with 1 parameters"),
        ("cameras", "7 PINHOLE 3 4 5 5 2 2\n", "no camera 1"),
        ("images", "1 0 0 0 0 0 0 0 1 a.png\n\n", "no rotation"),
        ("images", "1 2 3\n", "3 words instead of 10"),
    ):
        old = (text / f"{part}.txt").read_text()
        stored(text, f"{part}.txt", content)
        with pytest.raises(CameraError, match=words):
            read_trajectory(text)
        stored(text, f"{part}.txt", old)
    assert len(read_trajectory(text)) == 5


def test_a_named_file_decides_between_forms(tmp_path: Path) -> None:
    folder = colmap(tmp_path / "both")
    other = colmap(tmp_path / "other", "text")
    for file in other.iterdir():
        file.rename(folder / file.name)
    stored(folder, "images.txt", "1 1 0 0 0 0 0 0 1 only.png\n")
    assert len(read_trajectory(folder)) == 5
    assert len(read_trajectory(folder / "images.txt")) == 1
    np.testing.assert_array_equal(
        se3.relative_to_first(read_trajectory(folder / "cameras.bin", scale=1).world_from_camera),
        read_trajectory(folder, scale=1).first_frame_relative().world_from_camera,
    )
