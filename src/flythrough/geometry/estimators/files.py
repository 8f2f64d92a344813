"""Depth files: .npy, .npz and 16-bit .png in millimetres."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from flythrough.disk import UNREADABLE_ARRAYS, array_fault
from flythrough.errors import GeometryError
from flythrough.geometry.estimators.given import GivenDepth

DEPTH_SUFFIXES = (".npy", ".npz", ".png")
_MILLIMETRES = 1000.0
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I")
_UNREADABLE = (*UNREADABLE_ARRAYS, Image.DecompressionBombError)


def read_depth(path: Path) -> GivenDepth:
    """The depth map of a file.

    * ``.npy``: [H,W], or [N,H,W] of which the first is taken.
    * ``.npz``: the array ``depth``, else the first 2-D or 3-D one; optionally ``intrinsics``
      ([3,3] or [N,3,3]) in pixels of the map, pixel centres at half-integers.
    * ``.png``: 16-bit grey, millimetres, read as metres.

    Raises:
        GeometryError: missing, unreadable, of a wrong shape or without a usable pixel.
        CameraError: stored intrinsics that are not a pinhole matrix.
    """
    if path.suffix.lower() not in DEPTH_SUFFIXES:
        raise GeometryError(
            f"The depth file {path} has an unknown ending; give {', '.join(DEPTH_SUFFIXES)}."
        )
    if not path.is_file():
        raise GeometryError(f"There is no depth file {path}; check the path.")
    try:
        if path.suffix.lower() == ".png":
            depth, intrinsics = _millimetres(path), None
        else:
            depth, intrinsics = _arrays(path)
    except GeometryError:
        raise
    except _UNREADABLE as error:
        picture = path.suffix.lower() == ".png"
        fault = "it is damaged or no picture" if picture else array_fault(path, error)
        raise GeometryError(
            f"The depth file {path} cannot be read: {fault}; give .npy, .npz or a 16-bit .png."
        ) from error
    return GivenDepth(depth, path.name, intrinsics)


def _millimetres(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        if picture.mode not in _SIXTEEN_BIT:
            raise GeometryError(
                f"The depth file {path} is a {picture.mode} picture; a .png must be 16-bit grey in "
                "millimetres, so save it like that or as .npy."
            )
        return np.asarray(picture).astype(np.float32) / _MILLIMETRES


def _arrays(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return _first_frame(loaded), None
    with loaded:
        names = ["depth"] if "depth" in loaded.files else loaded.files
        found = (loaded[name] for name in names if name != "intrinsics")
        depth = next((array for array in found if array.ndim in (2, 3)), None)
        if depth is None:
            raise GeometryError(
                f"The depth file {path} holds no 2-D or 3-D array; store one named depth."
            )
        intrinsics = loaded["intrinsics"] if "intrinsics" in loaded.files else None
    if intrinsics is not None and intrinsics.ndim == 3 and len(intrinsics):
        intrinsics = intrinsics[0]
    return _first_frame(depth), intrinsics


def _first_frame(array: np.ndarray) -> np.ndarray:
    """The first map of a stack; a trailing axis of 1 to 4 is a channel and left for the checks."""
    stacked = array.ndim == 3 and len(array) > 0 and array.shape[-1] > 4
    return array[0] if stacked else array
