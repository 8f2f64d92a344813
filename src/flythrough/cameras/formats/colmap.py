"""COLMAP models: cameras, images and points as text or binary files of one folder.

COLMAP stores world-to-camera poses as quaternion (w,x,y,z) and translation in OpenCV axes, and
takes pixel centres at half-integers, as Flythrough does.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from flythrough.cameras import pose
from flythrough.cameras.formats.writing import write_whole
from flythrough.errors import CameraError

_PINHOLE, _PINHOLE_NAME = 1, "PINHOLE"
_NO_ERROR = -1.0


@dataclass(frozen=True, eq=False)
class ColmapModel:
    """One picture a camera.

    Attributes:
        world_from_camera: [T,4,4] float64.
        intrinsics: [T,3,3] float64 in pixels of ``size``.
        size: (height, width).
        names: T file names of the pictures.
        points: [M,3] in the world; colours: uint8 [M,3].
    """

    world_from_camera: np.ndarray
    intrinsics: np.ndarray
    size: tuple[int, int]
    names: Sequence[str]
    points: np.ndarray
    colours: np.ndarray


def write_model(
    folder: Path, model: ColmapModel, form: Literal["binary", "text"] = "binary"
) -> None:
    """Write ``cameras``, ``images`` and ``points3D`` with the suffix of the form.

    Pictures with the same intrinsics share a camera. Points have no tracks: they come from depth.

    Raises:
        CameraError: the folder cannot be written to.
    """
    matrices, which = np.unique(
        np.round(model.intrinsics, 9).reshape(len(model.intrinsics), 9), axis=0, return_inverse=True
    )
    lenses = [(row[0], row[4], row[2], row[5]) for row in matrices]
    back = pose.inverse(model.world_from_camera)
    turns = quaternions(back[:, :3, :3])
    pictures = list(
        zip(which.reshape(-1).tolist(), turns, back[:, :3, 3], model.names, strict=True)
    )
    suffix = "bin" if form == "binary" else "txt"
    write = _binary if form == "binary" else _text
    for name, content in write(lenses, pictures, model).items():
        write_whole(folder / f"{name}.{suffix}", content)


_Lens = tuple[float, float, float, float]
_Picture = tuple[int, np.ndarray, np.ndarray, str]


def _binary(lenses: list[_Lens], pictures: list[_Picture], model: ColmapModel) -> dict[str, bytes]:
    height, width = model.size
    cameras = [struct.pack("<Q", len(lenses))]
    cameras += [
        struct.pack("<iiQQ4d", number, _PINHOLE, width, height, *lens)
        for number, lens in enumerate(lenses, start=1)
    ]
    images = [struct.pack("<Q", len(pictures))]
    for number, (camera, turn, move, name) in enumerate(pictures, start=1):
        images.append(struct.pack("<i7di", number, *turn, *move, camera + 1))
        images.append(name.encode() + b"\0" + struct.pack("<Q", 0))
    count = len(model.points)
    row = np.dtype(
        [("id", "<u8"), ("xyz", "<f8", 3), ("rgb", "u1", 3), ("error", "<f8"), ("track", "<u8")]
    )
    rows = np.zeros(count, row)
    rows["id"], rows["xyz"], rows["rgb"] = np.arange(1, count + 1), model.points, model.colours
    rows["error"] = _NO_ERROR
    return {
        "cameras": b"".join(cameras),
        "images": b"".join(images),
        "points3D": struct.pack("<Q", count) + rows.tobytes(),
    }


def _text(lenses: list[_Lens], pictures: list[_Picture], model: ColmapModel) -> dict[str, bytes]:
    height, width = model.size
    cameras = ["# CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]"]
    cameras += [
        f"{number} {_PINHOLE_NAME} {width} {height} {_numbers(lens)}"
        for number, lens in enumerate(lenses, start=1)
    ]
    images = ["# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME", "# POINTS2D[]"]
    for number, (camera, turn, move, name) in enumerate(pictures, start=1):
        images += [f"{number} {_numbers(turn)} {_numbers(move)} {camera + 1} {name}", ""]
    points = ["# POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[]"]
    points += [
        f"{number} {_numbers(xyz)} {' '.join(map(str, rgb))} {_NO_ERROR:g}"
        for number, (xyz, rgb) in enumerate(
            zip(model.points.tolist(), model.colours.tolist(), strict=True), start=1
        )
    ]
    parts = {"cameras": cameras, "images": images, "points3D": points}
    return {name: ("\n".join(lines) + "\n").encode() for name, lines in parts.items()}


def _numbers(values: Sequence[float] | np.ndarray) -> str:
    return " ".join(repr(float(value)) for value in values)


def read_model(folder: Path) -> ColmapModel:
    """A model as ``write_model`` makes it, binary where there is one, else text.

    Raises:
        CameraError: a file is missing, broken, or of another camera model.
    """
    try:
        if (folder / "cameras.bin").is_file():
            return _from_binary(folder)
        return _from_text(folder)
    except (OSError, ValueError, struct.error, IndexError, KeyError) as error:
        raise CameraError(
            f"The COLMAP model in {folder} cannot be read ({error}); give a folder with cameras, "
            "images and points3D as .bin or .txt files and PINHOLE cameras."
        ) from None


def _from_binary(folder: Path) -> ColmapModel:
    data = (folder / "cameras.bin").read_bytes()
    lenses: dict[int, _Lens] = {}
    size, at = (0, 0), 8
    for _ in range(struct.unpack_from("<Q", data)[0]):
        number, kind, width, height, *lens = struct.unpack_from("<iiQQ4d", data, at)
        if kind != _PINHOLE:
            raise ValueError(f"camera {number} is of model {kind}")
        size, at = (height, width), at + struct.calcsize("<iiQQ4d")
        lenses[number] = (lens[0], lens[1], lens[2], lens[3])
    data, at = (folder / "images.bin").read_bytes(), 8
    pictures: list[_Picture] = []
    for _ in range(struct.unpack_from("<Q", data)[0]):
        values = struct.unpack_from("<i7di", data, at)
        at += struct.calcsize("<i7di")
        end = data.index(b"\0", at)
        name, at = data[at:end].decode(), end + 1
        at += 8 + 24 * struct.unpack_from("<Q", data, at)[0]
        pictures.append((values[8], np.array(values[1:5]), np.array(values[5:8]), name))
    data, at = (folder / "points3D.bin").read_bytes(), 8
    points, colours = [], []
    for _ in range(struct.unpack_from("<Q", data)[0]):
        _, x, y, z, r, g, b, _, track = struct.unpack_from("<Q3d3BdQ", data, at)
        at += struct.calcsize("<Q3d3BdQ") + 8 * track
        points.append((x, y, z))
        colours.append((r, g, b))
    return _model(lenses, pictures, size, points, colours)


def _from_text(folder: Path) -> ColmapModel:
    lenses: dict[int, _Lens] = {}
    size = (0, 0)
    for line in _lines(folder / "cameras.txt"):
        number, kind, width, height, *lens = line.split()
        if kind != _PINHOLE_NAME:
            raise ValueError(f"camera {number} is of model {kind}")
        size = (int(height), int(width))
        fx, fy, cx, cy = map(float, lens)
        lenses[int(number)] = (fx, fy, cx, cy)
    pictures: list[_Picture] = []
    for line in _lines(folder / "images.txt", keep_empty=True)[::2]:
        words = line.split(maxsplit=9)
        numbers = np.array([float(word) for word in words[1:8]])
        pictures.append((int(words[8]), numbers[:4], numbers[4:], words[9]))
    points, colours = [], []
    for line in _lines(folder / "points3D.txt"):
        words = line.split()
        points.append((float(words[1]), float(words[2]), float(words[3])))
        colours.append((int(words[4]), int(words[5]), int(words[6])))
    return _model(lenses, pictures, size, points, colours)


def _lines(file: Path, *, keep_empty: bool = False) -> list[str]:
    lines = [line for line in file.read_text().split("\n") if not line.startswith("#")]
    return lines[:-1] if keep_empty else [line for line in lines if line.strip()]


def _model(
    lenses: dict[int, _Lens],
    pictures: list[_Picture],
    size: tuple[int, int],
    points: list[tuple[float, float, float]],
    colours: list[tuple[int, int, int]],
) -> ColmapModel:
    poses, matrices = [], []
    for camera, turn, move, _ in pictures:
        fx, fy, cx, cy = lenses[camera]
        matrices.append(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]]))
        poses.append(pose.inverse(pose.from_parts(_rotation(turn), move)))
    return ColmapModel(
        world_from_camera=np.array(poses).reshape(-1, 4, 4),
        intrinsics=np.array(matrices).reshape(-1, 3, 3),
        size=size,
        names=[name for *_, name in pictures],
        points=np.array(points, np.float64).reshape(-1, 3),
        colours=np.array(colours, np.uint8).reshape(-1, 3),
    )


def quaternions(rotation: np.ndarray) -> np.ndarray:
    """[N,4] (w,x,y,z), w at least 0, of rotations [N,3,3]."""
    axis = pose.so3_log(rotation)
    angle = np.linalg.norm(axis, axis=-1, keepdims=True)
    half = 0.5 * np.sinc(angle / 2 / np.pi)  # sin(angle / 2) / angle, also at 0
    return np.concatenate([np.cos(angle / 2), half * axis], axis=-1)


def _rotation(quaternion: np.ndarray) -> np.ndarray:
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
