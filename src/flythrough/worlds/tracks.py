"""Exact correspondences between frames: where a surface point goes, and whether it is seen."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flythrough.errors import InputError
from flythrough.worlds.casting import cast_points, rays_at_once
from flythrough.worlds.motion import compose, rest_to_time, rigid_inverse
from flythrough.worlds.render import Frames
from flythrough.worlds.tables import frame_tables, inverse_intrinsics

_RELATIVE = 2e-4  # float32 depth of a grazing hit, with room to spare
_ABSOLUTE = 2e-3  # metres


@dataclass(frozen=True, eq=False)
class Correspondence:
    """Where every pixel of the source frame lands in the target frame.

    ``pixels`` [B,2,H,W] float32 (x, y) in target pixels, centres at half-integers; ``depth``
    [B,H,W] float32 z-depth there (negative: behind the camera; for sky, the sign only); ``inside``
    [B,H,W] bool: in front of the target camera and within its image.
    """

    pixels: Tensor
    depth: Tensor
    inside: Tensor


def _check(frames: Frames, *indices: int) -> None:
    count = frames.times.shape[1]
    for index in indices:
        if not 0 <= index < count:
            raise InputError(
                f"frame {index} was asked for, but the frames run from 0 to {count - 1}; choose "
                "one of these."
            )


def pixel_centres(size: tuple[int, int], device: torch.device) -> Tensor:
    """Homogeneous pixel centres (u, v, 1), [3,H*W] float64."""
    y, x = torch.meshgrid(
        torch.arange(size[0], device=device, dtype=torch.float64) + 0.5,
        torch.arange(size[1], device=device, dtype=torch.float64) + 0.5,
        indexing="ij",
    )
    return torch.stack((x.reshape(-1), y.reshape(-1), torch.ones_like(x).reshape(-1)))


def correspondence(frames: Frames, source: int, target: int) -> Correspondence:
    """Follow the surface points seen in frame ``source`` to frame ``target``.

    Points of movers move with their object; sky moves as if infinitely far away. Raises InputError
    for a frame number out of range.
    """
    _check(frames, source, target)
    count, (height, width) = len(frames.worlds), frames.size
    rays = inverse_intrinsics(frames.intrinsics[:, source]) @ pixel_centres(
        frames.size, frames.depth.device
    )
    sky = frames.sky[:, source].reshape(count, 1, -1)
    depth = frames.depth[:, source].reshape(count, 1, -1).to(torch.float64)
    points = rays * torch.where(sky, 1.0, depth)
    moving = rest_to_time(frames.worlds, frames.times)
    step = compose(moving[:, target], rigid_inverse(moving[:, source]))  # [B,K,3,4]
    camera = frames.world_from_camera[:, :, :3]
    here, there = camera[:, source], rigid_inverse(camera[:, target])
    full = compose(there[:, None], compose(step, here[:, None]))  # target camera from source camera
    still = compose(there, here)
    ids = frames.ids[:, source].reshape(count, -1)
    own = torch.gather(
        full.reshape(count, -1, 12), 1, ids.clamp(min=0)[..., None].expand(-1, -1, 12)
    )
    own = torch.where((ids >= 0)[..., None], own, still.reshape(count, 1, 12))
    own = own.reshape(count, -1, 3, 4)
    shift = torch.where(sky[:, 0, :, None], 0.0, own[..., 3])
    landed = (own[..., :3] * points.transpose(1, 2)[:, :, None]).sum(-1) + shift
    z = landed[..., 2]
    safe = torch.where(z.abs() < 1e-9, 1e-9, z)
    image = frames.intrinsics[:, target] @ (landed / safe[..., None]).transpose(1, 2)
    x, y = image[:, 0], image[:, 1]
    inside = (z > 0) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return Correspondence(
        pixels=image[:, :2].reshape(count, 2, height, width).to(torch.float32),
        depth=z.reshape(count, height, width).to(torch.float32),
        inside=inside.reshape(count, height, width),
    )


def flow(frames: Frames, source: int, target: int) -> Tensor:
    """Pixel displacement [B,2,H,W] float32 (x, y) from frame ``source`` to ``target``.

    Camera and object motion together; values outside the image or behind the camera are still
    returned (see :func:`correspondence` for the mask).
    """
    found = correspondence(frames, source, target)
    start = pixel_centres(frames.size, frames.depth.device)[:2].reshape(1, 2, *frames.size)
    return (found.pixels.to(torch.float64) - start).to(torch.float32)


def visibility(frames: Frames, source: int, target: int) -> Tensor:
    """Whether the point seen at each pixel of ``source`` is seen in ``target``: [B,H,W] bool.

    A ray is cast from the target camera through the exact (sub-pixel) position of the point; the
    point is visible if it lies in the image and nothing stands before it. Sky is visible where the
    ray of the same direction meets sky.
    """
    found = correspondence(frames, source, target)
    count, size = len(frames.worlds), frames.size
    device = frames.depth.device
    tables = frame_tables(
        frames.worlds,
        frames.world_from_camera[:, target, None],
        frames.intrinsics[:, target, None],
        frames.times[:, target, None],
        size,
    )
    wanted = found.inside.reshape(count, -1)
    world, pixel = wanted.nonzero(as_tuple=True)
    x = found.pixels[:, 0].reshape(count, -1)[world, pixel]
    y = found.pixels[:, 1].reshape(count, -1)[world, pixel]
    depth = found.depth.reshape(count, -1)[world, pixel]
    sky = frames.sky[:, source].reshape(count, -1)[world, pixel]
    seen = torch.zeros_like(wanted)
    group = rays_at_once(device) // 4
    for start in range(0, world.shape[0], group):
        part = slice(start, start + group)
        t, _ = cast_points(tables, world[part], x[part, None], y[part, None])
        nearest = t[:, 0]
        limit = depth[part] * (1 - _RELATIVE) - _ABSOLUTE
        clear = torch.where(sky[part], nearest.isinf(), nearest >= limit)
        seen[world[part], pixel[part]] = clear
    return seen.reshape(count, *size)


__all__ = ["Correspondence", "correspondence", "flow", "pixel_centres", "visibility"]
