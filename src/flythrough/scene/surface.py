"""One keyframe as surface samples: which pixels count, where the mesh is cut, and what to try when
nothing is left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from flythrough.errors import GeometryError
from flythrough.geometry.edges import depth_normal_edge
from flythrough.geometry.types import Geometry, moved, unproject
from flythrough.scene.backdrop import far_backdrop
from flythrough.scene.mesh import (
    NOTHING_TO_RENDER,
    GridMesh,
    NoSurfaceError,
    Samples,
    grid_mesh,
)
from flythrough.scene.settings import WarpSettings

_FALLBACK_PERCENT = 5
_RETRY_PERCENT = (20, 50, 100)
_JUST_ABOVE = 1e-3

Tell = Callable[[str], None]
"""Called with one clause about what was done without."""


def silent(text: str) -> None:
    """For callers that announce nothing."""
    del text


@dataclass(frozen=True, eq=False)
class Keyframe:
    """A picture [3,H,W] in [0,1] with the geometry of that one frame at the same size.

    ``uncut``: its mesh is left whole at silhouettes, because cutting would leave nothing of it.

    Raises:
        GeometryError: another shape, or geometry of another size or frame count.
    """

    image: Tensor
    geometry: Geometry
    uncut: bool = False

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
    return mesh_of(keyframe, settings).sampled(per_axis, quantise=settings.reference)


def mesh_of(keyframe: Keyframe, settings: WarpSettings) -> GridMesh:
    """The keyframe's mesh, built once; with less confident pixels and without cuts if need be.

    Raises:
        NoSurfaceError: nothing is left even then.
    """
    mesh = _mesh(keyframe, settings)
    return mesh if mesh.has_cells else _mesh(repaired(keyframe, settings), settings)


def repaired(keyframe: Keyframe, settings: WarpSettings, tell: Tell = silent) -> Keyframe:
    """The keyframe itself when it has a surface, else with less confident pixels made valid.

    Without a valid pixel the most confident 5 % of those with depth are tried. When no mesh cell is
    left, 20, 50 and 100 % follow, each with the mesh cut as set and then uncut.

    Args:
        keyframe: its geometry may be poor.
        settings: how the mesh is cut.
        tell: told about every attempt that is made.

    Raises:
        NoSurfaceError: nothing helped.
    """
    if _mesh(keyframe, settings).has_cells:
        return keyframe
    first = keyframe
    if not bool(_usable(keyframe.geometry, settings).any()):
        tell(f"no pixel has sure depth: the {_FALLBACK_PERCENT} % most confident are used")
        first = _relaxed(keyframe, settings, _FALLBACK_PERCENT)
        if _mesh(first, settings).has_cells:
            return first
    cuts = (False, True) if settings.mesh_break != "none" else (True,)
    for percent in _RETRY_PERCENT:
        more = _relaxed(keyframe, settings, percent)
        for uncut in cuts:
            how = ", the mesh uncut" if uncut else ""
            tell(f"no surface is left: trying the {percent} % most confident pixels{how}")
            attempt = replace(more, uncut=uncut)
            if _mesh(attempt, settings).has_cells:
                return attempt
    raise NoSurfaceError(NOTHING_TO_RENDER)


def _usable(geometry: Geometry, settings: WarpSettings) -> Tensor:
    """Pixels [H,W] that are valid and confident enough."""
    return geometry.valid[0] & (geometry.confidence[0] > settings.confidence)


def with_backdrop(keyframe: Keyframe, settings: WarpSettings) -> Keyframe:
    """Sure pixels alone, and with ``top_fill`` large unknown regions at the top as far ones."""
    geometry = keyframe.geometry
    sure = _usable(geometry, settings)
    depth, confidence = geometry.depth[0], geometry.confidence[0]
    if settings.top_fill:
        backdrop = far_backdrop(depth, sure)
        depth, sure = backdrop.depth, sure | backdrop.filled
        confidence = torch.where(backdrop.filled, 1.0, confidence)
    filled = replace(geometry, depth=depth[None], valid=sure[None], confidence=confidence[None])
    return replace(keyframe, geometry=filled)


def _relaxed(keyframe: Keyframe, settings: WarpSettings, percent: float) -> Keyframe:
    """With the most confident ``percent`` of the pixels valid, just above the threshold."""
    geometry = keyframe.geometry
    kept = most_confident(geometry, percent)[None]
    least = settings.confidence + _JUST_ABOVE
    raised = torch.nan_to_num(geometry.confidence).clamp_min(least)
    confidence = torch.where(kept, raised, geometry.confidence)
    return replace(
        keyframe,
        geometry=replace(geometry, valid=geometry.valid | kept, confidence=confidence),
    )


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


_built: WeakKeyDictionary[Keyframe, dict[tuple[object, ...], GridMesh]] = WeakKeyDictionary()
"""Meshes of keyframes that are alive: the photo is drawn in every chunk."""


def _mesh(keyframe: Keyframe, settings: WarpSettings) -> GridMesh:
    """The mesh as it is, perhaps without any cell."""
    cut = (settings.mesh_break, settings.depth_rtol, settings.normal_tol_deg)
    asked = (settings.confidence, settings.top_fill, settings.reference, *cut)
    known = _built.setdefault(keyframe, {})
    if asked not in known:
        known[asked] = _cut_mesh(keyframe, settings)
    return known[asked]


def _cut_mesh(keyframe: Keyframe, settings: WarpSettings) -> GridMesh:
    geometry, filled = keyframe.geometry, None
    valid = _usable(geometry, settings)
    dtype = torch.float64 if settings.reference else torch.float32
    known = geometry.depth.to(dtype)
    depth = known
    if settings.top_fill:
        backdrop = far_backdrop(depth[0], valid)
        depth, filled = backdrop.depth[None], backdrop.filled
        valid = valid | filled
    camera = unproject(depth, geometry.intrinsics.to(dtype))
    points = moved(camera, geometry.world_from_camera.to(dtype))
    if settings.mesh_break == "depth_normal" and not keyframe.uncut:
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
    return grid_mesh(points[0], colours, valid, filled=filled)
