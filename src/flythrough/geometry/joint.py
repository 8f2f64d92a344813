"""Several views estimated in one call and brought to the scale of an earlier estimate."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from flythrough.errors import GeometryError
from flythrough.geometry.align import DepthScale, depth_scale
from flythrough.geometry.edges import depth_normal_edge
from flythrough.geometry.estimator import Estimator
from flythrough.geometry.types import Geometry


@dataclass(frozen=True, eq=False)
class JointEstimate:
    """``geometry``: N frames that share a world frame, the first one's camera, in the unit of the
    reference; ``fitted``: how that unit was found (its scale is applied already)."""

    geometry: Geometry
    fitted: DepthScale


def joint_estimate(
    estimator: Estimator,
    images: Tensor,
    reference: Geometry,
    *,
    intrinsics: Tensor | None = None,
    cut_edges: bool = False,
) -> JointEstimate:
    """Estimate views together; depth and camera positions are scaled by one factor.

    The factor makes the first view agree with ``reference``, so that view must be the one that the
    reference shows, in every call (published code lets it wander from the third chunk on).

    Args:
        images: [N,3,H,W] in [0,1].
        reference: one frame, the first image estimated earlier.
        intrinsics: [N,3,3] where the cameras are known.
        cut_edges: pixels at silhouettes are not valid, nor used for the scale (published).

    Raises:
        GeometryError: the estimator takes fewer views, or the reference is not one frame.
    """
    check_views(estimator, len(images))
    if len(reference) != 1:
        raise GeometryError(
            f"The reference geometry has {len(reference)} frames; give the first view's alone."
        )
    found = estimator.estimate(images, intrinsics=intrinsics)
    if cut_edges:
        found, reference = without_edges(found), without_edges(reference)
    fitted = depth_scale(reference.depth[0], reference.valid[0], found.depth[0], found.valid[0])
    return JointEstimate(found.scaled(fitted.scale), fitted)


def check_views(estimator: Estimator, count: int) -> None:
    """Raise GeometryError when the estimator cannot take ``count`` views in one call."""
    most = estimator.capabilities.max_views
    if most is not None and count > most:
        raise GeometryError(
            f"{estimator.name} takes {most} view(s) at a time but {count} keyframes were to be "
            "estimated together; set estimation to each, or fewer older_keyframes."
        )


def without_edges(geometry: Geometry, *, rtol: float = 0.03, tol_deg: float = 5.0) -> Geometry:
    """Pixels next to a silhouette are not valid any more, as published estimates have it."""
    edge = depth_normal_edge(
        geometry.points_camera(), geometry.depth, rtol=rtol, tol_deg=tol_deg, mask=geometry.valid
    )
    return replace(geometry, valid=geometry.valid & ~edge)
