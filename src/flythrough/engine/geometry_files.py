"""The geometry of a photo as a file: arrays, coloured points, or a picture of the depth."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from flythrough.disk import replacing
from flythrough.errors import GeometryError
from flythrough.geometry.estimators.shape_files import camera_statement
from flythrough.geometry.types import Geometry, ScaleKind
from flythrough.media.depth_chart import depth_chart
from flythrough.media.image import write_picture

_GLTF_FLOAT, _GLTF_UINT8, _GLTF_ARRAYS, _GLTF_POINTS = 5126, 5121, 34962, 0
_GLB_MAGIC, _GLB_JSON, _GLB_BINARY = 0x46546C67, 0x4E4F534A, 0x004E4942


def write_geometry(geometry: Geometry, pixels: np.ndarray, output: Path) -> None:
    """Write frame 0 by the suffix of ``output``; the file appears whole or not at all.

    ``.npz`` holds depth, confidence, valid [H,W], intrinsics [3,3] and scale; ``.ply`` and ``.glb``
    the valid points with the colours of ``pixels`` uint8 [H,W,3] and a statement of the camera, so
    that ``--geometry FILE`` finds the same depth again; ``.png`` the depth in colours, with a
    legend.

    Raises:
        GeometryError: a point file is asked for but no pixel is valid.
    """
    suffix = output.suffix.lower()
    with replacing(output) as partial:
        if suffix == ".png":
            write_picture(partial, _chart(geometry))
        elif suffix == ".npz":
            with partial.open("wb") as file:
                np.savez_compressed(file, **_arrays(geometry))  # type: ignore[arg-type]
        else:
            points, colours = _points(geometry, pixels)
            encode = ply_bytes if suffix == ".ply" else glb_bytes
            matrix = geometry.intrinsics[0].cpu().numpy()
            partial.write_bytes(encode(points, colours, camera_statement(matrix, geometry.size)))


def _chart(geometry: Geometry) -> np.ndarray:
    depth, valid = geometry.depth[0].cpu().numpy(), geometry.valid[0].cpu().numpy()
    unit = "m" if geometry.scale is ScaleKind.METRIC else "scene units"
    return depth_chart(depth, valid, float(geometry.median_depth()), unit)


def _arrays(geometry: Geometry) -> dict[str, np.ndarray]:
    return {
        "depth": geometry.depth[0].cpu().numpy(),
        "confidence": geometry.confidence[0].cpu().numpy(),
        "valid": geometry.valid[0].cpu().numpy(),
        "intrinsics": geometry.intrinsics[0].cpu().numpy(),
        "scale": np.array(str(geometry.scale)),
    }


def _points(geometry: Geometry, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Valid points float32 [M,3] in OpenCV axes and colours uint8 [M,3]."""
    valid = geometry.valid[0].cpu().numpy()
    if not valid.any():
        raise GeometryError("No pixel of the photo has a valid depth; try another photo.")
    points = geometry.points_world()[0].cpu().numpy()[valid]
    return points.astype(np.float32), pixels[valid]


def ply_bytes(points: np.ndarray, colours: np.ndarray, camera: str = "") -> bytes:
    """Binary PLY in OpenCV axes, from float32 [M,3] and uint8 [M,3]; ``camera`` is a comment."""
    names = ("red", "green", "blue")
    rows = np.empty(len(points), [(a, "<f4") for a in "xyz"] + [(c, "u1") for c in names])
    for column, axis in enumerate("xyz"):
        rows[axis] = points[:, column]
    for column, name in enumerate(names):
        rows[name] = colours[:, column]
    fields = [f"property float {axis}" for axis in "xyz"]
    fields += [f"property uchar {name}" for name in names]
    header = [
        "ply",
        "format binary_little_endian 1.0",
        "comment OpenCV axes: x right, y down, z forward",
        *([f"comment {camera}"] if camera else []),
        f"element vertex {len(rows)}",
        *fields,
        "end_header",
    ]
    return "\n".join(header).encode() + b"\n" + rows.tobytes()


def glb_bytes(points: np.ndarray, colours: np.ndarray, camera: str = "") -> bytes:
    """Binary glTF 2.0 of points, from float32 [M,3] in OpenCV axes and uint8 [M,3]; ``camera``
    becomes an extra of the asset.

    glTF has y up and looks along -z, so y and z change sign; colours get an alpha of 255 because
    its vertices are aligned to four bytes.
    """
    turned = (points * np.array([1, -1, -1])).astype("<f4")
    alpha = np.full((len(colours), 1), 255, np.uint8)
    binary = turned.tobytes() + np.concatenate([colours, alpha], axis=1).tobytes()
    text = json.dumps(_gltf(turned, len(binary), camera)).encode()
    text += b" " * (-len(text) % 4)
    total = 12 + 8 + len(text) + 8 + len(binary)
    return (
        struct.pack("<III", _GLB_MAGIC, 2, total)
        + struct.pack("<II", len(text), _GLB_JSON)
        + text
        + struct.pack("<II", len(binary), _GLB_BINARY)
        + binary
    )


def _gltf(points: np.ndarray, size: int, camera: str) -> dict[str, Any]:
    split = points.nbytes
    position = {
        "bufferView": 0,
        "componentType": _GLTF_FLOAT,
        "count": len(points),
        "type": "VEC3",
        "min": points.min(axis=0).tolist(),
        "max": points.max(axis=0).tolist(),
    }
    colour = {
        "bufferView": 1,
        "componentType": _GLTF_UINT8,
        "normalized": True,
        "count": len(points),
        "type": "VEC4",
    }
    shape = {"attributes": {"POSITION": 0, "COLOR_0": 1}, "mode": _GLTF_POINTS}
    views = [(0, split), (split, size - split)]
    return {
        "asset": {"version": "2.0", "generator": "flythrough", "extras": {"camera": camera}},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [shape]}],
        "buffers": [{"byteLength": size}],
        "bufferViews": [
            {"buffer": 0, "byteOffset": start, "byteLength": length, "target": _GLTF_ARRAYS}
            for start, length in views
        ],
        "accessors": [position, colour],
    }
