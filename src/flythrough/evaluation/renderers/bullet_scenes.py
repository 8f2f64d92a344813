"""PyBullet: objects and furniture drawn by its software rasteriser (TinyRenderer)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from flythrough.cameras import pose as se3
from flythrough.evaluation.renderers.base import Views, chosen_scene, package, vertical_angle

SCENES = ("table", "yard", "shelves")
_NEAR, _FAR = 0.05, 40.0
_SKY = 0.98 * _FAR
_FINER = 3  # the rasteriser does not smooth edges, so it draws finer and the mean is taken
_GL_FROM_CV = np.diag([1.0, -1.0, -1.0, 1.0])
_STARTS = {
    "table": ((-1.3, -1.0, 1.35), (0.1, 0.0, 0.75)),
    "yard": ((-2.6, -2.2, 1.3), (0.4, 0.2, 0.4)),
    "shelves": ((-2.6, -0.9, 1.3), (0.6, 0.2, 0.8)),
}
"""Eye and target of each scene's first camera (z up, metres)."""


class Bullet:
    """Scenes of PyBullet's own data files; the seed places the objects."""

    def __init__(self) -> None:
        with _quiet():
            self._bullet = package("pybullet", "PyBullet")
            data = package("pybullet_data", "PyBullet")
        self._data = data.getDataPath()

    def views(
        self,
        scene: str,
        seed: int,
        world_from_camera: np.ndarray,
        intrinsics: np.ndarray,
        size: tuple[int, int],
    ) -> Views:
        chosen_scene(scene, SCENES, "PyBullet")
        eye, target = _STARTS[scene]
        start = se3.look_at(eye, target, (0.0, 0.0, 1.0))
        with _quiet():
            client = self._bullet.connect(self._bullet.DIRECT)
            try:
                self._furnish(scene, seed, client)
                poses = [start @ pose for pose in world_from_camera]
                shown = [self._drawn(pose, intrinsics, size, client) for pose in poses]
            finally:
                self._bullet.disconnect(client)
        rgb, depth = (np.stack(part) for part in zip(*shown, strict=True))
        return Views(rgb, depth, world_from_camera)

    def _furnish(self, scene: str, seed: int, client: int) -> None:
        p, source = self._bullet, np.random.default_rng(seed)
        p.setAdditionalSearchPath(self._data, physicsClientId=client)
        p.loadURDF("plane.urdf", physicsClientId=client)
        grid = p.loadTexture("checker_grid.jpg", physicsClientId=client)
        tiles = p.loadTexture("tex256.png", physicsClientId=client)
        for place, half, texture in (
            ((2.5, 0.0, 1.5), (0.05, 4.0, 1.5), tiles),
            ((0.0, 3.0, 1.5), (4.0, 0.05, 1.5), grid),
        ):
            self._box(place, half, texture, client)
        if scene == "table":
            p.loadURDF("table/table.urdf", physicsClientId=client)
        if scene == "shelves":
            for y in (-0.9, 0.9):
                p.loadSDF("kiva_shelf/model.sdf", physicsClientId=client)
                last = p.getNumBodies(physicsClientId=client) - 1
                p.resetBasePositionAndOrientation(
                    last, (1.2, y, 1.2), (0, 0, 0, 1), physicsClientId=client
                )
        top, spread = (0.65, (0.6, 0.35)) if scene == "table" else (0.0, (1.2, 1.2))
        scale = 1.0 if scene == "table" else 2.0
        for number, file in enumerate(
            ("duck_vhacd.urdf", "teddy_vhacd.urdf", "soccerball.urdf", "lego/lego.urdf") * 2
        ):
            x, y = source.uniform(-1, 1, 2) * spread
            turn = p.getQuaternionFromEuler(
                (1.57 if "duck" in file or "teddy" in file else 0, 0, source.uniform(0, 6.28))
            )
            large = scale * (0.25 if "soccer" in file else 2.5)
            lift = 0.1 * scale if "soccer" in file or "lego" in file else 0.0
            p.loadURDF(file, (x, y, top + lift), turn, globalScaling=large, physicsClientId=client)
            if scene != "table":
                half = tuple(source.uniform(0.1, 0.35, 3))
                place = (*(source.uniform(-1, 1, 2) * 1.6), half[2])
                self._box(place, half, tiles if number % 2 else grid, client)

    def _box(self, place: Any, half: Any, texture: int, client: int) -> None:
        p = self._bullet
        shape = p.createVisualShape(p.GEOM_BOX, halfExtents=half, physicsClientId=client)
        body = p.createMultiBody(
            baseVisualShapeIndex=shape, basePosition=place, physicsClientId=client
        )
        p.changeVisualShape(body, -1, textureUniqueId=texture, physicsClientId=client)

    def _drawn(
        self,
        world_from_camera: np.ndarray,
        intrinsics: np.ndarray,
        size: tuple[int, int],
        client: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        p, (height, width) = self._bullet, size
        view = _GL_FROM_CV @ se3.inverse(world_from_camera)
        angle = vertical_angle(intrinsics, height)
        projection = p.computeProjectionMatrixFOV(angle, width / height, _NEAR, _FAR)
        _, _, rgba, buffer, _ = p.getCameraImage(
            _FINER * width,
            _FINER * height,
            view.T.ravel().tolist(),
            projection,
            lightDirection=(-1.0, -1.5, 3.0),
            shadow=0,
            renderer=p.ER_TINY_RENDERER,
            physicsClientId=client,
        )
        fine = height, _FINER, width, _FINER
        picture = np.asarray(rgba, np.float64).reshape(*fine, 4)[..., :3].mean((1, 3))
        middle = _FINER // 2
        share = np.asarray(buffer, np.float64).reshape(fine)[:, middle, :, middle]
        depth = _FAR * _NEAR / (_FAR - (_FAR - _NEAR) * share)
        known = np.where(depth < _SKY, depth, 0.0).astype(np.float32)
        return picture.round().astype(np.uint8), known


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Its C++ writes to standard output, which holds results; send that to nowhere."""
    import sys

    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
