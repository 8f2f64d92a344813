"""What every geometry estimator promises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from flythrough.errors import GeometryError
from flythrough.geometry.types import Geometry, ScaleKind


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What an estimator can do.

    ``max_views``: frames it accepts in one call, None for any number. ``predicts_poses``: frames of
    one call share a world frame. ``uses_intrinsics``: given intrinsics are used rather than
    replaced by its own.
    """

    scale: ScaleKind
    max_views: int | None = None
    predicts_poses: bool = False
    uses_intrinsics: bool = True


class Estimator(Protocol):
    """Depth (and cameras) from pictures."""

    name: str
    capabilities: Capabilities

    def estimate(self, images: Tensor, *, intrinsics: Tensor | None = None) -> Geometry:
        """Geometry at the size of ``images`` [N,3,H,W] in [0,1].

        ``intrinsics`` [N,3,3] in pixels of that size when the cameras are known. The first frame is
        the origin of the returned world frame.

        Raises:
            GeometryError: pictures of a wrong shape or range, or more views than allowed.
        """
        ...


def check_images(images: Tensor, estimator: str, max_views: int | None) -> None:
    """Shape, range and count rules that hold for every estimator."""
    if images.ndim != 4 or images.shape[1] != 3:
        raise GeometryError(
            f"Pictures of shape {tuple(images.shape)} were given to {estimator}; give [N, 3, H, W]."
        )
    if max_views is not None and len(images) > max_views:
        raise GeometryError(
            f"{estimator} takes at most {max_views} view(s) but {len(images)} were given; pass "
            "fewer or choose another estimator."
        )
    low, high = float(images.min()), float(images.max())
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise GeometryError(
            f"Picture values run from {low:.3g} to {high:.3g} but must lie in [0, 1]; divide 8-bit "
            "values by 255."
        )
