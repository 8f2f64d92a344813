"""The nearest surface per pixel of points and triangles seen by one camera at the origin."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

_PAIRS = 1 << 20  # triangle-pixel pairs looked at together
_FACES = 1 << 20
_LARGE = 1 << 12  # pixels of a box from which on a triangle is drawn by itself
_NEAR = 1e-6  # of the largest depth: what is nearer has no place in a picture
_FLAT = 1e-12
_INSIDE = -1e-9  # lets neighbouring triangles share the pixels of their common edge


def nearest_points(points: Tensor, matrix: Tensor, size: tuple[int, int]) -> Tensor:
    """z-depth [H,W] of the nearest point in each pixel, 0 where there is none.

    Args:
        points: [M,3] in the camera's frame, OpenCV axes.
        matrix: [3,3] in pixels of ``size``, pixel centres at half-integers.
    """
    height, width = size
    points, matrix = points.double(), matrix.double()
    x, y, z = points.unbind(-1)
    front = z > _nearest_allowed(z)
    x, y, z = x[front], y[front], z[front]
    column = (matrix[0, 0] * x / z + matrix[0, 2]).floor()
    row = (matrix[1, 1] * y / z + matrix[1, 2]).floor()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    pixel = row[inside].long() * width + column[inside].long()
    depth = z.new_full((height * width,), torch.inf)
    depth.scatter_reduce_(0, pixel, z[inside], "amin")
    return _known(depth).view(height, width)


def nearest_triangles(corners: Tensor, matrix: Tensor, size: tuple[int, int]) -> Tensor:
    """z-depth [H,W] of the nearest triangle at each pixel centre, 0 where there is none.

    Exact, from both sides, and without clipping: a ray r hits the plane of the corners C (columns)
    at barycentric coordinates proportional to C^-1 r, whose sum is 1/depth when r has z = 1 (Olano
    and Greer, "Triangle Scan Conversion using 2D Homogeneous Coordinates", 1997).

    Args:
        corners: [F,3,3], three points each, in the camera's frame, OpenCV axes.
        matrix: [3,3] in pixels of ``size``, pixel centres at half-integers.
    """
    height, width = size
    matrix = matrix.double()
    depth = matrix.new_full((height, width), torch.inf)
    near = _nearest_allowed(corners[..., 2].double())
    x = (torch.arange(width).to(matrix) + 0.5 - matrix[0, 2]) / matrix[0, 0]
    y = (torch.arange(height).to(matrix) + 0.5 - matrix[1, 2]) / matrix[1, 1]
    for some in corners.split(_FACES):
        inverse, boxes = _prepared(some.double(), matrix, size, near)
        large = boxes[:, 2] * boxes[:, 3] >= _LARGE
        small = inverse[~large]
        for face, row, column in _candidates(boxes[~large]):
            found = _depth_at(small[face], x[column], y[row], near)
            depth.view(-1).scatter_reduce_(0, row * width + column, found, "amin")
        for own, box in zip(inverse[large], boxes[large].tolist(), strict=True):
            rows, columns = slice(box[0], box[0] + box[2]), slice(box[1], box[1] + box[3])
            found = _depth_at(own, x[columns], y[rows, None], near)
            depth[rows, columns] = torch.minimum(depth[rows, columns], found)
    return _known(depth)


def _depth_at(inverse: Tensor, x: Tensor, y: Tensor, near: Tensor) -> Tensor:
    """Depth at which rays (x, y, 1) hit triangles of inverse corner matrices [...,3,3], infinite
    where they miss; rays and leading axes of ``inverse`` broadcast."""
    a, b, c = (row[..., 0] * x + (row[..., 1] * y + row[..., 2]) for row in inverse.unbind(-2))
    total = a + b + c
    least = torch.minimum(torch.minimum(a, b), c)
    hit = (total > 0) & (least >= _INSIDE * total) & (total < 1 / near)
    return torch.where(hit, 1 / total, torch.inf)


def _prepared(
    corners: Tensor, matrix: Tensor, size: tuple[int, int], near: Tensor
) -> tuple[Tensor, Tensor]:
    """Inverse corner matrices [F',3,3] and pixel boxes [F',4] (row, column, rows, columns) of the
    triangles that may be seen."""
    a, b, c = corners.unbind(1)
    normals = torch.stack((b.cross(c, dim=-1), c.cross(a, dim=-1), a.cross(b, dim=-1)), dim=1)
    volume = (a * normals[:, 0]).sum(-1)
    scale = a.norm(dim=-1) * b.norm(dim=-1) * c.norm(dim=-1)
    boxes = _boxes(corners, matrix, size, near)
    use = (volume.abs() > _FLAT * scale) & (boxes[:, 2] > 0) & (boxes[:, 3] > 0)
    return normals[use] / volume[use, None, None], boxes[use]


def _boxes(corners: Tensor, matrix: Tensor, size: tuple[int, int], near: Tensor) -> Tensor:
    """Pixels whose centres the part of each triangle beyond ``near`` can cover: [F,4] int64."""
    ends = corners.roll(-1, dims=1)
    z, far_z = corners[..., 2], ends[..., 2]
    crossing = (z > near) != (far_z > near)
    share = torch.where(crossing, (near - z) / torch.where(crossing, far_z - z, 1.0), 0.0)
    cut = corners + share[..., None] * (ends - corners)
    points = torch.cat((corners, cut), dim=1)
    counts = torch.cat((z > near, crossing), dim=1)
    depth = torch.where(counts, points[..., 2], 1.0).clamp_min(near)
    limits = []
    for axis, side in ((1, size[0]), (0, size[1])):
        at = matrix[axis, axis] * points[..., axis] / depth + matrix[axis, 2] - 0.5
        first = torch.where(counts, at, torch.inf).amin(1).ceil().clamp(0, side)
        last = torch.where(counts, at, -torch.inf).amax(1).floor().clamp(-1, side - 1)
        limits.append((first.long(), (last - first + 1).clamp_min(0).long()))
    (row, rows), (column, columns) = limits
    return torch.stack((row, column, rows, columns), dim=-1)


def _candidates(boxes: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Every triangle with every pixel of its box: index, row and column, a portion at a time."""
    areas = boxes[:, 2] * boxes[:, 3]
    ends = areas.cumsum(0)
    start = 0
    while start < len(boxes):
        begun = int(ends[start - 1]) if start else 0
        stop = int(torch.searchsorted(ends, begun + _PAIRS, right=True))
        stop = max(stop, start + 1)
        area = areas[start:stop]
        face = torch.arange(start, stop, device=boxes.device).repeat_interleave(area)
        first = (ends[start:stop] - area - begun).repeat_interleave(area)
        place = torch.arange(len(face), device=boxes.device) - first
        row, column, _, columns = boxes[face].unbind(-1)
        yield face, row + place // columns, column + place % columns
        start = stop


def _nearest_allowed(z: Tensor) -> Tensor:
    largest = z.amax() if z.numel() else z.new_zeros(())
    return (_NEAR * largest).clamp_min(1e-30)


def _known(depth: Tensor) -> Tensor:
    return torch.where(torch.isfinite(depth), depth, 0.0)
