"""Clips of other renderers as truths, and the check that their cameras mean what they say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from flythrough.cameras.source import trajectory_from
from flythrough.errors import FaultError, InputError
from flythrough.evaluation.photometry import masked_psnr
from flythrough.evaluation.renderers.base import Renderer, Views
from flythrough.evaluation.reprojection import brought_over, seen_from, view_motion
from flythrough.evaluation.suite import VIEW_ANGLE
from flythrough.evaluation.truth import Case, Truth
from flythrough.media.fitting import default_intrinsics

LEAST_PSNR = 20.0
"""dB that a frame brought over into another one by depth and cameras has to reach."""

LEAST_GAIN = 3.0
"""dB by which it has to beat the frame left where it was."""


@dataclass(frozen=True)
class Known:
    """A renderer: its title, its Python package, how it is made, and the number of the last change
    to what its scenes look like here."""

    title: str
    package: str
    make: Callable[[], Renderer]
    scenes: int = 1


def _miniworld() -> Renderer:
    from flythrough.evaluation.renderers.miniworld_rooms import MiniWorld

    return MiniWorld()


def _pybullet() -> Renderer:
    from flythrough.evaluation.renderers.bullet_scenes import Bullet

    return Bullet()


def _mujoco() -> Renderer:
    from flythrough.evaluation.renderers.mujoco_rooms import MuJoCo

    return MuJoCo()


def _vizdoom() -> Renderer:
    from flythrough.evaluation.renderers.doom_maps import Doom

    return Doom()


RENDERERS = {
    "miniworld": Known("MiniWorld", "miniworld", _miniworld),
    "pybullet": Known("PyBullet", "pybullet", _pybullet),
    "mujoco": Known("MuJoCo", "mujoco", _mujoco, 2),
    "vizdoom": Known("ViZDoom", "vizdoom", _vizdoom),
}


@cache
def renderer(name: str) -> Renderer:
    """The renderer of this name, made once.

    Raises:
        InputError: there is no such renderer, or its package is not installed.
    """
    if name not in RENDERERS:
        raise InputError(f"The renderer {name!r} is unknown; choose among {', '.join(RENDERERS)}.")
    return RENDERERS[name].make()


class Rendered:
    """A renderer as a source of truths.

    Args:
        name: one of ``RENDERERS``.

    Raises:
        InputError: it is not installed.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._renderer = renderer(name)

    def version(self) -> str:
        known = RENDERERS[self.name]
        try:
            number = version(known.package)
        except PackageNotFoundError:
            number = "unknown"
        return f"{self.name} {known.scenes} {number} {VIEW_ANGLE}"

    def truth(self, case: Case, size: tuple[int, int]) -> Truth:
        k = default_intrinsics(*size, VIEW_ANGLE)
        first = self._renderer.views(case.kind, case.seed, np.eye(4)[None], k, size).depth[0]
        if not (first > 0).any():
            raise InputError(f"The clip {case.name} shows nothing but sky; choose another seed.")
        median = float(np.median(first[first > 0]))
        path = trajectory_from(case.path, case.count, 16.0).resolve(k, size, median, metric=True)
        views = self._renderer.views(case.kind, case.seed, path.world_from_camera, k, size)
        agreement = self_check(views, k)
        if not agreement.holds:
            raise FaultError(
                f"{RENDERERS[self.name].title} does not draw {case.name} as its own cameras and "
                f"depth say ({agreement}); try another version of the package."
            )
        return Truth(
            case=case,
            frames=views.rgb,
            depth=views.depth,
            visible=seen_from(views.depth, views.world_from_camera, k, 0),
            world_from_camera=views.world_from_camera.copy(),
            intrinsics=k,
            median_depth=median,
            caption=f"{case.kind.replace('-', ' ')}, a rendered scene.",
            still=views.known,
        )

    def along(
        self, case: Case, world_from_camera: np.ndarray, size: tuple[int, int]
    ) -> np.ndarray | None:
        k = default_intrinsics(*size, VIEW_ANGLE)
        try:
            return self._renderer.views(case.kind, case.seed, world_from_camera, k, size).rgb
        except InputError:  # a wrong path may lead through a wall, where some cannot stand
            return None


@dataclass(frozen=True)
class Agreement:
    """The first frame, brought over into a later one by its depth and camera, against the later:
    ``psnr`` in dB over the ``share`` of pixels seen in both; ``unmoved`` without bringing over."""

    psnr: float
    unmoved: float
    share: float

    @property
    def holds(self) -> bool:
        """Axes, units, field of view and depth belong together."""
        gain = self.psnr - self.unmoved
        return self.share > 0.3 and self.psnr >= LEAST_PSNR and gain >= LEAST_GAIN

    def __str__(self) -> str:
        return (
            f"{self.psnr:.1f} dB over {100 * self.share:.0f} % of the pixels, "
            f"{self.unmoved:.1f} dB unmoved"
        )


def self_check(views: Views, intrinsics: np.ndarray, frame: int | None = None) -> Agreement:
    """Bring the first frame over into ``frame`` (the last that still shares most of its view)."""
    depth, poses = views.depth, views.world_from_camera
    index = _farthest_shared(views, intrinsics) if frame is None else frame
    motion = view_motion(depth[index], poses[index], depth[0], poses[0], intrinsics)
    brought, seen = brought_over(views.rgb[0], motion)
    if views.known is not None:
        seen = seen & views.known[index]
    shown = brought.round().clip(0, 255).astype(np.uint8)[None]
    later, mask = views.rgb[index][None], seen[None]
    psnr = masked_psnr(shown, later, mask)
    unmoved = masked_psnr(views.rgb[:1], later, mask)
    if psnr is None or unmoved is None:
        return Agreement(0.0, 0.0, 0.0)
    return Agreement(psnr, unmoved, float(seen.mean()))


def _farthest_shared(views: Views, intrinsics: np.ndarray) -> int:
    depth, poses = views.depth, views.world_from_camera
    for index in range(len(depth) - 1, 0, -max(1, len(depth) // 8)):
        motion = view_motion(depth[index], poses[index], depth[0], poses[0], intrinsics)
        moved = np.linalg.norm(poses[index] - poses[0]) > 1e-3
        if moved and float(motion.visible.float().mean()) > 0.6:
            return index
    return min(1, len(depth) - 1)
