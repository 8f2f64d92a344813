"""Files of points and meshes: .ply, .obj and .glb, read with trimesh.

Axes: PLY and OBJ state none and are taken as OpenCV's (x right, y down, z forward); glTF has y up
and looks along -z ("opengl"). ``FILE:opencv`` and ``FILE:opengl`` overrule that.
"""

from __future__ import annotations

import contextlib
import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flythrough.cameras.intrinsics import check_intrinsics
from flythrough.errors import GeometryError
from flythrough.geometry.estimators.shape import Shape, ShapeDepth
from flythrough.geometry.estimators.words import SHAPE_SUFFIXES, split_axes

_LONGEST_HEADER = 1 << 20
_CAMERA = "flythrough camera"


def read_shape(file_and_axes: str) -> ShapeDepth:
    """The shape of ``FILE`` or ``FILE:AXES``, in OpenCV axes; colours and materials are ignored.

    Raises:
        GeometryError: trimesh is not installed, or the file is missing, unreadable, empty or holds
            values that are not finite.
    """
    name, axes = split_axes(file_and_axes)
    path = Path(name)
    if path.suffix.lower() not in SHAPE_SUFFIXES:
        raise GeometryError(
            f"The 3D file {path} has an unknown ending; give {', '.join(SHAPE_SUFFIXES)}."
        )
    if not path.is_file():
        raise GeometryError(f"There is no 3D file {path}; check the path.")
    points, corners = _loaded(path)
    if len(points) + len(corners) == 0:
        raise GeometryError(f"The 3D file {path} holds no vertex; export it again with positions.")
    for part in (points, corners):
        if not np.isfinite(part).all():
            raise GeometryError(
                f"The 3D file {path} holds positions that are NaN or infinite; remove them."
            )
    usual = "opengl" if path.suffix.lower() == ".glb" else "opencv"
    turn = np.array([1.0, -1.0, -1.0]) if (axes or usual) == "opengl" else np.ones(3)
    intrinsics, size = stated_camera(path)
    shape = Shape(
        torch.from_numpy(points * turn), torch.from_numpy(corners * turn), intrinsics, size
    )
    return ShapeDepth(shape, path.name)


def _loaded(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Loose points [M,3] and triangles [F,3,3], float64, in the file's world frame."""
    try:
        import trimesh
    except ImportError as error:
        raise GeometryError(
            f"Reading {path} needs the package trimesh, which is not installed; run `pip install "
            "'flythrough[mesh]'`."
        ) from error
    points, corners = [np.zeros((0, 3))], [np.zeros((0, 3, 3))]
    try:
        scene = trimesh.load_scene(path, process=False, skip_materials=True)
        for node in scene.graph.nodes_geometry:
            transform, key = scene.graph[node]
            part = scene.geometry[key]
            vertices = np.asarray(part.vertices, np.float64)
            vertices = vertices @ transform[:3, :3].T + transform[:3, 3]
            faces = getattr(part, "faces", None)
            if faces is not None and len(faces):
                corners.append(vertices[np.asarray(faces)].reshape(-1, 3, 3))
            else:
                points.append(vertices.reshape(-1, 3))
    except Exception as error:  # readers of broken files fail in every way there is
        reason = " ".join(str(error).split())[:160].rstrip(".") or type(error).__name__
        raise GeometryError(
            f"The 3D file {path} cannot be read ({reason}); export it again as .ply, .obj or .glb."
        ) from error
    return np.concatenate(points), np.concatenate(corners)


def camera_statement(intrinsics: np.ndarray, size: tuple[int, int]) -> str:
    """The line that a PLY comment or glTF's ``asset.extras.camera`` states a camera with.

    ``intrinsics`` [3,3] without skew, in pixels of ``size`` (height, width).
    """
    values = [float(intrinsics[at]) for at in ((0, 0), (1, 1), (0, 2), (1, 2))]
    numbers = " ".join(repr(value) for value in values)
    return f"{_CAMERA} fx fy cx cy width height: {numbers} {size[1]} {size[0]}"


def stated_camera(path: Path) -> tuple[torch.Tensor | None, tuple[int, int] | None]:
    """Intrinsics [3,3] float64 and (height, width) that Flythrough wrote into a file, if any.

    Raises:
        CameraError: a statement that describes no pinhole camera.
        GeometryError: one that cannot be read.
    """
    line = _statement(path)
    if line is None:
        return None, None
    try:
        fx, fy, cx, cy, width, height = (float(word) for word in line.split(":", 1)[1].split())
        if not (width >= 1 and height >= 1 and math.isfinite(width + height)):
            raise ValueError("the picture is empty")
    except (ValueError, IndexError) as error:
        raise GeometryError(
            f"The 3D file {path} states a camera that cannot be read ({error}); write it again."
        ) from error
    matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
    check_intrinsics(matrix, f"The camera that {path.name} states")
    return torch.from_numpy(matrix), (int(height), int(width))


def _statement(path: Path) -> str | None:
    suffix = path.suffix.lower()
    if suffix == ".ply":
        with path.open("rb") as file:
            header = file.read(_LONGEST_HEADER).partition(b"end_header")[0]
        lines = header.decode("ascii", "replace").splitlines()
        found = [line for line in lines if line.startswith(f"comment {_CAMERA}")]
        return found[0] if found else None
    if suffix == ".glb":
        with contextlib.suppress(struct.error, ValueError, TypeError, KeyError):
            text = str(_gltf_json(path)["asset"]["extras"]["camera"])
            return text if text.startswith(_CAMERA) else None
    return None


def _gltf_json(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        length = struct.unpack("<12xI4x", file.read(20))[0]
        return json.loads(file.read(length))
