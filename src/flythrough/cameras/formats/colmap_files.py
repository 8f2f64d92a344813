"""The files of a COLMAP model, text or binary, as they stand.

Quaternions (w,x,y,z) and translations are world-to-camera with OpenCV axes; pixel centres lie at
half-integers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from flythrough.cameras import pose as se3
from flythrough.cameras.formats.colmap import ColmapModel
from flythrough.cameras.formats.fixed import Lens
from flythrough.errors import CameraError

Form = Literal["bin", "txt"]
PARTS = ("cameras", "images", "points3D")

_MODELS = {
    "SIMPLE_PINHOLE": (1, 3),
    "PINHOLE": (2, 4),
    "SIMPLE_RADIAL": (1, 4),
    "RADIAL": (1, 5),
    "OPENCV": (2, 8),
    "OPENCV_FISHEYE": (2, 8),
    "FULL_OPENCV": (2, 12),
    "FOV": (2, 5),
    "SIMPLE_RADIAL_FISHEYE": (1, 4),
    "RADIAL_FISHEYE": (1, 5),
    "THIN_PRISM_FISHEYE": (2, 12),
    "RAD_TAN_THIN_PRISM_FISHEYE": (2, 16),
}
"""In the order of their numbers: how many focal lengths a model has (the centre follows them), and
how many parameters altogether."""


@dataclass(frozen=True)
class Camera:
    """A camera: its model's name, its picture's size in pixels, its parameters."""

    model: str
    width: int
    height: int
    parameters: tuple[float, ...]

    @property
    def distorted(self) -> bool:
        """Whether it has more than focal length and centre."""
        focal, _ = _MODELS[self.model]
        return "FISHEYE" in self.model or any(self.parameters[focal + 2 :])

    def lens(self) -> Lens:
        """Focal length and centre alone."""
        focal, _ = _MODELS[self.model]
        cx, cy = self.parameters[focal : focal + 2]
        fx, fy = self.parameters[0], self.parameters[focal - 1]
        return Lens(fx, fy, cx, cy, self.width, self.height)


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture: its camera's number, world-to-camera [4,4], its file name."""

    camera: int
    camera_from_world: np.ndarray
    name: str


@dataclass(frozen=True, eq=False)
class ColmapFiles:
    """A model: cameras by number, pictures as listed, points [M,3] and their colours [M,3] uint8
    (no points: M is 0)."""

    cameras: dict[int, Camera]
    pictures: list[Picture]
    points: np.ndarray
    colours: np.ndarray


def form_of(folder: Path) -> Form | None:
    """Which files ``folder`` has, binary ones first; None where it holds no model."""
    forms: tuple[Form, ...] = ("bin", "txt")
    for form in forms:
        if all((folder / f"{part}.{form}").is_file() for part in PARTS[:2]):
            return form
    return None


def model_files(folder: Path, form: Form) -> list[Path]:
    """The files of a model that are there; points may be missing."""
    return [f for part in PARTS if (f := folder / f"{part}.{form}").is_file()]


def read_files(folder: Path, form: Form) -> ColmapFiles:
    """A model's files.

    Raises:
        CameraError: one is missing, broken or has a camera of an unknown model.
    """
    points = folder / f"points3D.{form}"
    try:
        lens_file, picture_file = (folder / f"{part}.{form}" for part in PARTS[:2])
        if form == "bin":
            cameras = dict(_binary_cameras(lens_file.read_bytes()))
            pictures = list(_binary_pictures(picture_file.read_bytes()))
            found = _binary_points(points.read_bytes()) if points.is_file() else _points_of([])
        else:
            cameras = dict(_text_cameras(lens_file))
            pictures = list(_text_pictures(picture_file))
            found = _points_of(list(_text_points(points)) if points.is_file() else [])
    except (OSError, ValueError, OverflowError, struct.error, IndexError) as error:
        short = isinstance(error, struct.error | IndexError)
        reason = "a file or line ends too early" if short else error
        raise CameraError(
            f"The COLMAP model in {folder} cannot be read ({reason}); give a folder with cameras "
            "and images as .bin or .txt files, as COLMAP writes them."
        ) from None
    for picture in pictures:
        if picture.camera not in cameras:
            raise CameraError(
                f"The COLMAP model in {folder} has no camera {picture.camera}, which the picture "
                f"{picture.name} was taken with; write cameras and images of one model."
            )
    return ColmapFiles(cameras, pictures, *found)


