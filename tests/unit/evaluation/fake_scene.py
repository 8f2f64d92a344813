"""A renderer for tests: a wall and a post before it, with patterns, drawn exactly in NumPy."""

from __future__ import annotations

import numpy as np

from flythrough.evaluation.renderers.base import Views


def _pattern(x: np.ndarray, y: np.ndarray, seed: int, finest: float) -> np.ndarray:
    """Colours in [0,255] at points of a plane."""
    source = np.random.default_rng(seed)
    value = np.zeros((*x.shape, 3))
    for _ in range(24):
        a, b, phase = source.normal(0, finest), source.normal(0, finest), source.uniform(0, 6)
        value += np.sin(a * x + b * y + phase)[..., None] * source.normal(0, 1, 3)
    return 127 + 110 * np.tanh(value / 5)


class FakeRenderer:
    """A wall at z = 4 and a post at z = 2; cameras count from the origin, looking along z."""

    flipped = False
    """Whether it draws with left and right exchanged while claiming OpenCV axes."""

    def __init__(self, finest: float = 4.5) -> None:
        """``finest``: how fine the patterns are; 4.5 can be looked up between pixels of a small
        picture, 14 has many features."""
        self.finest = finest

    def views(
        self,
        scene: str,
        seed: int,
        world_from_camera: np.ndarray,
        intrinsics: np.ndarray,
        size: tuple[int, int],
    ) -> Views:
        del scene
        height, width = size
        rows, columns = np.mgrid[0:height, 0:width] + 0.5
        rays = np.stack([columns, rows, np.ones(size)], -1) @ np.linalg.inv(intrinsics).T
        rgb, depth = [], []
        for pose in world_from_camera:
            drawn = pose.copy()
            if self.flipped:
                drawn[0, 3] *= -1
            ways = rays @ drawn[:3, :3].T
            picture, nearest = np.zeros((*size, 3)), np.full(size, np.inf)
            for number, (z, left, right) in enumerate(((4.0, -99, 99), (2.0, -0.3, 0.25))):
                t = (z - drawn[2, 3]) / ways[..., 2]
                x, y = (drawn[axis, 3] + t * ways[..., axis] for axis in (0, 1))
                hit = (t > 0) & (t < nearest) & (x > left) & (x < right)
                picture = np.where(
                    hit[..., None], _pattern(x, y, 10 * seed + number, self.finest), picture
                )
                nearest = np.where(hit, t, nearest)
            rgb.append(picture.round().astype(np.uint8))
            depth.append(nearest.astype(np.float32))
        return Views(np.stack(rgb), np.stack(depth), world_from_camera)
