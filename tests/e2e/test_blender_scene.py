"""The script that builds a Blender scene: lenses by hand, and the whole in Blender where it is."""

from __future__ import annotations

import runpy
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import flythrough

SCRIPT = Path(flythrough.__file__).parent / "assets" / "blender_scene.py"
WIDTH, HEIGHT = 320, 192


def intrinsics(across: float, down: float, column: float, row: float) -> np.ndarray:
    return np.array([[across, 0, column], [0, down, row], [0, 0, 1]])


LENSES = (
    intrinsics(300.0, 300.0, 160.0, 96.0),
    intrinsics(360.5, 353.5, 150.0, 101.0),  # as nano's geometry finds them
    intrinsics(280.0, 310.0, 166.0, 90.0),
)


def test_lenses_show_points_where_the_intrinsics_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("bpy", "mathutils"):
        stand_in: Any = ModuleType(name)
        stand_in.Matrix = None  # imported by name
        monkeypatch.setitem(sys.modules, name, stand_in)
    script = runpy.run_path(str(SCRIPT))
    x, y, z = 0.3, -0.2, 2.0  # OpenCV axes
    width_mm = script["SENSOR_MM"]
    for matrix in LENSES:
        oblong = script["pixel_height"](matrix[None])
        lens = script["lens_of"](matrix, (WIDTH, HEIGHT), oblong)
        # Blender's camera: the sensor's width is fitted, its height follows from the pixels.
        height_mm = width_mm * HEIGHT * oblong / WIDTH
        across, up = x / z * lens["lens"], -y / z * lens["lens"]
        column = (across / width_mm - lens["shift_x"] + 0.5) * WIDTH
        row = (0.5 - (up - lens["shift_y"] * width_mm) / height_mm) * HEIGHT
        expected = matrix @ (x / z, y / z, 1.0)
        assert (column, row) == pytest.approx(tuple(expected[:2]), abs=1e-9)


@pytest.mark.skipif(find_spec("bpy") is None, reason="bpy is not installed")
@pytest.mark.parametrize("matrix", LENSES)
def test_blender_shows_points_where_the_cameras_do(matrix: np.ndarray, tmp_path: Path) -> None:
    import bpy
    from bpy_extras.object_utils import world_to_camera_view

    poses = np.eye(4)[None].repeat(3, axis=0)
    poses[:, 0, 3] = (0.0, 0.1, 0.2)
    matrices = matrix[None] * np.array([[1.2], [1.2], [1.0]])  # a zoom has the same ratio
    matrices = np.concatenate([matrix[None], matrices, matrices])
    rate = {"width": WIDTH, "height": HEIGHT, "fps": 16.0}
    np.savez(tmp_path / "cameras.npz", K=matrices, c2w=poses, **rate)
    rows = np.zeros(2, np.dtype([("place", "<f4", 3), ("colour", "u1", 3)]))
    rows["place"] = ((0.3, -0.2, 2.0), (-0.4, 0.3, 3.0))
    (tmp_path / "points.ply").write_bytes(b"ply\nend_header\n" + rows.tobytes())
    runpy.run_path(str(SCRIPT))["build"](tmp_path)
    made = bpy.data.collections["Flythrough"]
    kinds = {one.type: one for one in made.objects}
    scene = bpy.context.scene
    for number, (inner, pose) in enumerate(zip(matrices, poses, strict=True), start=1):
        scene.frame_set(number)
        bpy.context.view_layer.update()
        for place, vertex in zip(rows["place"], kinds["MESH"].data.vertices, strict=True):
            seen = world_to_camera_view(scene, kinds["CAMERA"], vertex.co)
            ray = inner @ (place - pose[:3, 3])
            found = (seen.x * WIDTH, (1 - seen.y) * HEIGHT)
            assert found == pytest.approx(tuple(ray[:2] / ray[2]), abs=1e-3)
    bpy.data.collections.remove(made)
