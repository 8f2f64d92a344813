"""``transforms.json`` of NeRF, instant-ngp and nerfstudio.

``frames[].transform_matrix`` is camera-to-world with OpenGL axes (x right, y up, z backward).
The focal length stands as ``fl_x``, ``fl_y`` in pixels or as ``camera_angle_x``, ``camera_angle_y``
in radians across the picture, for the whole file or for a frame, which then comes first; without
either the photo's own is used.
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
    natural_key,
    not_empty,
    number,
)
from flythrough.errors import CameraError

KIND = "NeRF transforms"
_DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
_SQUARE_SIDE = 1000.0
_NOT_PINHOLE = ("EQUIRECT", "OMNI", "VR180", "ORTHO")


def read(path: Path, data: dict[str, Any]) -> FixedCameras:
    """The cameras in the JSON object ``data`` of ``path``.

    They come in natural order of ``file_path`` (``r_9`` before ``r_10``) where every frame has one
    of its own, else as listed.

    Raises:
        CameraError: a missing key, a matrix that is not rigid, or a lens that is no pinhole.
    """
    try:
        return _cameras(data)
    except CameraError as error:
        raise CameraError(f"In {path}: {error}") from None


def _cameras(data: dict[str, Any]) -> FixedCameras:
    frames = []
    for place, frame in enumerate(not_empty(data["frames"], "frames")):
        if not isinstance(frame, dict) or "transform_matrix" not in frame:
            raise CameraError(
                f"frame {place} has no 'transform_matrix'; write its camera-to-world matrix 4x4."
            )
        frames.append(frame)
    matrices = np.stack([_matrix(f["transform_matrix"], n) for n, f in enumerate(frames)])
    poses = Convention("opengl").to_ours(se3.check_rigid(matrices, "transform_matrix"))
    notes: list[str] = []
    lenses = _lenses(data, frames, notes)
    order = _order(frames)
    return fixed_cameras(
        poses[order],
        None if lenses is None else [lenses[place] for place in order],
        KIND,
        notes=notes,
    )


def _matrix(value: object, place: int) -> np.ndarray:
    try:
        matrix = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        matrix = np.zeros(0)
    if matrix.shape == (3, 4):
        matrix = np.concatenate([matrix, [[0.0, 0.0, 0.0, 1.0]]])
    if matrix.shape != (4, 4):
        raise CameraError(
            f"'transform_matrix' of frame {place} is not a table of 4x4 numbers; write four rows "
            "of four."
        )
    return matrix


def _order(frames: list[dict[str, Any]]) -> list[int]:
    names = [frame.get("file_path") for frame in frames]
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        return list(range(len(frames)))
    return sorted(range(len(frames)), key=lambda place: natural_key(str(names[place])))


def _lenses(
    data: dict[str, Any], frames: list[dict[str, Any]], notes: list[str]
) -> list[Lens] | None:
    merged = [{**data, **frame} for frame in frames]
    models = {str(one.get("camera_model", "")).upper() for one in merged}
    if beyond := sorted(model for model in models if model.startswith(_NOT_PINHOLE)):
        raise CameraError(
            f"the camera model {beyond[0]} has no focal length; give pictures of a pinhole camera."
        )
    with_focal = [_has_focal(one) for one in merged]
    if not any(with_focal):
        return None
    if not all(with_focal):
        raise CameraError(
            f"frame {with_focal.index(False)} has no focal length but others do; write fl_x or "
            "camera_angle_x for all or for none."
        )
    distorted = any(one.get(key) not in (None, 0) for one in merged for key in _DISTORTION)
    if distorted or any("FISHEYE" in model for model in models):
        notes.append("its lens distortion is left out: focal length and centre alone count")
    if any(_side(one, "w") is None or _side(one, "h") is None for one in merged):
        notes.append(
            "it states no picture size (w, h): a square one is assumed, so its angle of view is "
            "the one across"
        )
    return [_lens(one) for one in merged]


def _has_focal(frame: dict[str, Any]) -> bool:
    keys = ("fl_x", "fl_y", "camera_angle_x", "camera_angle_y")
    return any(frame.get(key) is not None for key in keys)


def _side(frame: dict[str, Any], key: str) -> float | None:
    """Width or height; without one twice the centre."""
    if frame.get(key) is not None:
        return number(frame[key], key)
    name = {"w": "cx", "h": "cy"}[key]
    centre = frame.get(name)
    return None if centre is None else round(2 * number(centre, name))


def _lens(frame: dict[str, Any]) -> Lens:
    width, height = _side(frame, "w"), _side(frame, "h")
    if width is None:
        width = _SQUARE_SIDE if height is None else height
    height = width if height is None else height
    fx, fy = _focal(frame, "x", width), _focal(frame, "y", height)
    assert fx is not None or fy is not None
    return Lens(
        fx=fx if fx is not None else float(fy or 0),
        fy=fy if fy is not None else float(fx or 0),
        cx=width / 2 if frame.get("cx") is None else number(frame["cx"], "cx"),
        cy=height / 2 if frame.get("cy") is None else number(frame["cy"], "cy"),
        width=width,
        height=height,
    )


def _focal(frame: dict[str, Any], axis: str, side: float) -> float | None:
    if frame.get(f"fl_{axis}") is not None:
        return number(frame[f"fl_{axis}"], f"fl_{axis}")
    key = f"camera_angle_{axis}"
    if frame.get(key) is None:
        return None
    angle = number(frame[key], key)
    if not 0 < angle < math.pi:
        raise CameraError(
            f"{key!r} is {angle:g}; write the angle of view in radians, between 0 and pi."
        )
    return side / 2 / math.tan(angle / 2)
