"""First hits of rays: tiles of pixels against only the primitives that can appear in them.

Each primitive's bounding box is projected to a pixel rectangle (clipped at the near plane, so it
is conservative); the pairs (tile, primitive) that remain are intersected in groups of one shape.
The nearest hit is kept by an integer minimum over (depth bits, primitive), which does not depend
on the order of pairs: results are the same for every grouping.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flythrough.worlds.shapes import Triple, intersect
from flythrough.worlds.tables import FrameTables
from flythrough.worlds.world import PRIMITIVES

TILE = 16
_MISS = torch.iinfo(torch.int64).max


def rays_at_once(device: torch.device) -> int:
    """How many rays to hold: what the caches like on a CPU, what fills the chip on a GPU."""
    return 1 << 16 if device.type == "cpu" else 1 << 24


def _keep(buffer: Tensor, row: Tensor, t: Tensor, primitive: Tensor) -> None:
    """Lower ``buffer`` [R,n] at ``row`` [P] to the keys of hits ``t`` [P,n]."""
    bits = t.contiguous().view(torch.int32).to(torch.int64)
    key = bits.bitwise_left_shift_(32).bitwise_or_(primitive[:, None])
    key.masked_fill_(t.isinf(), _MISS)
    buffer.scatter_reduce_(0, row[:, None].expand_as(key), key, "amin")


def unpack(buffer: Tensor) -> tuple[Tensor, Tensor]:
    """Keys -> (depth float32 with ``inf`` for a miss, primitive int64 with -1 for a miss)."""
    missed = buffer == _MISS
    depth = (buffer >> 32).to(torch.int32).view(torch.float32)
    primitive = buffer & (PRIMITIVES - 1)
    return depth.masked_fill(missed, torch.inf), primitive.masked_fill(missed, -1)


def _local(tables: FrameTables, pair: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of the flattened (frame, primitive) tables: [3,3,P] directions and [3,P] origins."""
    direction = tables.direction.view(-1, 9).index_select(0, pair)
    origin = tables.origin.view(-1, 3).index_select(0, pair)
    return direction.T.reshape(3, 3, -1).contiguous(), origin.T.contiguous()


def _tile_pairs(tables: FrameTables, shape: int, rows: int, columns: int) -> Tensor:
    """Indices (frame, primitive, tile row, tile column) of the pairs of one shape, [4,P]."""
    bounds = torch.nan_to_num(tables.bounds / TILE, nan=0.0, posinf=1e6, neginf=-1e6).floor()
    across = torch.arange(columns, device=bounds.device)
    down = torch.arange(rows, device=bounds.device)
    left, top, right, bottom = (bounds[..., i, None] for i in range(4))
    seen = (tables.shape == shape)[..., None]
    in_x = (across >= left) & (across <= right) & seen
    in_y = (down >= top) & (down <= bottom)
    return (in_y[..., :, None] & in_x[..., None, :]).nonzero().T


def cast_tiles(tables: FrameTables) -> tuple[Tensor, Tensor]:
    """First hits of all pixel centres: (depth, primitive), each [F, rows * columns, TILE * TILE].

    Tiles cover the image padded to multiples of TILE, row by row.
    """
    height, width = tables.size
    rows, columns = -(-height // TILE), -(-width // TILE)
    device = tables.world.device
    tiles = tables.frames * rows * columns
    buffer = torch.full((tiles, TILE * TILE), _MISS, dtype=torch.int64, device=device)
    line = torch.arange(TILE, device=device, dtype=torch.float32) + 0.5
    group = rays_at_once(device) // (TILE * TILE)
    for shape in tables.shapes_present:
        pairs = _tile_pairs(tables, shape, rows, columns)
        for start in range(0, pairs.shape[1], group):
            frame, primitive, row, column = pairs[:, start : start + group]
            matrix, origin = _local(tables, frame * PRIMITIVES + primitive)
            x, y = (column * TILE).to(torch.float32), (row * TILE).to(torch.float32)

            def axis(i: int, m: Tensor = matrix, x: Tensor = x, y: Tensor = y) -> Tensor:
                base = m[i, 0] * x + m[i, 1] * y + m[i, 2]
                along = m[i, 0][:, None] * line
                down = base[:, None] + m[i, 1][:, None] * line
                return (down[:, :, None] + along[:, None, :]).view(-1, TILE * TILE)

            o: Triple = (origin[0][:, None], origin[1][:, None], origin[2][:, None])
            t = intersect(shape, o, (axis(0), axis(1), axis(2)))
            _keep(buffer, (frame * rows + row) * columns + column, t, primitive)
    depth, primitive = unpack(buffer)
    view = (tables.frames, rows * columns, TILE * TILE)
    return depth.view(view), primitive.view(view)


def untile(values: Tensor, size: tuple[int, int]) -> Tensor:
    """[...,rows * columns, TILE * TILE] -> [...,H,W], the padding cut off."""
    height, width = size
    rows, columns = -(-height // TILE), -(-width // TILE)
    lead = values.shape[:-2]
    image = values.reshape(*lead, rows, columns, TILE, TILE).transpose(-3, -2)
    return image.reshape(*lead, rows * TILE, columns * TILE)[..., :height, :width]


def cast_points(tables: FrameTables, frame: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """First hits of groups of free rays: ``frame`` [R] int64, pixels ``u``, ``v`` [R,n] float32.

    Returns (depth [R,n], primitive [R,n]). Primitives whose rectangle holds no ray of a group are
    left out; rays may lie outside the image.
    """
    buffer = torch.full(u.shape, _MISS, dtype=torch.int64, device=u.device)
    low_u, high_u = u.amin(1, keepdim=True), u.amax(1, keepdim=True)
    low_v, high_v = v.amin(1, keepdim=True), v.amax(1, keepdim=True)
    bounds = tables.bounds.index_select(0, frame)
    shapes = tables.shape.index_select(0, frame)
    near = (bounds[..., 0] <= high_u) & (bounds[..., 2] >= low_u)
    near &= (bounds[..., 1] <= high_v) & (bounds[..., 3] >= low_v)
    near |= (shapes == 1) | (shapes == 2)  # rooms and grounds have no outline
    group = max(rays_at_once(u.device) // u.shape[1], 1)
    for shape in tables.shapes_present:
        pairs = (near & (shapes == shape)).nonzero().T
        for start in range(0, pairs.shape[1], group):
            row, primitive = pairs[:, start : start + group]
            matrix, origin = _local(tables, frame[row] * PRIMITIVES + primitive)
            pu, pv = u.index_select(0, row), v.index_select(0, row)
            d = [
                torch.addcmul(m[2][:, None], m[0][:, None], pu).addcmul_(m[1][:, None], pv)
                for m in matrix
            ]
            o: Triple = (origin[0][:, None], origin[1][:, None], origin[2][:, None])
            t = intersect(shape, o, (d[0], d[1], d[2]))
            _keep(buffer, row, t, primitive)
    return unpack(buffer)
