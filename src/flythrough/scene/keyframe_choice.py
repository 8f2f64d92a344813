"""Which older keyframes are worth drawing for the coming cameras.

The newer revision of Warp-as-History draws the newest keyframe and the older ones that most of the
target views look at. Such a keyframe may show only what the newest shows too, so ours counts what
each would add to those that are drawn anyway.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from flythrough.geometry.types import moved, unproject
from flythrough.scene.settings import WarpSettings
from flythrough.scene.surface import Keyframe

_STRIDE = 8
_MARGIN = 8
_CELL = 16
_NEAR = 1e-4


def share_in_view(
    keyframe: Keyframe, world_from_camera: Tensor, intrinsics: Tensor, size: tuple[int, int]
) -> float:
    """Share of a keyframe's points (every eighth pixel) that any of T cameras sees.

    A margin of 8 pixels around the picture counts as seen; what hides a point does not matter. 0
    for a keyframe without valid pixels among those.

    Args:
        world_from_camera: [T,4,4]; intrinsics: [T,3,3] in pixels of ``size`` = (height, width).
    """
    u, v, z = _projected(keyframe, world_from_camera, intrinsics)
    height, width = size
    inside = (u >= -_MARGIN) & (u <= width - 1 + _MARGIN) & (v >= -_MARGIN)
    inside = inside & (v <= height - 1 + _MARGIN) & (z > _NEAR)
    return int(inside.any(0).sum()) / max(1, inside.shape[1])


def cells_in_view(
    keyframe: Keyframe, world_from_camera: Tensor, intrinsics: Tensor, size: tuple[int, int]
) -> Tensor:
    """Which 16-pixel cells of T target views hold points of a keyframe (every eighth pixel): bool
    [T, cells]. What hides a point does not matter."""
    u, v, z = _projected(keyframe, world_from_camera, intrinsics)
    column, row = ((values + 0.5).div(_CELL).floor() for values in (u, v))
    rows, columns = -(-size[0] // _CELL), -(-size[1] // _CELL)
    inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows) & (z > _NEAR)
    place = torch.where(inside, row * columns + column, rows * columns).long()
    held = torch.zeros(len(place), rows * columns + 1, dtype=torch.bool, device=place.device)
    return held.scatter(1, place, torch.ones_like(place, dtype=torch.bool))[:, :-1]


def _projected(
    keyframe: Keyframe, world_from_camera: Tensor, intrinsics: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Pixel position and depth [T,M] of every eighth valid pixel of a keyframe in T cameras."""
    geometry = keyframe.geometry
    camera_points = unproject(geometry.depth, geometry.intrinsics)
    points = moved(camera_points, geometry.world_from_camera)[0, ::_STRIDE, ::_STRIDE]
    points = points[geometry.valid[0, ::_STRIDE, ::_STRIDE]]
    cameras, matrix = world_from_camera.to(points), intrinsics.to(points)[:, None]
    x, y, z = ((points - cameras[:, None, :3, 3]) @ cameras[:, :3, :3]).unbind(-1)
    u = matrix[..., 0, 0] * x / z + (matrix[..., 0, 2] - 0.5)
    v = matrix[..., 1, 1] * y / z + (matrix[..., 1, 2] - 0.5)
    return u, v, z


def best_in_view(
    keyframes: Sequence[Keyframe],
    count: int,
    world_from_camera: Tensor,
    intrinsics: Tensor,
    size: tuple[int, int],
) -> tuple[int, ...]:
    """Places of the ``count`` keyframes that the cameras see most of, in their own order.

    Among equals the newest wins; keyframes of which nothing is seen are left out.
    """
    if not keyframes or count < 1:
        return ()
    values = [share_in_view(k, world_from_camera, intrinsics, size) for k in keyframes]
    ranked = sorted(range(len(values)), key=lambda place: (-values[place], -place))
    return tuple(sorted(place for place in ranked[:count] if values[place] > 0))


def most_added(
    keyframes: Sequence[Keyframe],
    shown: Sequence[Keyframe],
    count: int,
    world_from_camera: Tensor,
    intrinsics: Tensor,
    size: tuple[int, int],
) -> tuple[int, ...]:
    """Places of up to ``count`` keyframes that add most cells to what ``shown`` shows, in order.

    One after the other, each beside those chosen before; among equals the one of which the cameras
    see the greatest share (behind foreground, a cell may hide what only it knows), then the newest.
    None that the cameras do not see.
    """
    if not keyframes or count < 1:
        return ()
    camera = world_from_camera, intrinsics, size
    held = torch.stack([cells_in_view(keyframe, *camera) for keyframe in keyframes])
    covered = torch.zeros_like(held[0])
    for keyframe in shown:
        covered = covered | cells_in_view(keyframe, *camera)
    shares = [share_in_view(keyframe, *camera) for keyframe in keyframes]
    left = [place for place, share in enumerate(shares) if share > 0]
    chosen: list[int] = []
    while left and len(chosen) < count:
        gains = (held & ~covered).flatten(1).sum(1).tolist()
        best = max(left, key=lambda place: (gains[place], shares[place], place))
        left.remove(best)
        chosen.append(best)
        covered = covered | held[best]
    return tuple(sorted(chosen))


def drawn_keyframes(
    known: Sequence[Keyframe],
    settings: WarpSettings,
    world_from_camera: Tensor,
    intrinsics: Tensor,
    size: tuple[int, int],
) -> tuple[Keyframe, ...]:
    """Of keyframes in order: the first (the photo), the best ``older_keyframes`` between, and the
    newest. Generation and training both choose by this."""
    ends = (known[0], known[-1]) if len(known) > 1 else (known[0],)
    between, count = known[1:-1], settings.older_keyframes
    camera = world_from_camera, intrinsics, size
    if settings.reference:
        best = best_in_view(between, count, *camera)
    else:
        best = most_added(between, ends, count, *camera)
    return (ends[0], *(between[place] for place in best), *ends[1:])
