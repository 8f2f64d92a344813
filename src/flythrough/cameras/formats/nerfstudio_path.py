"""``camera_path.json`` of nerfstudio: the path that its viewer renders.

``camera_path[].camera_to_world`` are 16 numbers row by row, camera-to-world with OpenGL axes
(x right, y up, z backward); ``fov`` is the angle from the picture's lower to its upper edge.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from flythrough.cameras import pose as se3
from flythrough.cameras.formats.conventions import Convention
from flythrough.cameras.formats.fixed import (
    FixedCameras,
    Lens,
    fixed_cameras,
    not_empty,
    number,
)
from flythrough.errors import CameraError

KIND = "nerfstudio camera path"
_HEIGHT = 1080.0
"""Pixels, where the file has only the ratio of the sides."""


def read(path: Path, data: dict[str, Any]) -> FixedCameras:
    """The cameras in the JSON object ``data`` of ``path``, in their order.

    Times follow ``fps``, else ``seconds`` for the whole path, else 16 cameras a second.

    Raises:
        CameraError: a missing key, a matrix that is not rigid, an angle out of range, or a
            panorama.
    """
    try:
        return _cameras(data)
    except CameraError as error:
        raise CameraError(f"In {path}: {error}") from None


def _cameras(data: dict[str, Any]) -> FixedCameras:
    notes = []
    kind = str(data.get("camera_type", "perspective")).lower()
    if kind == "fisheye":
        notes.append("its fisheye lens is taken for a pinhole of the same angle of view")
    elif kind != "perspective":
        raise CameraError(
            f"the camera_type {kind!r} is no pinhole camera; write a path of type 'perspective'."
        )
    entries = not_empty(data["camera_path"], "camera_path")
    matrices = np.stack([_matrix(entry, place) for place, entry in enumerate(entries)])
    se3.check_rigid(matrices, "camera_to_world")
    return fixed_cameras(
        Convention("opengl").to_ours(matrices),
        _lenses(data, [entry for entry in entries if isinstance(entry, dict)]),
        KIND,
        times=_times(data, len(entries)),
        notes=notes,
    )


def _matrix(entry: object, place: int) -> np.ndarray:
    try:
        if not isinstance(entry, dict):
            raise ValueError
        return np.asarray(entry["camera_to_world"], np.float64).reshape(4, 4)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise CameraError(
            f"camera {place} has no 'camera_to_world' of 16 numbers; write its 4x4 matrix row by "
            "row."
        ) from None


def _lenses(data: dict[str, Any], entries: list[dict[str, Any]]) -> list[Lens] | None:
    stated = [entry.get("fov") is not None for entry in entries]
    if not any(stated):
        return None
    if not all(stated):
        raise CameraError(
            f"camera {stated.index(False)} has no 'fov' but others do; write it for all or none."
        )
    width, height = data.get("render_width"), data.get("render_height")
    return [_lens(entry, width, height) for entry in entries]


def _lens(entry: dict[str, Any], width: object, height: object) -> Lens:
    angle = number(entry["fov"], "fov")
    if not 0 < angle < 180:
        raise CameraError(f"'fov' is {angle:g}; write degrees between 0 and 180.")
    high = _HEIGHT if height is None else number(height, "render_height")
    if width is not None:
        wide = number(width, "render_width")
    else:
        ratio = entry.get("aspect")
        wide = round(high * (1.0 if ratio is None else number(ratio, "aspect")))
    focal = high / 2 / math.tan(math.radians(angle) / 2)
    return Lens(focal, focal, wide / 2, high / 2, wide, high)


def _times(data: dict[str, Any], count: int) -> np.ndarray | None:
    if data.get("fps") is not None:
        fps = number(data["fps"], "fps")
    elif data.get("seconds") is not None and count > 1:
        seconds = number(data["seconds"], "seconds")
        fps = (count - 1) / seconds if seconds else 0.0
    else:
        return None
    if fps <= 0:
        raise CameraError("'fps' or 'seconds' is not above 0; write a positive number.")
    return np.arange(count) / fps
