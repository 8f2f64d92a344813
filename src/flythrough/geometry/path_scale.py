"""One factor that ties an estimated history to the path that was asked for.

A network that looks at a chunk again has a unit of its own; without a tie the camera moves too far
or too little through what it remembers (seen as ratios of 0.6 to 0.8 in WorldWarp).
"""

from __future__ import annotations

import torch
from torch import Tensor

from flythrough.errors import GeometryError
from flythrough.geometry.align import DepthScale

_LEAST_MOVE = 0.02
_LIMITS = (0.1, 10.0)


def path_scale(
    estimated: Tensor, requested: Tensor, median_depth: float, fallback: DepthScale
) -> DepthScale:
    """The positive factor on estimated depth and positions that fits them to the requested path.

    Least squares on positions about their mean. Where the requested camera hardly moves (less than
    a fiftieth of the median depth from its mean), positions say nothing and the depth ratio is
    taken instead, as it is where the two paths contradict each other.

    Args:
        estimated: [N,4,4] camera-to-world; requested: [N,4,4] of the same frames.
        median_depth: of the scene, in the unit of the requested path.
        fallback: the ratio of depths, for instance to what the memory shows from there.

    Raises:
        GeometryError: shapes differ.
    """
    if estimated.shape != requested.shape or estimated.ndim != 3:
        raise GeometryError(
            f"An estimated path {tuple(estimated.shape)} cannot be tied to one of shape "
            f"{tuple(requested.shape)}; give both as [N, 4, 4]."
        )
    # Both paths in the first frame's axes: the worlds may be turned against each other.
    own, asked = (_places(poses.double()) for poses in (estimated, requested))
    spread = asked.norm(dim=-1).max()
    if len(own) < 2 or float(spread) < _LEAST_MOVE * median_depth:
        return fallback
    scale = (own * asked).sum() / own.square().sum().clamp_min(1e-12)
    if not bool(torch.isfinite(scale)) or float(scale) <= 0:
        return fallback
    kept = scale.clamp(*_LIMITS)
    return DepthScale(
        kept.to(estimated.dtype), "ok" if bool(kept == scale) else "clamped", len(own)
    )


def _places(poses: Tensor) -> Tensor:
    places = (torch.linalg.inv(poses[0]) @ poses)[:, :3, 3]
    return places - places.mean(0)
