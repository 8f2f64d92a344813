"""Which older keyframes are worth drawing: those that the coming cameras look at.

The newer revision of Warp-as-History draws the newest keyframe and the best older ones, rated by
how many of their points fall into the target views.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from flythrough.geometry.types import moved, unproject
from flythrough.scene.surface import Keyframe

_STRIDE = 8
_MARGIN = 8
_NEAR = 1e-4


def share_in_view(
    keyframe: Keyframe, world_from_camera: Tensor, intrinsics: Tensor, size: tuple[int, int]
) -> Tensor:
    """Share of a keyframe's points (every eighth pixel) that any of T cameras sees, a scalar.

    A margin of 8 pixels around the picture counts as seen; what hides a point does not matter. 0
    for a keyframe without valid pixels among those.

    Args:
        world_from_camera: [T,4,4]; intrinsics: [T,3,3] in pixels of ``size`` = (height, width).
    """
    geometry = keyframe.geometry
    camera_points = unproject(geometry.depth, geometry.intrinsics)
    points = moved(camera_points, geometry.world_from_camera)[0, ::_STRIDE, ::_STRIDE]
    points = points[geometry.valid[0, ::_STRIDE, ::_STRIDE]]
    cameras, matrix = world_from_camera.to(points), intrinsics.to(points)[:, None]
    x, y, z = ((points - cameras[:, None, :3, 3]) @ cameras[:, :3, :3]).unbind(-1)
    u = matrix[..., 0, 0] * x / z + (matrix[..., 0, 2] - 0.5)
    v = matrix[..., 1, 1] * y / z + (matrix[..., 1, 2] - 0.5)
    height, width = size
    inside = (u >= -_MARGIN) & (u <= width - 1 + _MARGIN) & (v >= -_MARGIN)
    inside = inside & (v <= height - 1 + _MARGIN) & (z > _NEAR)
    return inside.any(0).double().sum() / max(1, len(points))


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
    shares = [share_in_view(k, world_from_camera, intrinsics, size) for k in keyframes]
    values = torch.stack(shares).tolist()
    ranked = sorted(range(len(values)), key=lambda place: (-values[place], -place))
    return tuple(sorted(place for place in ranked[:count] if values[place] > 0))


def drawn_keyframes(
    known: Sequence[Keyframe],
    older: int,
    world_from_camera: Tensor,
    intrinsics: Tensor,
    size: tuple[int, int],
) -> tuple[Keyframe, ...]:
    """Of keyframes in order: the first (the photo), the best ``older`` between, and the newest.

    Generation and training both choose by this.
    """
    between = known[1:-1]
    best = best_in_view(between, older, world_from_camera, intrinsics, size)
    newest = known[-1:] if len(known) > 1 else ()
    return (known[0], *(between[place] for place in best), *newest)
