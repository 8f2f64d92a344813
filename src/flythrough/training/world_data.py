"""Procedural worlds as training data, drawn ahead in a thread; batch n never depends on others."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from flythrough.training.geometry import GeometryBatch
from flythrough.training.geometry_losses import GeometryTruth
from flythrough.training.loop import rank_and_world
from flythrough.training.refill import WorldVideos
from flythrough.worlds.sampler import ClipBatch, ClipSampler, SamplerSettings

HELDOUT_SEED = 9_000_001


class WorldStream:
    """Batch ``step`` of this process; sequential steps are built ahead."""

    def __init__(self, seed: int, settings: SamplerSettings, device: torch.device) -> None:
        self.sampler = ClipSampler(seed, settings, device=device)
        self._coming: Iterator[ClipBatch] | None = None
        self._next = -1

    def __call__(self, step: int, rank: int) -> ClipBatch:
        _, world = rank_and_world()
        if self._coming is None or step != self._next:
            self._coming = self.sampler.batches(step * world + rank, world)
        self._next = step + 1
        return next(self._coming)


def world_pixels(stream: WorldStream, step: int, rank: int) -> Tensor:
    """Clips [B,3,T,H,W] in [0,1]."""
    return stream(step, rank).rgb


def world_videos(stream: WorldStream, step: int, rank: int) -> WorldVideos:
    """Clips with exact depth and cameras."""
    batch = stream(step, rank)
    return WorldVideos(
        rgb=batch.rgb,
        depth=batch.depth,
        valid=~batch.frames.sky,
        world_from_camera=batch.world_from_camera.float(),
        intrinsics=batch.intrinsics.float(),
        captions=batch.captions,
    )


def world_views(stream: WorldStream, views: int, step: int, rank: int) -> GeometryBatch:
    """``views`` frames spread over each clip, with exact geometry."""
    batch = stream(step, rank)
    frames = batch.rgb.shape[2]
    index = torch.linspace(0, frames - 1, views).round().long()
    truth = GeometryTruth(
        depth=batch.depth[:, index],
        valid=~batch.frames.sky[:, index],
        intrinsics=batch.intrinsics[:, index].float(),
        world_from_camera=batch.world_from_camera[:, index].float(),
    )
    return GeometryBatch(batch.rgb[:, :, index].transpose(1, 2), truth)
