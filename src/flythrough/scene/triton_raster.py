"""Triton kernels that draw grid meshes into all frames at once; the plain twin is ``raster.splat``.

Every sample of every cell is projected in registers and offered to its pixel as one 64-bit key,
the bits of its depth above its inverted number: the smallest key is the nearest sample, among
equals the last, whatever the order of arrival. A second pass reads the winners' colours back.
Nothing is laid out in memory and the host learns nothing.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from flythrough.scene.raster import NEAR, Splat

if TYPE_CHECKING:
    from flythrough.scene.mesh_draw import Part

_NOTHING = 2**63 - 1
_BLOCK, _PIXELS = 128, 256
_INFINITE = tl.constexpr(0x7F800000)  # bits of the largest depth; the empty key lies above
_LOW = tl.constexpr(0xFFFFFFFF)


@triton.jit
def _rounded(value):
    """To the nearest whole number, halves to the even one, as torch rounds."""
    below = tl.floor(value)
    rest = value - below
    odd = below - 2.0 * tl.floor(below * 0.5) == 1.0
    return tl.where((rest > 0.5) | ((rest == 0.5) & odd), below + 1.0, below)


@triton.jit
def _corners(grid, corner, line, step, inside):
    """Values at the four corners of cells; ``line`` and ``step`` lead down and right."""
    a = tl.load(grid + corner, mask=inside, other=0.0)
    b = tl.load(grid + corner + step, mask=inside, other=0.0)
    c = tl.load(grid + corner + line, mask=inside, other=0.0)
    d = tl.load(grid + corner + line + step, mask=inside, other=0.0)
    return a, b, c, d


@triton.jit
def _between(a, b, c, d, u, v):
    top = a * (1.0 - u) + b * u
    bottom = c * (1.0 - u) + d * u
    return top * (1.0 - v) + bottom * v


@triton.jit(do_not_specialize=["base"])
def _offer(  # noqa: PLR0913, PLR0917
    points,
    whole,
    cameras,
    keys,
    base,
    cells,
    across,
    height,
    width,
    near,
    PER_AXIS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    cell = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    frame = tl.program_id(1)
    inside = cell < cells
    inside = inside & (tl.load(whole + cell, mask=inside, other=0) != 0)
    row, column = cell // across, cell % across
    corner, line = (row * (across + 1) + column) * 3, (across + 1) * 3
    xa, xb, xc, xd = _corners(points, corner, line, 3, inside)
    ya, yb, yc, yd = _corners(points + 1, corner, line, 3, inside)
    za, zb, zc, zd = _corners(points + 2, corner, line, 3, inside)
    camera = cameras + frame * 16
    px, py, pz = tl.load(camera), tl.load(camera + 1), tl.load(camera + 2)
    r00, r01, r02 = tl.load(camera + 3), tl.load(camera + 4), tl.load(camera + 5)
    r10, r11, r12 = tl.load(camera + 6), tl.load(camera + 7), tl.load(camera + 8)
    r20, r21, r22 = tl.load(camera + 9), tl.load(camera + 10), tl.load(camera + 11)
    fx, fy = tl.load(camera + 12), tl.load(camera + 13)
    cx, cy = tl.load(camera + 14), tl.load(camera + 15)
    picture = keys + frame.to(tl.int64) * height * width
    index = base + cell.to(tl.int64)
    for number in range(PER_AXIS * PER_AXIS):
        u = (number % PER_AXIS + 0.5) / PER_AXIS
        v = (number // PER_AXIS + 0.5) / PER_AXIS
        dx = _between(xa, xb, xc, xd, u, v) - px
        dy = _between(ya, yb, yc, yd, u, v) - py
        dz = _between(za, zb, zc, zd, u, v) - pz
        x = dx * r00 + dy * r10 + dz * r20
        y = dx * r01 + dy * r11 + dz * r21
        z = dx * r02 + dy * r12 + dz * r22
        at_x = _rounded(tl.div_rn(fx * x, z) + cx)
        at_y = _rounded(tl.div_rn(fy * y, z) + cy)
        hit = inside & (z > near) & (at_x >= 0) & (at_x < width) & (at_y >= 0) & (at_y < height)
        # A plain 0 keeps the conversion of what is not hit defined.
        place = tl.where(hit, at_y, 0.0).to(tl.int32) * width + tl.where(hit, at_x, 0.0).to(
            tl.int32
        )
        key = (z.to(tl.int32, bitcast=True).to(tl.int64) << 32) | (_LOW - index)
        tl.atomic_min(picture + place, key, mask=hit, sem="relaxed")
        index += cells


@triton.jit(do_not_specialize=["base", "part"])
def _read(  # noqa: PLR0913, PLR0917
    keys,
    colours,
    rgb,
    depth,
    seen,
    source_xy,
    source,
    base,
    part,
    count,
    cells,
    across,
    plane,
    total,
    PER_AXIS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    key = tl.load(keys + place, mask=place < total, other=9223372036854775807)
    bits = key >> 32
    index = (_LOW - (key & _LOW)) - base
    mine = (bits <= _INFINITE) & (index >= 0) & (index < count)
    index = tl.where(mine, index, 0).to(tl.int32)
    number, cell = index // cells, index % cells
    row, column = cell // across, cell % across
    u = ((number % PER_AXIS).to(tl.float32) + 0.5) / PER_AXIS
    v = ((number // PER_AXIS).to(tl.float32) + 0.5) / PER_AXIS
    corner = row * (across + 1) + column
    for channel in tl.static_range(3):
        a, b, c, d = _corners(colours + channel * plane, corner, across + 1, 1, mine)
        tl.store(rgb + place * 3 + channel, _between(a, b, c, d, u, v), mask=mine)
    tl.store(depth + place, bits.to(tl.int32).to(tl.float32, bitcast=True), mask=mine)
    tl.store(seen + place, (place * 0 + 1).to(tl.uint8), mask=mine)
    tl.store(source_xy + place * 2, column.to(tl.float32) + u, mask=mine)
    tl.store(source_xy + place * 2 + 1, row.to(tl.float32) + v, mask=mine)
    tl.store(source + place, (place * 0 + 1) * part, mask=mine)


def draw_grids(
    parts: Sequence[Part], world_from_camera: Tensor, intrinsics: Tensor, size: tuple[int, int]
) -> Splat:
    """As ``splat(joined([part.mesh.sampled(part.per_axis) ...]), ...)``, without their memory.

    Products and sums are rounded one by one, so that a sample misses the pixel it has there only
    by the rounding of a matrix product.

    Args:
        parts: float32 meshes on one device, fewer than 2^32 samples together.
        world_from_camera: [T,4,4]; intrinsics: [T,3,3] in pixels of ``size`` = (height, width).
    """
    shape = (len(world_from_camera), *size)
    keys = torch.full(shape, _NOTHING, dtype=torch.int64, device=world_from_camera.device)
    bases, count = [], 0
    for mesh, per_axis, _ in parts:
        bases.append(count)
        count += mesh.whole.numel() * per_axis**2
    found = Splat(
        rgb=keys.new_zeros((*shape, 3), dtype=torch.float32),
        depth=keys.new_zeros(shape, dtype=torch.float32),
        seen=keys.new_zeros(shape, dtype=torch.bool),
        source_xy=keys.new_zeros((*shape, 2), dtype=torch.float32),
        source=keys.new_zeros(shape),
    )
    cameras = _rows(world_from_camera, intrinsics)
    with torch.cuda.device_of(keys):  # Triton takes the current one
        for part, base in zip(parts, bases, strict=True):
            _offered(part, base, cameras, keys)
        for number, (part, base) in enumerate(zip(parts, bases, strict=True)):
            _read_back(part, base, number, keys, found)
    return found


def _offered(part: Part, base: int, cameras: Tensor, keys: Tensor) -> None:
    """All samples of a mesh into the keys [T,H,W]."""
    points, whole = part.mesh.points, part.mesh.whole
    frames, height, width = keys.shape
    _offer[(triton.cdiv(whole.numel(), _BLOCK), frames)](
        points.contiguous(),
        whole.contiguous().view(torch.uint8),
        cameras,
        keys,
        base,
        whole.numel(),
        whole.shape[1],
        height,
        width,
        NEAR,
        PER_AXIS=part.per_axis,
        BLOCK=_BLOCK,
        num_warps=4,
        enable_fp_fusion=False,
    )


def _read_back(part: Part, base: int, number: int, keys: Tensor, found: Splat) -> None:
    """What the mesh's own winners show, into ``found``."""
    whole, colours = part.mesh.whole, part.mesh.colours
    _read[(triton.cdiv(keys.numel(), _PIXELS),)](
        keys,
        colours.permute(2, 0, 1).float().contiguous(),
        found.rgb,
        found.depth,
        found.seen.view(torch.uint8),
        found.source_xy,
        found.source,
        base,
        number,
        whole.numel() * part.per_axis**2,
        whole.numel(),
        whole.shape[1],
        colours.shape[0] * colours.shape[1],
        keys.numel(),
        PER_AXIS=part.per_axis,
        BLOCK=_PIXELS,
        num_warps=4,
        enable_fp_fusion=False,
    )


def _rows(world_from_camera: Tensor, intrinsics: Tensor) -> Tensor:
    """[T,16] float32: position, rotation row by row, focal lengths, principal point less 0.5."""
    pose, matrix = world_from_camera.float(), intrinsics.float()
    focal = torch.stack((matrix[:, 0, 0], matrix[:, 1, 1]), dim=1)
    centre = torch.stack((matrix[:, 0, 2], matrix[:, 1, 2]), dim=1) - 0.5
    return torch.cat((pose[:, :3, 3], pose[:, :3, :3].flatten(1), focal, centre), 1).contiguous()
