"""MuJoCo: rooms of primitive shapes with speckled surfaces, drawn by OpenGL without a window."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from flythrough.cameras import pose as se3
from flythrough.evaluation.renderers.base import Views, chosen_scene, package, vertical_angle

SCENES = {"blocks": (12, 0.45), "pillars": (9, 0.25), "clutter": (30, 0.3)}
"""Number and size of the shapes that stand about."""

_MATERIALS = 8
_TEXELS = 512  # along an edge of a cube's face
_SPECKS = (8, 24, 64, 192)
"""Grains along an edge, one layer each: what a camera can hold on to from far and from near."""

_GL_FROM_CV = np.diag([1.0, -1.0, -1.0])
_EYE, _TARGET = (-3.2, -2.6, 1.6), (0.6, 0.4, 0.7)


class MuJoCo:
    """Rooms that the seed furnishes (z up, metres)."""

    def __init__(self) -> None:
        os.environ.setdefault("MUJOCO_GL", "egl")
        self._mujoco = package("mujoco", "MuJoCo")

    def views(
        self,
        scene: str,
        seed: int,
        world_from_camera: np.ndarray,
        intrinsics: np.ndarray,
        size: tuple[int, int],
    ) -> Views:
        chosen_scene(scene, SCENES, "MuJoCo")
        height, width = size
        model = self._mujoco.MjModel.from_xml_string(room(scene, seed, size))
        _paint(model, seed)
        model.cam_fovy[0] = vertical_angle(intrinsics, height)
        data = self._mujoco.MjData(model)
        self._mujoco.mj_forward(model, data)
        start = se3.look_at(_EYE, _TARGET, (0.0, 0.0, 1.0))
        renderer = self._mujoco.Renderer(model, height, width)
        try:
            shown = [self._drawn(renderer, data, start @ pose) for pose in world_from_camera]
        finally:
            renderer.close()
        rgb, depth = (np.stack(part) for part in zip(*shown, strict=True))
        return Views(rgb, depth, world_from_camera)

    def _drawn(
        self, renderer: Any, data: Any, world_from_camera: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        # What the kinematics found for the camera is overwritten: its own axes are OpenGL's.
        data.cam_xpos[0] = world_from_camera[:3, 3]
        data.cam_xmat[0] = (world_from_camera[:3, :3] @ _GL_FROM_CV).ravel()
        renderer.update_scene(data, camera=0)
        picture = renderer.render().copy()
        renderer.enable_depth_rendering()
        depth = renderer.render().astype(np.float32)
        renderer.disable_depth_rendering()
        return picture, depth


def room(scene: str, seed: int, size: tuple[int, int]) -> str:
    """The MJCF text of a closed room."""
    source = np.random.default_rng(seed)
    count, large = SCENES[scene]
    assets, shapes = [], []
    for number in range(_MATERIALS):
        assets.append(
            f'<texture name="t{number}" type="cube" builtin="flat" rgb1="1 1 1" '
            f'width="{_TEXELS}" height="{6 * _TEXELS}"/>'
            f'<material name="m{number}" texture="t{number}" '
            'specular="0" shininess="0" reflectance="0"/>'
        )
    for number in range(count):
        x, y = source.uniform((-1.4, -1.8), (3.2, 3.2))
        radius, tall = large * source.uniform(0.5, 1.2, 2)
        tall = 1.4 if scene == "pillars" else tall
        kind = ("box", "cylinder")[number % 2]
        extent = (
            f"{radius:.3f} {radius:.3f} {tall:.3f}"
            if kind == "box"
            else (f"{radius:.3f} {tall:.3f}")
        )
        shapes.append(
            f'<geom type="{kind}" pos="{x:.3f} {y:.3f} {tall:.3f}" size="{extent}" '
            f'euler="0 0 {source.uniform(0, 90):.1f}" material="m{number % 6}"/>'
        )
    walls = "".join(
        f'<geom type="box" pos="{place}" size="{extent}" material="m{number}"/>'
        for number, (place, extent) in enumerate(
            (
                ("4 0 1.5", ".05 4 1.5"),
                ("-4 0 1.5", ".05 4 1.5"),
                ("0 4 1.5", "4 .05 1.5"),
                ("0 -4 1.5", "4 .05 1.5"),
                ("0 0 3", "4 4 .05"),
                ("0 0 -.05", "4 4 .05"),
            ),
            start=2,
        )
    )
    height, width = size
    return (
        '<mujoco><visual><headlight ambient=".75 .75 .75" diffuse="0 0 0" specular="0 0 0"/>'
        '<map znear="0.005" zfar="20"/><quality shadowsize="0"/>'
        f'<global offwidth="{width}" offheight="{height}"/></visual>'
        f"<asset>{''.join(assets)}</asset><worldbody>"
        '<light pos="0 0 2.9" dir="0 0 -1" diffuse=".4 .4 .4" specular="0 0 0" '
        'castshadow="false"/>'
        f'<camera name="eye" pos="0 0 1"/>{walls}{"".join(shapes)}</worldbody></mujoco>'
    )


def _paint(model: Any, seed: int) -> None:
    """Fill the cube textures: the built-in patterns repeat, and are smeared over upright faces."""
    source = np.random.default_rng([seed, 1])
    for number in range(_MATERIALS):
        bright = source.uniform(0.3, 0.95, 3)
        dark = bright * source.uniform(0.25, 0.6)
        share = np.zeros((6, _TEXELS, _TEXELS))
        for grains in _SPECKS:
            grid = source.normal(size=(6, grains, grains))
            where = np.arange(_TEXELS) * grains // _TEXELS
            share += grid[:, where][:, :, where]
        mixed = 1 / (1 + np.exp(-share))[..., None]
        texels = dark + (bright - dark) * mixed
        first = int(model.tex_adr[number])
        painted = (255 * texels).round().astype(np.uint8).ravel()
        model.tex_data[first : first + painted.size] = painted
