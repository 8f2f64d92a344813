"""Keyframe meshes: pictures with geometry, rendered together into target cameras."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flythrough.errors import GeometryError
from flythrough.geometry.edges import depth_normal_edge
from flythrough.geometry.types import Geometry
from flythrough.scene.fill import close_small_holes, far_backdrop, fill_colour
from flythrough.scene.mesh import NoSurfaceError, Samples, quad_samples
from flythrough.scene.raster import splat
from flythrough.scene.rendered import RenderedView, layered
from flythrough.scene.settings import WarpSettings

_RETRY_PERCENT = (20, 50, 100)


@dataclass(frozen=True, eq=False)
class Keyframe:
    """A picture [3,H,W] in [0,1] with the geometry of that one frame at the same size."""

    image: Tensor
    geometry: Geometry

    def __post_init__(self) -> None:
        if tuple(self.image.shape[-2:]) != self.geometry.size or len(self.geometry) != 1:
            raise GeometryError(
                f"A picture of {tuple(self.image.shape[-2:])} was given with geometry of "
                f"{len(self.geometry)} frame(s) of {self.geometry.size}; give one frame at the "
                "picture's size."
            )


@dataclass(frozen=True, eq=False)
class MeshMemory:
    """Keyframes in order of priority: the first one that saw a place shows it, unless another has
    something clearly in front of it there."""

    keyframes: tuple[Keyframe, ...] = ()

    def extended(self, image: Tensor, geometry: Geometry) -> MeshMemory:
        """A new memory with one more keyframe; this one stays as it is."""
        return MeshMemory((*self.keyframes, Keyframe(image, geometry)))

    def render(
        self,
        world_from_camera: Tensor,
        intrinsics: Tensor,
        size: tuple[int, int],
        settings: WarpSettings,
        *,
        first_is_photo: bool = False,
    ) -> RenderedView:
        """What T cameras see.

        Args:
            world_from_camera: [T,4,4]; intrinsics: [T,3,3] in pixels of ``size`` = (height, width).
            first_is_photo: frame 0 is the first keyframe's own picture rather than a rendering.

        Raises:
            GeometryError: there is no keyframe, or the first has no surface at all.
        """
        if not self.keyframes:
            raise GeometryError("The scene memory is empty; add the photo as a keyframe first.")
        view = render_keyframe(self.keyframes[0], world_from_camera, intrinsics, size, settings)
        for keyframe in self.keyframes[1:]:
            try:
                more = render_keyframe(keyframe, world_from_camera, intrinsics, size, settings)
            except NoSurfaceError:
                continue
            view = layered(view, more)
        return with_photo(view, self.keyframes[0].image) if first_is_photo else view


def with_photo(view: RenderedView, photo: Tensor) -> RenderedView:
    """Frame 0 replaced by the picture [3,H,W] itself, all of it visible."""
    rgb, visible = view.rgb.clone(), view.visible.clone()
    rgb[0], visible[0] = photo, 1.0
    return replace(view, rgb=rgb, visible=visible)


def render_keyframe(
    keyframe: Keyframe,
    world_from_camera: Tensor,
    intrinsics: Tensor,
    size: tuple[int, int],
    settings: WarpSettings,
) -> RenderedView:
    """One keyframe's mesh from T cameras (specification 12.1 to 12.7).

    Raises:
        NoSurfaceError: no surface is left even after lowering the confidence rule.
    """
    drawn = splat(surface(keyframe, settings), world_from_camera, intrinsics, size)
    if settings.render_mode == "target_fill" and settings.fill_radius > 0:
        drawn = close_small_holes(
            drawn, keyframe.image, settings.fill_radius, settings.fill_min_neighbors
        )
    colour = fill_colour(keyframe.image, settings.fill)
    rgb = torch.where(drawn.seen[..., None], drawn.rgb, colour.to(drawn.rgb))
    return RenderedView(
        rgb=rgb.permute(0, 3, 1, 2).to(keyframe.image),
        depth=drawn.depth.to(keyframe.image),
        visible=drawn.seen.to(keyframe.image),
    )


def surface(keyframe: Keyframe, settings: WarpSettings) -> Samples:
    """Mesh samples, retried with less confident pixels and then without cuts (12.4)."""
    geometry = keyframe.geometry
    valid = geometry.valid[0] & (geometry.confidence[0] > settings.confidence)
    try:
        return _samples(keyframe, valid, settings)
    except NoSurfaceError:
        uncut = replace(settings, mesh_break="none")
        for percent in _RETRY_PERCENT:
            lowered = most_confident(geometry, percent)
            for attempt in (settings, uncut):
                try:
                    return _samples(keyframe, lowered, attempt)
                except NoSurfaceError:
                    continue
        raise


def most_confident(geometry: Geometry, percent: int) -> Tensor:
    """The most confident ``percent`` of all pixels [H,W] with positive finite depth (11.2)."""
    usable = (geometry.depth[0] > 0) & torch.isfinite(geometry.depth[0])
    values = geometry.confidence[0][usable]
    if len(values) == 0:
        return usable
    count = max(1, -(-len(values) * percent // 100))
    limit = values.topk(count).values[-1]
    return usable & (geometry.confidence[0] >= limit)


def _samples(keyframe: Keyframe, valid: Tensor, settings: WarpSettings) -> Samples:
    geometry, filled = keyframe.geometry, None
    depth = geometry.depth[0]
    valid = valid & (depth > 0) & torch.isfinite(depth)
    if settings.top_fill:
        backdrop = far_backdrop(depth, valid)
        geometry = replace(geometry, depth=backdrop.depth[None])
        filled = backdrop.filled
        valid = valid | filled
    points = geometry.points_world()[0]
    if settings.mesh_break == "depth_normal":
        cut = depth_normal_edge(
            points[None],
            depth[None],
            rtol=settings.depth_rtol,
            tol_deg=settings.normal_tol_deg,
            mask=valid[None],
        )[0]
        valid = valid & ~cut
    colours = keyframe.image.permute(1, 2, 0)
    return quad_samples(
        points,
        colours,
        valid,
        settings.samples_per_axis,
        filled=filled,
        quantise=settings.quantise,
    )
