"""A COLMAP model as a camera path: its pictures in natural order of their names."""

from __future__ import annotations

import os.path
from pathlib import Path

import numpy as np

from flythrough.cameras import pose as se3
from flythrough.cameras.formats.colmap_files import (
    PARTS,
    Form,
    form_of,
    model_files,
    read_files,
)
from flythrough.cameras.formats.fixed import FixedCameras, Lens, fixed_cameras, natural_key
from flythrough.errors import CameraError

KIND = "COLMAP model"
_LEAST_POINTS = 8


def names_model(path: Path) -> bool:
    """Whether ``path`` is a folder, or called like a file of a model."""
    # os.path.isdir: a name that the file system rejects is no folder, and refused later
    return os.path.isdir(path) or (path.stem in PARTS and path.suffix.lower() in (".bin", ".txt"))


def files(path: Path) -> list[Path]:
    """The files of the model that ``path`` (its folder or one of its files) names.

    Raises:
        CameraError: there is none.
    """
    return model_files(*_model(path))


def read(path: Path) -> FixedCameras:
    """The cameras of the model that ``path`` (its folder or one of its files) names.

    Focal length and centre are taken, distortion is left out. Where there are points, the median
    depth of those inside the first picture (all before its camera, if fewer than 8 are) goes along.

    Raises:
        CameraError: no model, a broken one, or one without pictures.
    """
    folder, form = _model(path)
    model = read_files(folder, form)
    if not model.pictures:
        raise CameraError(f"The COLMAP model in {folder} has no pictures; register some first.")
    pictures = sorted(model.pictures, key=lambda picture: natural_key(picture.name))
    cameras = [model.cameras[picture.camera] for picture in pictures]
    back = np.stack([picture.camera_from_world for picture in pictures])
    lenses, notes = [camera.lens() for camera in cameras], []
    if names := sorted({camera.model for camera in cameras if camera.distorted}):
        notes.append(
            f"its lens distortion ({', '.join(names)}) is left out: focal length and centre alone "
            "count"
        )
    median = _median_depth(model.points, back[0], lenses[0])
    if len(model.points) and median is None:
        notes.append("none of its points lies before the first camera")
    try:
        return fixed_cameras(se3.inverse(back), lenses, KIND, median_depth=median, notes=notes)
    except CameraError as error:
        raise CameraError(f"In {path}: {error}") from None


def _model(path: Path) -> tuple[Path, Form]:
    if not path.exists():
        raise CameraError(f"There is no camera file {path}; check its name.")
    if path.is_dir():
        form = form_of(path)
        if form is None:
            raise CameraError(
                f"{path} is a folder without a COLMAP model (cameras and images as .bin or .txt); "
                "name the folder that has them, such as sparse/0, or a camera file inside."
            )
        return path, form
    return path.parent, "bin" if path.suffix.lower() == ".bin" else "txt"


def _median_depth(points: np.ndarray, camera_from_world: np.ndarray, lens: Lens) -> float | None:
    seen = points @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
    seen = seen[np.isfinite(seen).all(1) & (seen[:, 2] > 0)]
    if not len(seen):
        return None
    x = lens.fx * seen[:, 0] / seen[:, 2] + lens.cx
    y = lens.fy * seen[:, 1] / seen[:, 2] + lens.cy
    inside = (x >= 0) & (x <= lens.width) & (y >= 0) & (y <= lens.height)
    if inside.sum() >= _LEAST_POINTS:
        seen = seen[inside]
    return float(np.median(seen[:, 2]))
