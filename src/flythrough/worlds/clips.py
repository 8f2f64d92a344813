"""Ground-truth clips: one world seen along a camera path that a user typed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from flythrough.errors import InputError
from flythrough.worlds.layouts import random_world
from flythrough.worlds.render import Frames, render
from flythrough.worlds.sampler import (
    FPS,
    ClipBatch,
    ClipSampler,
    SamplerSettings,
    quick_median_depth,
)
from flythrough.worlds.textures import TextureAtlas

if TYPE_CHECKING:
    from flythrough.cameras.trajectory import Trajectory


@dataclass(frozen=True, eq=False)
class Clip:
    """A clip of T frames with exact ground truth (all on one device).

    ``frames`` are the rendered frames of a batch of one, cameras in the world's frame;
    ``world_from_camera`` [T,4,4] float64 is relative to frame 0 (metres); ``caption``, ``seed``.
    """

    frames: Frames
    world_from_camera: Tensor
    caption: str
    seed: int

    def __len__(self) -> int:
        return int(self.world_from_camera.shape[0])

    @property
    def rgb(self) -> Tensor:
        """Frames [T,3,H,W] float32 in [0,1]."""
        rgb = self.frames.rgb
        assert rgb is not None
        return rgb[0]

    @property
    def depth(self) -> Tensor:
        """z-depth [T,H,W] float32 in metres, SKY_DEPTH for sky."""
        return self.frames.depth[0]

    @property
    def sky(self) -> Tensor:
        """Sky mask [T,H,W] bool."""
        return self.frames.sky[0]

    @property
    def intrinsics(self) -> Tensor:
        """Intrinsics [T,3,3] float64 in pixels of the clip's size."""
        return self.frames.intrinsics[0]

    @property
    def times(self) -> Tensor:
        """Seconds [T] float64."""
        return self.frames.times[0]


@dataclass(frozen=True)
class ClipSettings:
    """``kind`` of world (None: drawn from the seed); horizontal ``view_angle`` in degrees;
    ``fps``; ``supersample`` and ``antialias`` as in render; extra ``outputs`` (normals)."""

    kind: str | None = None
    view_angle: float = 60.0
    fps: float = FPS
    supersample: int = 1
    antialias: bool = True
    outputs: tuple[str, ...] = ("rgb", "depth")

    def __post_init__(self) -> None:
        if not 5.0 <= self.view_angle <= 140.0:
            raise InputError(
                f"the field of view is {self.view_angle:g} degrees, but it must lie between 5 and "
                "140; choose another angle."
            )


def photo_intrinsics(size: tuple[int, int], view_angle: float) -> Tensor:
    """Centred pinhole [3,3] float64 with a horizontal field of view in degrees."""
    focal = 0.5 * size[1] / math.tan(math.radians(view_angle) / 2)
    rows = [[focal, 0.0, size[1] / 2], [0.0, focal, size[0] / 2], [0.0, 0.0, 1.0]]
    return torch.tensor(rows, dtype=torch.float64)


def clip(
    seed: int,
    path: str | Trajectory,
    frames: int = 66,
    size: tuple[int, int] = (192, 320),
    *,
    device: str | torch.device = "cpu",
    settings: ClipSettings | None = None,
    atlas: TextureAtlas | None = None,
) -> Clip:
    """The world of ``seed`` seen along ``path`` (path language, a camera file, or a Trajectory).

    Lengths in the path are multiples of the median depth of the first view unless a unit is given;
    world units are metres. Raises CameraError for a bad path and InputError for bad settings.
    """
    from flythrough.cameras.source import trajectory_from

    chosen = settings or ClipSettings()
    trajectory = trajectory_from(path, frames, chosen.fps) if isinstance(path, str) else path
    world = random_world(seed, chosen.kind)
    batch = world.batch.to(device)
    base = photo_intrinsics(size, chosen.view_angle)
    median = quick_median_depth(batch, batch.start, base[None].to(device), size)
    resolved = trajectory.resolve(base.numpy(), size, float(median[0]), metric=True)
    relative = torch.tensor(resolved.world_from_camera, dtype=torch.float64)
    intrinsics = torch.tensor(resolved.intrinsics, dtype=torch.float64)
    times = torch.arange(len(relative), dtype=torch.float64) / chosen.fps
    made = render(
        batch,
        (world.world_from_camera @ relative)[None],
        intrinsics[None],
        size,
        times[None],
        outputs=chosen.outputs,
        supersample=chosen.supersample,
        antialias=chosen.antialias,
        atlas=atlas,
    )
    return Clip(made, relative.to(device), world.caption, seed)


__all__ = [
    "Clip",
    "ClipBatch",
    "ClipSampler",
    "ClipSettings",
    "SamplerSettings",
    "clip",
    "photo_intrinsics",
]