def read_model(folder: Path) -> ColmapModel:
    """A model whose pictures all have the size of the first, lenses without their distortion.

    Raises:
        CameraError: as :func:`read_files`, or no pictures.
    """
    files = read_files(folder, form_of(folder) or "txt")
    if not files.pictures:
        raise CameraError(f"The COLMAP model in {folder} has no pictures; write some.")
    lenses = [files.cameras[picture.camera].lens() for picture in files.pictures]
    poses = np.array([picture.camera_from_world for picture in files.pictures])
    return ColmapModel(
        world_from_camera=se3.inverse(poses),
        intrinsics=np.array([[[k.fx, 0, k.cx], [0, k.fy, k.cy], [0, 0, 1.0]] for k in lenses]),
        size=(int(lenses[0].height), int(lenses[0].width)),
        names=[picture.name for picture in files.pictures],
        points=files.points,
        colours=files.colours,
    )


def _binary_cameras(data: bytes) -> Iterator[tuple[int, Camera]]:
    names, at = list(_MODELS), 8
    for _ in range(struct.unpack_from("<Q", data)[0]):
        number, kind, width, height = struct.unpack_from("<iiQQ", data, at)
        if not 0 <= kind < len(names):
            raise ValueError(f"camera {number} is of the unknown model {kind}")
        at += struct.calcsize("<iiQQ")
        count = _MODELS[names[kind]][1]
        yield number, Camera(names[kind], width, height, struct.unpack_from(f"<{count}d", data, at))
        at += 8 * count


def _binary_pictures(data: bytes) -> Iterator[Picture]:
    at = 8
    for _ in range(struct.unpack_from("<Q", data)[0]):
        values = struct.unpack_from("<i7di", data, at)
        at += struct.calcsize("<i7di")
        end = data.index(b"\0", at)
        name, at = data[at:end].decode(), end + 1
        at += 8 + 24 * struct.unpack_from("<Q", data, at)[0]
        yield _picture(values[8], values[1:8], name)


def _binary_points(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Points [M,3] and colours [M,3]. Tracks differ in length, so each point is looked for, but its
    numbers are read together with all others: a model may have millions."""
    size, at, rows = struct.calcsize("<Q3d3BdQ"), 8, []
    track = struct.Struct("<Q").unpack_from
    for _ in range(struct.unpack_from("<Q", data)[0]):
        (length,) = track(data, at + size - 8)
        rows.append(data[at + 8 : at + 35])
        at += size + 8 * length
    table = np.frombuffer(b"".join(rows), np.dtype([("xyz", "<f8", 3), ("rgb", "u1", 3)]))
    return table["xyz"].astype(np.float64), table["rgb"].astype(np.uint8)


def _points_of(rows: list[tuple[float, ...]]) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(rows, np.float64).reshape(-1, 6)
    return table[:, :3], table[:, 3:].astype(np.uint8)


def _text_cameras(file: Path) -> Iterator[tuple[int, Camera]]:
    for line in _lines(file):
        number, model, width, height, *parameters = line.split()
        if model not in _MODELS or len(parameters) != _MODELS[model][1]:
            raise ValueError(
                f"camera {number} is of the model {model} with {len(parameters)} parameters"
            )
        yield (
            int(number),
            Camera(model, int(width), int(height), tuple(float(one) for one in parameters)),
        )


def _text_pictures(file: Path) -> Iterator[Picture]:
    """Each picture has two lines, of which the second, its points, may be empty."""
    lines = iter(file.read_text(encoding="utf-8").split("\n"))
    for line in lines:
        words = line.split(maxsplit=9)
        if not words or words[0].startswith("#"):
            continue
        if len(words) < 10:
            raise ValueError(f"{file.name} has a picture of {len(words)} words instead of 10")
        yield _picture(int(words[8]), [float(w) for w in words[1:8]], words[9].strip())
        next(lines, None)


def _text_points(file: Path) -> Iterator[tuple[float, ...]]:
    for line in _lines(file):
        words = line.split(maxsplit=7)
        yield tuple(float(word) for word in words[1:7])


def _lines(file: Path) -> list[str]:
    lines = file.read_text(encoding="utf-8").split("\n")
    return [line for line in lines if line.strip() and not line.startswith("#")]


def _picture(camera: int, values: tuple[float, ...] | list[float], name: str) -> Picture:
    turn = np.array(values[:4])
    if not np.isfinite(values).all() or not np.any(turn):
        raise ValueError(f"the picture {name} has a pose that is no rotation and translation")
    return Picture(camera, se3.from_parts(rotation(turn), np.array(values[4:])), name)


def rotation(quaternion: np.ndarray) -> np.ndarray:
    """[3,3] of a quaternion [4] (w,x,y,z) of any length but 0."""
    direction = quaternion / np.abs(quaternion).max()  # so that no square overflows
    w, x, y, z = direction / np.linalg.norm(direction)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
