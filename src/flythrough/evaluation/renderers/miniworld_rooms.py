"""MiniWorld: rooms and mazes with simple textures, drawn by OpenGL without a window (EGL)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from flythrough.cameras import pose as se3
from flythrough.evaluation.renderers.base import (
    Views,
    best_heading,
    chosen_scene,
    package,
    vertical_angle,
)

SCENES = {
    "four-rooms": "MiniWorld-FourRooms-v0",
    "objects": "MiniWorld-RoomObjects-v0",
    "maze": "MiniWorld-Maze-v0",
    "sidewalk": "MiniWorld-Sidewalk-v0",
}
_NEAR, _FAR = 0.1, 60.0  # the package's own 0.04 wastes the 16 bits of its depth buffer
_SKY = 0.98 * _FAR
_GL_FROM_CV = np.diag([1.0, -1.0, -1.0, 1.0])


class MiniWorld:
    """Scenes of MiniWorld (y up, metres)."""

    def __init__(self) -> None:
        pyglet = package("pyglet", "MiniWorld", "miniworld")
        pyglet.options["headless"] = True
        package("miniworld", "MiniWorld")
        self._rooms: dict[tuple[str, int, tuple[int, int]], tuple[Any, np.ndarray]] = {}

    def views(
        self,
        scene: str,
        seed: int,
        world_from_camera: np.ndarray,
        intrinsics: np.ndarray,
        size: tuple[int, int],
    ) -> Views:
        room, start = self._room(scene, seed, intrinsics, size)
        shown = [_drawn(room, start @ pose, intrinsics, size) for pose in world_from_camera]
        rgb, depth = (np.stack(part) for part in zip(*shown, strict=True))
        return Views(rgb, depth, world_from_camera)

    def _room(
        self, scene: str, seed: int, intrinsics: np.ndarray, size: tuple[int, int]
    ) -> tuple[Any, np.ndarray]:
        """The room and where its first camera stands, world_from_camera [4,4]."""
        key = scene, seed, size
        if key not in self._rooms:
            chosen_scene(scene, SCENES, "MiniWorld")
            gym = package("gymnasium", "MiniWorld", "miniworld")
            height, width = size
            room = gym.make(SCENES[scene], obs_width=width, obs_height=height).unwrapped
            room.reset(seed=seed)
            eye = np.asarray(room.agent.cam_pos, np.float64)

            def pose(number: int) -> np.ndarray:
                turn = 2 * math.pi * number / 8
                ahead = np.array([math.cos(turn), 0.0, math.sin(turn)])
                return se3.look_at(eye, eye + ahead, (0.0, 1.0, 0.0))

            best = best_heading(lambda number: _drawn(room, pose(number), intrinsics, size))
            self._rooms[key] = room, pose(best)
        return self._rooms[key]


def _drawn(
    room: Any, world_from_camera: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Picture and depth from any camera; the package itself draws only what its walker sees."""
    from pyglet import gl

    height, width = size
    buffer = room.obs_fb
    room.shadow_window.switch_to()
    buffer.bind()
    gl.glClearColor(*room.sky_color, 1.0)
    gl.glClearDepth(1.0)
    gl.glClear(gl.GL_COLOR_BUFFER_BIT | gl.GL_DEPTH_BUFFER_BIT)
    gl.glMatrixMode(gl.GL_PROJECTION)
    gl.glLoadIdentity()
    gl.gluPerspective(vertical_angle(intrinsics, height), width / height, _NEAR, _FAR)
    gl.glMatrixMode(gl.GL_MODELVIEW)
    view = _GL_FROM_CV @ se3.inverse(world_from_camera)
    gl.glLoadMatrixf((gl.GLfloat * 16)(*view.T.ravel()))
    picture = np.array(room._render_world(buffer, render_agent=False))
    depth = buffer.get_depth_map(_NEAR, _FAR)[..., 0]
    return picture, np.where(depth < _SKY, depth, 0.0).astype(np.float32)
