"""What every geometry estimator promises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from flythrough.cameras.intrinsics import check_intrinsics
from flythrough.errors import GeometryError
from flythrough.geometry.types import Geometry, ScaleKind

_ROUNDING = 1e-3


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
    """Depth (and cameras) from pictures. ``name`` is what messages call it."""

    name: str
    capabilities: Capabilities

    def estimate(self, images: Tensor, *, intrinsics: Tensor | None = None) -> Geometry:
        """Geometry at the size of ``images`` [N,3,H,W] in [0,1], the same for the same pictures.

        ``intrinsics`` [N,3,3] in pixels of that size when the cameras are known. The first frame is
        the origin of the returned world frame unless the estimator was handed cameras.

        Raises:
            InputError: pictures of a wrong shape or range, unusable intrinsics, or more views than
                allowed.
        """
        ...


def check_images(images: Tensor, estimator: str, max_views: int | None) -> None:
    """Shape, range and count rules that hold for every estimator.

    Raises:
        GeometryError: one of them is broken.
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.numel() == 0:
        raise GeometryError(
            f"Pictures of shape {tuple(images.shape)} were given to {estimator}; give [N, 3, H, W] "
            "with N, H and W at least 1."
        )
    if max_views is not None and len(images) > max_views:
        raise GeometryError(
            f"{estimator} takes at most {max_views} view(s) but {len(images)} were given; pass "
            "fewer or choose another estimator."
        )
    low, high = torch.stack(images.aminmax()).tolist()
    if not (images.is_floating_point() and low >= -_ROUNDING and high <= 1 + _ROUNDING):
        raise GeometryError(
            f"Picture values are {images.dtype} from {low:.3g} to {high:.3g} but must be floating "
            "point in [0, 1]; divide 8-bit values by 255."
        )


def known_intrinsics(intrinsics: Tensor, images: Tensor) -> Tensor:
    """Given intrinsics ([3,3] or [N,3,3]) as [N,3,3] float32 on the device of ``images``.

    Raises:
        GeometryError: neither one matrix nor one a picture.
        CameraError: not pinhole matrices with positive focal lengths.
    """
    count = len(images)
    if tuple(intrinsics.shape) not in ((3, 3), (count, 3, 3)):
        raise GeometryError(
            f"Intrinsics of shape {tuple(intrinsics.shape)} were given for {count} picture(s); "
            "give one 3x3 matrix, or one a picture."
        )
    check_intrinsics(intrinsics.detach().cpu().double().numpy(), "The pictures' intrinsics")
    return intrinsics.to(images.device, torch.float32).expand(count, 3, 3)
