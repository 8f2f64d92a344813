"""Photographs as exact worlds: each becomes a slanted plane that a camera flies past.

The plane carries the photograph and, beyond its edges, mirror images of it, so that every pixel of
every frame has a true colour and depth. Denoiser and camera adapter see the colours and detail of
real pictures this way, with cameras that are exact.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from flythrough import seeds
from flythrough.seeds import fold
from flythrough.training.loop import rank_and_world
from flythrough.training.photos import PhotoClips
from flythrough.training.refill import Videos, WorldVideos
from flythrough.worlds.paths import draw_paths, motion_words, path_poses

_STEEPEST = 0.25
_FARTHEST = 12.0
_ZOOM = (0.4, 0.85)
_VIEW = (45.0, 75.0)
_DISTANCE = (1.0, 6.0)
_SHORTER = 0.55


class PhotoPlanes:
    """(step, rank) -> clips of photographs, a pure function of (seed, step, rank).

    Args:
        photos: the pictures.
        seed: of photographs, planes and paths.
        frames, batch, size: shape of a clip (frames), clips a call, (height, width).
        turn: factor on the turns of the drawn paths; keeps the plane's horizon out of sight.
    """

    def __init__(
        self,
        photos: PhotoClips,
        seed: int,
        *,
        frames: int,
        batch: int,
        size: tuple[int, int],
        turn: float = 0.5,
    ) -> None:
        self.photos, self.seed, self.turn = photos, seed, turn
        self.frames, self.batch, self.size = frames, batch, size

    def __call__(self, step: int, rank: int) -> WorldVideos:
        device = self.photos.pixels.device
        index = step * rank_and_world()[1] + rank
        source = seeds.generator(self.seed, "photo-planes", index)

        def uniform(low: float, high: float) -> Tensor:
            draw = torch.rand(self.batch, generator=source, dtype=torch.float64)
            return (low + (high - low) * draw).to(device)

        distance = uniform(*_DISTANCE)
        paths = draw_paths(fold(self.seed, "photo-planes"), index, self.batch)
        calmer = replace(
            paths.scaled(torch.full((self.batch,), _SHORTER, dtype=torch.float64)),
            angles=paths.angles * self.turn,
        ).to(device)
        start = torch.eye(4, dtype=torch.float64, device=device).expand(self.batch, 4, 4)
        poses = path_poses(calmer, self.frames, start, distance)
        height, width = self.size
        focal = 0.5 * width / torch.tan(0.5 * torch.deg2rad(uniform(*_VIEW)))
        intrinsics = torch.zeros(self.batch, 3, 3, dtype=torch.float64, device=device)
        intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = focal
        intrinsics[:, 0, 2], intrinsics[:, 1, 2], intrinsics[:, 2, 2] = width / 2, height / 2, 1
        slant = torch.stack((uniform(-_STEEPEST, _STEEPEST), uniform(-_STEEPEST, _STEEPEST)), -1)
        normal = torch.cat((slant, torch.ones_like(slant[:, :1])), -1)
        depth, hit = _plane_hits(poses, intrinsics, normal, distance, self.size)
        zoom = uniform(*_ZOOM)
        centre = torch.stack((uniform(-1, 1), uniform(-1, 1)), -1) * (1 - zoom)[:, None]
        half = 0.5 * distance / focal
        extent = torch.stack((width * half, height * half), -1) / zoom[:, None]
        grid = hit[..., :2] / extent[:, None, None, None] + centre[:, None, None, None]
        which = torch.randint(len(self.photos), (self.batch,), generator=source).to(device)
        rgb = self._textured(which, grid.float())
        return WorldVideos(
            rgb=rgb,
            depth=depth.float(),
            valid=torch.ones_like(depth, dtype=torch.bool),
            world_from_camera=poses.float(),
            intrinsics=intrinsics.float()[:, None].expand(-1, self.frames, -1, -1),
            captions=tuple(f"A photograph. {motion_words(paths, i)}" for i in range(self.batch)),
        )

    def _textured(self, which: Tensor, grid: Tensor) -> Tensor:
        """Colours [B,3,T,H,W] at ``grid`` [B,T,H,W,2] of the chosen photographs."""
        photos = self.photos.pixels[which].float() / 255
        count, frames, height, width = grid.shape[:4]
        flat = grid.reshape(count, frames * height, width, 2)
        colours = functional.grid_sample(
            photos, flat, padding_mode="reflection", align_corners=False
        )
        return colours.view(count, 3, frames, height, width).clamp(0, 1)


def alternating(first: Videos, second: Videos, every: int) -> Videos:
    """``second`` at every ``every``-th step, else ``first``; each counts its own steps."""

    def draw(step: int, rank: int) -> WorldVideos:
        turns, place = divmod(step, every)
        if place == every - 1:
            return second(turns, rank)
        return first(turns * (every - 1) + place, rank)

    return draw


def _plane_hits(
    poses: Tensor, intrinsics: Tensor, normal: Tensor, distance: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """z-depth [B,T,H,W] and world points [B,T,H,W,3] where pixel rays meet each clip's plane.

    The plane passes through (0, 0, distance) with ``normal``; points are limited to a far depth.
    """
    height, width = size
    rows = torch.arange(height, device=poses.device, dtype=poses.dtype) + 0.5
    columns = torch.arange(width, device=poses.device, dtype=poses.dtype) + 0.5
    v, u = torch.meshgrid(rows, columns, indexing="ij")
    pixels = torch.stack((u, v, torch.ones_like(u)), -1)
    rays = torch.einsum("bij,hwj->bhwi", torch.linalg.inv(intrinsics), pixels)
    world = torch.einsum("btij,bhwj->bthwi", poses[..., :3, :3], rays)
    origin = poses[..., :3, 3]
    ahead = distance[:, None] * normal[:, 2:] - torch.einsum("btj,bj->bt", origin, normal)
    slope = torch.einsum("bthwj,bj->bthw", world, normal)
    far = _FARTHEST * distance[:, None, None, None]
    reach = ahead[..., None, None] / slope.clamp_min(1e-6)
    depth = torch.where(reach > 0, reach, far).minimum(far)
    return depth, origin[:, :, None, None] + depth[..., None] * world


__all__ = ["PhotoPlanes", "alternating"]
