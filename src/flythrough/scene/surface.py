"""One keyframe as surface samples: which pixels count, where the mesh is cut, and what to try when
nothing is left."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flythrough.errors import GeometryError
from flythrough.geometry.edges import depth_normal_edge
from flythrough.geometry.types import Geometry, moved, unproject
from flythrough.scene.backdrop import far_backdrop
from flythrough.scene.mesh import NoSurfaceError, Samples, quad_samples
from flythrough.scene.settings import WarpSettings

_RETRY_PERCENT = (20, 50, 100)


@dataclass(frozen=True, eq=False)
class Keyframe:
    """A picture [3,H,W] in [0,1] with the geometry of that one frame at the same size.

    Raises:
        GeometryError: another shape, or geometry of another size or frame count.
    """

    image: Tensor
    geometry: Geometry

    def __post_init__(self) -> None:
        fits = self.image.ndim == 3 and len(self.image) == 3
        if (
            not fits
            or tuple(self.image.shape[-2:]) != self.geometry.size
            or len(self.geometry) != 1
        ):
            raise GeometryError(
                f"A picture of shape {tuple(self.image.shape)} was given with geometry of "
                f"{len(self.geometry)} frame(s) of {self.geometry.size}; give a picture [3, H, W] "
                "and one frame at its size."
            )


def surface(keyframe: Keyframe, settings: WarpSettings, per_axis: int) -> Samples:
    """Samples of the keyframe's mesh; with less confident pixels and without cuts if need be.

    Raises:
        NoSurfaceError: nothing is left even then.
    """
    geometry = keyframe.geometry
    valid = geometry.valid[0] & (geometry.confidence[0] > settings.confidence)
    try:
        return _samples(keyframe, valid, settings, per_axis)
    except NoSurfaceError:
        uncut = replace(settings, mesh_break="none")
        for percent in _RETRY_PERCENT:
            relaxed = valid | most_confident(geometry, percent)
            for attempt in (settings, uncut):
                try:
                    return _samples(keyframe, relaxed, attempt, per_axis)
                except NoSurfaceError:
                    continue
        raise


def most_confident(geometry: Geometry, percent: float) -> Tensor:
    """The most confident ``percent`` of the pixels [H,W] with positive finite depth of one frame.

    Pixels as confident as the last of them are kept too; where confidence is not finite it is
    ignored, and if it is finite nowhere all pixels with depth are kept.
    """
    depth, confidence = geometry.depth[0], geometry.confidence[0]
    usable = (depth > 0) & torch.isfinite(depth)
    rated = usable & torch.isfinite(confidence)
    values = confidence[rated]
    if len(values) == 0:
        return usable
    count = max(1, -int(-len(values) * percent // 100))
    return rated & (confidence >= values.topk(count).values[-1])


def _samples(keyframe: Keyframe, valid: Tensor, settings: WarpSettings, per_axis: int) -> Samples:
    geometry, filled = keyframe.geometry, None
    dtype = torch.float64 if settings.reference else torch.float32
    known = geometry.depth.to(dtype)
    depth = known
    if settings.top_fill:
        backdrop = far_backdrop(depth[0], valid)
        depth, filled = backdrop.depth[None], backdrop.filled
        valid = valid | filled
    camera = unproject(depth, geometry.intrinsics.to(dtype))
    points = moved(camera, geometry.world_from_camera.to(dtype))
    if settings.mesh_break == "depth_normal":
        # The depth before filling, as published: it decides where sky meets the skyline.
        cut = depth_normal_edge(
            points,
            known,
            rtol=settings.depth_rtol,
            tol_deg=settings.normal_tol_deg,
            mask=valid[None],
        )
        valid = valid & ~cut[0]
    colours = keyframe.image.permute(1, 2, 0)
    return quad_samples(
        points[0], colours, valid, per_axis, filled=filled, quantise=settings.reference
    )
