"""Endless training clips: random worlds, cameras and paths, a pure function of (seed, batch)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from flythrough.errors import InputError
from flythrough.seeds import fold, generator
from flythrough.worlds.casting import cast_points
from flythrough.worlds.clearance import clearance
from flythrough.worlds.layouts import KINDS, random_world
from flythrough.worlds.paths import PathDraw, draw_paths, motion_words, path_poses
from flythrough.worlds.render import Frames, render
from flythrough.worlds.tables import frame_tables
from flythrough.worlds.textures import TextureAtlas, texture_atlas
from flythrough.worlds.world import WorldBatch, stack

FPS = 16.0
_SHORTER = (1.0, 0.8, 0.6, 0.45, 0.3, 0.15, 0.0)


@dataclass(frozen=True)
class SamplerSettings:
    """What a sampler draws.

    ``size`` (height, width); ``frames`` a clip; ``batch`` clips; ``clips_per_world`` neighbouring
    clips that share a world (and its start view, not its path); ``kinds`` of worlds; ``near``
    metres kept between camera and surfaces; ``view_angle`` horizontal degrees drawn from this
    range; ``motion_captions`` share of captions that tell the camera's move; ``outputs`` as in
    render; ``antialias`` and ``supersample`` as in render.
    """

    size: tuple[int, int] = (192, 320)
    frames: int = 33
    batch: int = 8
    clips_per_world: int = 1
    kinds: tuple[str, ...] = KINDS
    near: float = 0.3
    view_angle: tuple[float, float] = (45.0, 80.0)
    motion_captions: float = 0.5
    outputs: tuple[str, ...] = ("rgb", "depth")
    antialias: bool = True
    supersample: int = 1

    def __post_init__(self) -> None:
        if self.batch < 1 or self.frames < 1 or self.batch % self.clips_per_world:
            raise InputError(
                f"batch {self.batch}, frames {self.frames} and clips_per_world "
                f"{self.clips_per_world} were given, but the first two must be positive and the "
                "batch a multiple of clips_per_world; change them."
            )


@dataclass(frozen=True, eq=False)
class ClipBatch:
    """One batch of B clips of T frames on the sampler's device.

    ``rgb`` [B,3,T,H,W] float32 in [0,1] (the codec's layout); ``frames`` holds depth, sky, ids (and
    normals if asked for) as [B,T,...], cameras, intrinsics and times; ``captions`` B sentences;
    ``median_depth`` [B] metres of frame 0; ``index`` the batch number.
    """

    rgb: Tensor
    frames: Frames
    captions: tuple[str, ...]
    median_depth: Tensor
    index: int

    @property
    def depth(self) -> Tensor:
        """z-depth [B,T,H,W] in metres, SKY_DEPTH for sky."""
        return self.frames.depth

    @property
    def world_from_camera(self) -> Tensor:
        """Cameras [B,T,4,4] float64."""
        return self.frames.world_from_camera

    @property
    def intrinsics(self) -> Tensor:
        """Intrinsics [B,T,3,3] float64 in pixels of the clip's size."""
        return self.frames.intrinsics


@dataclass(frozen=True, eq=False)
class _Draw:
    worlds: WorldBatch
    paths: PathDraw
    focal: Tensor


def quick_median_depth(
    worlds: WorldBatch, start: Tensor, intrinsics: Tensor, size: tuple[int, int]
) -> Tensor:
    """Median z-depth [B] of a coarse 12 x 20 grid of rays at time 0, sky left out."""
    height, width = size
    device = worlds.device
    times = torch.zeros(len(worlds), 1, dtype=torch.float64, device=device)
    tables = frame_tables(worlds, start[:, None], intrinsics[:, None], times, size)
    y, x = torch.meshgrid(
        (torch.arange(12, device=device) + 0.5) * (height / 12),
        (torch.arange(20, device=device) + 0.5) * (width / 20),
        indexing="ij",
    )
    rows = len(worlds)
    u = x.reshape(1, -1).expand(rows, -1).to(torch.float32).contiguous()
    v = y.reshape(1, -1).expand(rows, -1).to(torch.float32).contiguous()
    depth, _ = cast_points(tables, torch.arange(rows, device=device), u, v)
    return torch.nan_to_num(
        depth.masked_fill(depth.isinf(), torch.nan).nanmedian(1).values, nan=10.0
    )


