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


def quaternions(rotation: np.ndarray) -> np.ndarray:
    """[N,4] (w,x,y,z), w at least 0, of rotations [N,3,3]."""
    axis = pose.so3_log(rotation)
    angle = np.linalg.norm(axis, axis=-1, keepdims=True)
    half = 0.5 * np.sinc(angle / 2 / np.pi)  # sin(angle / 2) / angle, also at 0
    return np.concatenate([np.cos(angle / 2), half * axis], axis=-1)
