"""How ``--geometry`` names a 3D file. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Axes = Literal["opencv", "opengl"]

SHAPE_SUFFIXES = (".ply", ".obj", ".glb")
AXES: tuple[Axes, ...] = ("opencv", "opengl")


def split_axes(geometry: str) -> tuple[str, Axes | None]:
    """``cloud.ply:opengl`` -> (``cloud.ply``, ``opengl``); everything else has no axes."""
    for axes in AXES:
        name = geometry.removesuffix(f":{axes}")
        if name != geometry and Path(name).suffix.lower() in SHAPE_SUFFIXES:
            return name, axes
    return geometry, None


def is_shape(geometry: str) -> bool:
    """Whether ``geometry`` names a file of points or a mesh, by its ending."""
    return Path(split_axes(geometry)[0]).suffix.lower() in SHAPE_SUFFIXES