def safe_poses(
    worlds: WorldBatch, paths: PathDraw, start: Tensor, median: Tensor, times: Tensor, near: float
) -> Tensor:
    """Poses [B,T,4,4] of ``paths``, shortened until the camera keeps ``near`` metres everywhere.

    Tries a falling list of lengths at once and takes the longest safe one; length 0 turns on the
    spot (the start camera is always safe; a mover may still come close to it).
    """
    count, frames = times.shape
    options = []
    for length in _SHORTER:
        options.append(
            path_poses(paths.scaled(torch.full_like(median, length)), frames, start, median)
        )
    poses = torch.stack(options, 1)  # [B,S,T,4,4]
    many = poses[:, :, :, :3, 3].reshape(count, -1, 3)
    room = clearance(worlds, many, times.repeat(1, len(_SHORTER)))
    safe = (room.view(count, len(_SHORTER), frames) > near).all(-1)
    safe[:, -1] = True
    best = safe.to(torch.int8).argmax(1)
    return poses[torch.arange(count, device=poses.device), best]


class ClipSampler:
    """Batches of clips without end; batch i of a seed never depends on other batches.

    >>> sampler = ClipSampler(0, SamplerSettings(batch=4), device="cpu")  # doctest: +SKIP
    >>> batch = sampler.batch(0)  # doctest: +SKIP

    ``photos`` [N,3,h,w] sRGB in [0,1] hang in the worlds as pictures when given.
    """

    def __init__(
        self,
        seed: int,
        settings: SamplerSettings | None = None,
        *,
        device: str | torch.device = "cpu",
        photos: Tensor | None = None,
    ) -> None:
        self.seed = seed
        self.settings = settings or SamplerSettings()
        self.device = torch.device(device)
        self.atlas: TextureAtlas = texture_atlas(photos, self.device)

    def world_seed(self, index: int, clip: int) -> int:
        """The world's seed of clip ``clip`` in batch ``index``."""
        return fold(self.seed, "clip world", index, clip // self.settings.clips_per_world)

    def _draw(self, index: int) -> _Draw:
        """Everything random of a batch, on the CPU."""
        s = self.settings
        worlds = []
        for clip in range(0, s.batch, s.clips_per_world):
            seed = self.world_seed(index, clip)
            worlds.append(random_world(seed, s.kinds[fold(seed, "kind") % len(s.kinds)]))
        rand = torch.rand(
            s.batch, generator=generator(self.seed, "view", index), dtype=torch.float64
        )
        angle = (s.view_angle[0] + (s.view_angle[1] - s.view_angle[0]) * rand) * (math.pi / 180)
        focal = 0.5 * s.size[1] / torch.tan(0.5 * angle)
        return _Draw(
            stack(worlds).repeated(s.clips_per_world), draw_paths(self.seed, index, s.batch), focal
        )

    def _captions(self, index: int, draw: _Draw) -> tuple[str, ...]:
        rand = torch.rand(self.settings.batch, generator=generator(self.seed, "caption", index))
        return tuple(
            f"{caption} {motion_words(draw.paths, i)}"
            if told < self.settings.motion_captions
            else caption
            for i, (caption, told) in enumerate(
                zip(draw.worlds.captions, rand.tolist(), strict=True)
            )
        )

    def _finish(self, index: int, draw: _Draw) -> ClipBatch:
        s = self.settings
        worlds, paths = draw.worlds.to(self.device), draw.paths.to(self.device)
        focal = draw.focal.to(self.device)
        intrinsics = torch.zeros(s.batch, 3, 3, dtype=torch.float64, device=self.device)
        intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = focal
        intrinsics[:, 0, 2], intrinsics[:, 1, 2] = s.size[1] / 2, s.size[0] / 2
        intrinsics[:, 2, 2] = 1
        median = quick_median_depth(worlds, worlds.start, intrinsics, s.size)
        times = torch.arange(s.frames, dtype=torch.float64, device=self.device) / FPS
        times = times.expand(s.batch, -1)
        poses = safe_poses(worlds, paths, worlds.start, median, times, s.near)
        frames = render(
            worlds, poses, intrinsics[:, None], s.size, times, outputs={*s.outputs, "rgb"},
            antialias=s.antialias, supersample=s.supersample, atlas=self.atlas,
        )  # fmt: skip
        rgb = frames.rgb
        assert rgb is not None
        return ClipBatch(rgb.transpose(1, 2), frames, self._captions(index, draw), median, index)

    def batch(self, index: int) -> ClipBatch:
        """Batch ``index``: a pure function of (seed, settings, index)."""
        return self._finish(index, self._draw(index))

    def batches(self, first: int = 0, stride: int = 1) -> Iterator[ClipBatch]:
        """Batches first, first + stride, ... for ever; the next worlds are built meanwhile.

        Give rank and world size as ``first`` and ``stride`` to share the work among processes.
        """
        with ThreadPoolExecutor(1) as pool:
            index = first
            coming: Future[_Draw] = pool.submit(self._draw, index)
            while True:
                draw = coming.result()
                coming = pool.submit(self._draw, index + stride)
                yield self._finish(index, draw)
                index += stride

    def __iter__(self) -> Iterator[ClipBatch]:
        return self.batches()
