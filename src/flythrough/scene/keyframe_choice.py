"""Which older keyframes are worth drawing for the coming cameras.

The newer revision of Warp-as-History draws the newest keyframe and the older ones that most of the
target views look at. Such a keyframe may show only what the newest shows too, so ours counts what
each would add to those that are drawn anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from flythrough.geometry.types import moved, unproject
from flythrough.scene.settings import WarpSettings
from flythrough.scene.surface import Keyframe

_STRIDE = 8
_COARSE = (slice(None), slice(None, None, _STRIDE), slice(None, None, _STRIDE))
_MARGIN = 8
_CELL = 16
_NEAR = 1e-4


class _Projection(NamedTuple):
    """Pixel position and depth [K,T,M] of every eighth pixel of K keyframes in T cameras, and which
    are valid [K,M]."""

    u: Tensor
    v: Tensor
    z: Tensor
    valid: Tensor


def share_in_view(
    keyframe: Keyframe, world_from_camera: Tensor, intrinsics: Tensor, size: tuple[int, int]
) -> float:
    """Share of a keyframe's points (every eighth pixel) that any of T cameras sees.

    A margin of 8 pixels around the picture counts as seen; what hides a point does not matter. 0
    for a keyframe without valid pixels among those.

    Args:
        world_from_camera: [T,4,4]; intrinsics: [T,3,3] in pixels of ``size`` = (height, width).
    """
    projected = _projections([keyframe], world_from_camera, intrinsics)
    return float(_shares(projected, size)[0])


def cells_in_view(
    keyframe: Keyframe, world_from_camera: Tensor, intrinsics: Tensor, size: tuple[int, int]
) -> Tensor:
    """Which 16-pixel cells of T target views hold points of a keyframe (every eighth pixel): bool
    [T, cells]. What hides a point does not matter."""
    return _cells(_projections([keyframe], world_from_camera, intrinsics), size)[0]


def _shares(projections: Sequence[_Projection], size: tuple[int, int]) -> Tensor:
    """:func:`share_in_view` of K keyframes: float64 [K] on their device."""
    found = []
    height, width = size
    for u, v, z, valid in projections:
        inside = (u >= -_MARGIN) & (u <= width - 1 + _MARGIN) & (v >= -_MARGIN)
        inside = inside & (v <= height - 1 + _MARGIN) & (z > _NEAR)
        seen = inside.any(1) & valid
        found.append(seen.sum(1).double() / valid.sum(1).clamp_min(1))
    return torch.cat(found)


def _cells(projections: Sequence[_Projection], size: tuple[int, int]) -> Tensor:
    """:func:`cells_in_view` of K keyframes: bool [K,T,cells]."""
    found = []
    rows, columns = -(-size[0] // _CELL), -(-size[1] // _CELL)
    for u, v, z, valid in projections:
        column, row = ((values + 0.5).div(_CELL).floor() for values in (u, v))
        inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows) & (z > _NEAR)
        inside = inside & valid[:, None]
        place = torch.where(inside, row * columns + column, rows * columns).long()
        held = inside.new_zeros(*place.shape[:2], rows * columns + 1)
        found.append(held.scatter(2, place, torch.ones_like(inside))[..., :-1])
    return torch.cat(found)


def _projections(
    keyframes: Sequence[Keyframe], cameras: Tensor, intrinsics: Tensor
) -> list[_Projection]:
    """For all keyframes at once, or one by one where their sizes differ."""
    together = len({keyframe.geometry.size for keyframe in keyframes}) == 1
    found = []
    for group in [keyframes] if together else [[keyframe] for keyframe in keyframes]:
        given = [keyframe.geometry for keyframe in group]
        # All keyframes in each call: one by one, a GPU waits for the host.
        depth = torch.cat([geometry.depth[_COARSE] for geometry in given])
        inner = torch.cat([geometry.intrinsics for geometry in given])
        places = torch.cat([geometry.world_from_camera for geometry in given])
        points = moved(unproject(depth, inner, _STRIDE), places).flatten(1, 2)
        valid = torch.cat([geometry.valid[_COARSE] for geometry in given]).flatten(1)
        poses, matrix = cameras.to(points), intrinsics.to(points)[:, None]
        x, y, z = ((points[:, None] - poses[:, None, :3, 3]) @ poses[:, :3, :3]).unbind(-1)
        u = matrix[..., 0, 0] * x / z + (matrix[..., 0, 2] - 0.5)
        v = matrix[..., 1, 1] * y / z + (matrix[..., 1, 2] - 0.5)
        found.append(_Projection(u, v, z, valid))
    return found


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
    values = _shares(_projections(keyframes, world_from_camera, intrinsics), size).tolist()
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
    projected = _projections([*keyframes, *shown], world_from_camera, intrinsics)
    shares, held = _on_host(_shares(projected, size), _cells(projected, size))
    covered = held[len(keyframes) :].any(0)
    held = held[: len(keyframes)]
    left = [place for place, share in enumerate(shares[: len(held)]) if share > 0]
    chosen: list[int] = []
    while left and len(chosen) < count:
        gains = (held & ~covered).flatten(1).sum(1).tolist()
        best = max(left, key=lambda place: (gains[place], shares[place], place))
        left.remove(best)
        chosen.append(best)
        covered = covered | held[best]
    return tuple(sorted(chosen))


def _on_host(shares: Tensor, held: Tensor) -> tuple[list[float], Tensor]:
    """Shares [K] and cells [K,T,cells] in one transfer: the choice is the host's."""
    packed = torch.cat([shares[:, None].view(torch.uint8), held.flatten(1).view(torch.uint8)], 1)
    packed = packed.cpu()
    first = packed[:, :8].contiguous().view(torch.float64)[:, 0]
    return first.tolist(), packed[:, 8:].view(torch.bool).view(held.shape)


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
