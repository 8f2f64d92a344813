"""Render worlds: rgb, depth, sky, normals and primitive ids for B worlds times T cameras."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from flythrough.errors import InputError
from flythrough.worlds.casting import TILE, cast_points, cast_tiles, rays_at_once, untile
from flythrough.worlds.shading import ShadingTables, shade, shading_tables
from flythrough.worlds.shadows import shadow_maps
from flythrough.worlds.tables import FrameTables, frame_tables
from flythrough.worlds.textures import TextureAtlas, texture_atlas
from flythrough.worlds.world import SKY_DEPTH, World, WorldBatch, as_batch

OUTPUTS = ("rgb", "depth", "normals", "ids")
_CORNERS = ((-0.125, -0.375), (0.375, -0.125), (-0.375, 0.125), (0.125, 0.375))


@dataclass(frozen=True, eq=False)
class Frames:
    """Rendered frames of B worlds and T cameras; parts that were not asked for are None.

    ``rgb`` [B,T,3,H,W] float32 in [0,1]; ``depth`` [B,T,H,W] float32 z-depth in metres, SKY_DEPTH
    where ``sky`` [B,T,H,W] bool; ``normals`` [B,T,3,H,W] float32 world frame, unit (0 for sky);
    ``ids`` [B,T,H,W] int64 primitive slots, -1 for sky. The cameras, intrinsics and times that made
    them, and the worlds, are kept for exact flow and visibility.
    """

    rgb: Tensor | None
    depth: Tensor
    sky: Tensor
    normals: Tensor | None
    ids: Tensor
    worlds: WorldBatch
    world_from_camera: Tensor
    intrinsics: Tensor
    times: Tensor

    @property
    def size(self) -> tuple[int, int]:
        return int(self.depth.shape[-2]), int(self.depth.shape[-1])

    def median_depth(self, frame: int = 0) -> Tensor:
        """Median z-depth [B] of what is not sky in one frame."""
        depth = (
            self.depth[:, frame].flatten(1).masked_fill(self.sky[:, frame].flatten(1), torch.nan)
        )
        return torch.nan_to_num(depth.nanmedian(1).values, nan=10.0)


def _checked(
    batch: WorldBatch, world_from_camera: Tensor, intrinsics: Tensor, times: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    count, device = len(batch), batch.device
    if world_from_camera.ndim == 3 and count == 1:
        world_from_camera = world_from_camera[None]
    shape = tuple(world_from_camera.shape)
    if len(shape) != 4 or shape[0] != count or shape[2:] != (4, 4):
        raise InputError(
            f"world_from_camera has shape {shape}, but [{count},T,4,4] is needed for {count} "
            "world(s); give one list of cameras for each world."
        )
    frames = shape[1]
    try:
        intrinsics = intrinsics.expand(count, frames, 3, 3)
        if times is None:
            times = torch.arange(frames, dtype=torch.float64) / 16.0
        times = times.to(device, torch.float64).expand(count, frames)
    except RuntimeError:
        raise InputError(
            f"intrinsics {tuple(intrinsics.shape)} or times do not fit {count} world(s) of "
            f"{frames} frames; give [3,3] or [{count},{frames},3,3] and [{count},{frames}]."
        ) from None
    world_from_camera = world_from_camera.to(device, torch.float64)
    return world_from_camera, intrinsics.to(device, torch.float64), times


def _pixels(size: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Tile-ordered pixel centres u, v, each [tiles, TILE * TILE]."""
    rows, columns = -(-size[0] // TILE), -(-size[1] // TILE)
    y = torch.arange(rows * TILE, device=device, dtype=torch.float32) + 0.5
    x = torch.arange(columns * TILE, device=device, dtype=torch.float32) + 0.5
    v, u = torch.meshgrid(y, x, indexing="ij")
    shape = (rows, TILE, columns, TILE)
    return (
        u.view(shape).transpose(1, 2).reshape(rows * columns, -1),
        v.view(shape).transpose(1, 2).reshape(rows * columns, -1),
    )


def _edges(face: Tensor) -> Tensor:
    """Pixels whose face differs from a neighbour's, [F,H,W] bool."""
    across = face[:, :, 1:] != face[:, :, :-1]
    down = face[:, 1:] != face[:, :-1]
    edge = torch.zeros_like(face, dtype=torch.bool)
    edge[:, :, 1:] |= across
    edge[:, :, :-1] |= across
    edge[:, 1:] |= down
    edge[:, :-1] |= down
    return edge


def _smooth_edges(
    tables: FrameTables, shading: ShadingTables, rgb: Tensor, face: Tensor, first: int
) -> None:
    """Replace ``rgb`` [F,3,H,W] at edges by the mean of four samples, in place."""
    frame, row, column = _edges(face).nonzero(as_tuple=True)
    group = rays_at_once(rgb.device) // 8
    offsets = torch.tensor(_CORNERS, device=rgb.device)
    for start in range(0, frame.shape[0], group):
        part = slice(start, start + group)
        f, y, x = frame[part], row[part], column[part]
        u = (x.to(torch.float32) + 0.5)[:, None] + offsets[:, 0]
        v = (y.to(torch.float32) + 0.5)[:, None] + offsets[:, 1]
        depth, primitive = cast_points(tables, f + first, u, v)
        colour = shade(
            shading,
            (f + first)[:, None].expand_as(u).reshape(-1),
            depth.view(-1, 1),
            primitive.view(-1, 1),
            u.reshape(-1, 1),
            v.reshape(-1, 1),
        ).rgb
        for i in range(3):
            rgb[f, i, y, x] = colour[i].view(-1, 4).mean(1)


def _colours(
    tables: FrameTables,
    shading: ShadingTables,
    hits: tuple[Tensor, Tensor],
    outputs: set[str],
    antialias: bool,
) -> tuple[Tensor, Tensor | None]:
    """Shade all frames in groups: rgb [F,3,H,W] and, if asked for, normals [F,3,H,W]."""
    size, device = tables.size, tables.world.device
    rgb = torch.empty(tables.frames, 3, *size, device=device)
    normals = torch.empty_like(rgb) if "normals" in outputs else None
    u, v = _pixels(size, device)
    depth, primitive = hits
    tiles = depth.shape[1]
    group = max(rays_at_once(device) // 2 // (tiles * TILE * TILE), 1)
    flat_u, flat_v = u.reshape(1, -1), v.reshape(1, -1)
    for start in range(0, tables.frames, group):
        part = slice(start, min(start + group, tables.frames))
        frame = torch.arange(part.start, part.stop, device=device)
        found = shade(
            shading, frame, depth[part].flatten(1), primitive[part].flatten(1), flat_u, flat_v
        )

        def image(values: Tensor, count: int = len(frame)) -> Tensor:
            return untile(values.view(count, tiles, TILE * TILE), size)

        for i in range(3):
            rgb[part, i] = image(found.rgb[i])
            if normals is not None:
                normals[part, i] = image(found.normal[i])
        if antialias:
            _smooth_edges(tables, shading, rgb[part], image(found.face), start)
    return rgb, normals


def _check_outputs(outputs: Iterable[str], supersample: int) -> set[str]:
    wanted = set(outputs)
    unknown = wanted - set(OUTPUTS)
    if unknown or supersample < 1:
        raise InputError(
            f"outputs {sorted(unknown)} and supersample {supersample} were asked for, but outputs "
            f"are among {', '.join(OUTPUTS)} and supersample is 1 or more; change the request."
        )
    return wanted


def render(
    worlds: World | WorldBatch,
    world_from_camera: Tensor,
    intrinsics: Tensor,
    size: tuple[int, int],
    times: Tensor | None = None,
    *,
    outputs: Iterable[str] = OUTPUTS,
    supersample: int = 1,
    antialias: bool = True,
    atlas: TextureAtlas | None = None,
) -> Frames:
    """Render B worlds from T cameras each, on the worlds' device.

    ``world_from_camera`` [B,T,4,4] (or [T,4,4] for one world), OpenCV axes, metres;
    ``intrinsics`` [B,T,3,3] or [3,3] in pixels of ``size`` = (height, width), pixel centres at
    half-integers; ``times`` [B,T] seconds (default: frames at 16 a second) move the movers.
    ``outputs`` chooses among rgb, normals (depth, sky and ids always come). ``antialias`` takes
    four extra samples at pixels on object outlines; ``supersample`` = s renders rgb from an s
    times finer image instead. Depth, ids and normals are exact at pixel centres.
    Raises InputError for shapes that do not fit, an unknown output or ``supersample`` < 1.
    """
    batch = as_batch(worlds)
    wanted = _check_outputs(outputs, supersample)
    cameras, k, moments = _checked(batch, world_from_camera, intrinsics, times)
    count, frames = moments.shape
    tables = frame_tables(batch, cameras, k, moments, size)
    hits = cast_tiles(tables)
    rgb = normals = None
    if wanted & {"rgb", "normals"}:
        used = atlas if atlas is not None else texture_atlas(device=batch.device)
        shadows = shadow_maps(batch)
        shading = shading_tables(batch, tables, moments, shadows, used)
        rgb, normals = _colours(tables, shading, hits, wanted, antialias and supersample == 1)
        if supersample > 1 and "rgb" in wanted:
            fine_k = k.clone()
            fine_k[..., :2, :] *= supersample
            fine = frame_tables(
                batch, cameras, fine_k, moments, (size[0] * supersample, size[1] * supersample)
            )
            shading = shading_tables(batch, fine, moments, shadows, used)
            rgb, _ = _colours(fine, shading, cast_tiles(fine), {"rgb"}, False)
            rgb = torch.nn.functional.avg_pool2d(rgb, supersample)
    depth = untile(hits[0], size).view(count, frames, *size)
    sky = depth.isinf()
    return Frames(
        rgb=rgb.view(count, frames, 3, *size) if rgb is not None and "rgb" in wanted else None,
        depth=depth.masked_fill(sky, SKY_DEPTH),
        sky=sky,
        normals=None if normals is None else normals.view(count, frames, 3, *size),
        ids=untile(hits[1], size).view(count, frames, *size),
        worlds=batch,
        world_from_camera=cameras,
        intrinsics=k,
        times=moments,
    )
