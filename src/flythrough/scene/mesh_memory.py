"""Keyframe meshes: pictures with geometry, rendered together into target cameras.

The warp of Warp-as-History: depth maps become meshes that are cut at silhouettes, sampled densely,
splatted with a z-buffer, and small holes are closed from the source pictures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor

from flythrough.errors import GeometryError
from flythrough.geometry.types import Geometry
from flythrough.scene.atlas import Atlas, background_atlas
from flythrough.scene.fill import fill_colour
from flythrough.scene.mesh import NoSurfaceError
from flythrough.scene.mesh_draw import Part, drawn
from flythrough.scene.rendered import RenderedView, concatenated, layered, underlaid
from flythrough.scene.settings import WarpSettings
from flythrough.scene.surface import Keyframe, mesh_of

__all__ = ["Keyframe", "MeshMemory", "with_photo"]

_DIRECTIONS = 4_200_000
"""Pixels whose directions a GPU works out at once: about 0.4 GB."""


@dataclass(frozen=True, eq=False)
class MeshMemory:
    """Keyframes, oldest first, all in one world frame and unit."""

    keyframes: tuple[Keyframe, ...] = ()

    def extended(self, image: Tensor, geometry: Geometry) -> MeshMemory:
        """A new memory with one more keyframe; this one stays as it is.

        Args:
            image: [3,H,W] in [0,1].
            geometry: one frame of size H x W, placed in the memory's world frame.

        Raises:
            GeometryError: picture and geometry do not belong together.
        """
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
        """What T cameras see. A keyframe without any surface is left out.

        Args:
            world_from_camera: [T,4,4], OpenCV axes.
            intrinsics: [T,3,3] in pixels of ``size``, pixel centres at half-integers.
            size: (height, width) of the result.
            first_is_photo: frame 0 is the first keyframe's own picture rather than a rendering.

        Raises:
            GeometryError: there is no keyframe, none has any surface, or shapes disagree.
        """
        if not self.keyframes:
            raise GeometryError("The scene memory is empty; add the photo as a keyframe first.")
        check_cameras(world_from_camera, intrinsics, size)
        behind = self._background(settings)
        if behind is not None and settings.reference:
            settings = replace(settings, top_fill=False)
        colour = fill_colour(self._filling_picture(settings), settings.fill)
        layers, join = _layers(self._parts(settings), settings)
        views = [
            drawn(parts, world_from_camera, intrinsics, size, settings, colour) for parts in layers
        ]
        view = reduce(join, views)
        if behind is not None:
            view = over_atlas(
                view, behind, world_from_camera, intrinsics, seen=settings.background == "atlas"
            )
        return with_photo(view, self.keyframes[0]) if first_is_photo else view

    def _parts(self, settings: WarpSettings) -> list[Part]:
        """Meshes of the keyframes that have a surface, oldest first, and how they are sampled."""
        found: list[Part] = []
        failure: NoSurfaceError | None = None
        newest = self.keyframes[-1]
        for keyframe in self.keyframes:
            dense = keyframe is newest or settings.keyframes == "layered"
            count = settings.samples_per_axis if dense else settings.older_samples_per_axis
            try:
                found.append(Part(mesh_of(keyframe, settings), count, keyframe.image))
            except NoSurfaceError as error:
                failure = error
        if failure is not None and not found:
            raise failure
        return found

    def _background(self, settings: WarpSettings) -> Atlas | None:
        """The panorama behind the meshes; as published only when there are several keyframes (a
        single one has its far backdrop instead)."""
        wanted = settings.background != "none"
        if not wanted or (settings.reference and len(self.keyframes) < 2):
            return None
        return background_atlas(self.keyframes)

    def _filling_picture(self, settings: WarpSettings) -> Tensor:
        """The picture whose mean fills unseen pixels: the first, so that it stays the same from
        chunk to chunk; as published, the newest."""
        return self.keyframes[-1 if settings.reference else 0].image


def _layers(
    parts: Sequence[Part], settings: WarpSettings
) -> tuple[list[Sequence[Part]], Callable[[RenderedView, RenderedView], RenderedView]]:
    """What is drawn into one z-buffer each, first come first served, and how two results join."""
    separate: list[Sequence[Part]] = [[part] for part in parts]
    if settings.keyframes == "layered":
        return separate, layered
    if settings.keyframes == "joint" or len(parts) < 3:
        return [parts], layered
    return [[parts[0], parts[-1]], *separate[-2:0:-1]], underlaid


def over_atlas(
    view: RenderedView, atlas: Atlas, cameras: Tensor, intrinsics: Tensor, *, seen: bool
) -> RenderedView:
    """Unseen pixels take the panorama's colour, and with ``seen`` count as visible (depth stays 0).

    A few frames at a time: directions take more memory than frames, but a GPU would wait for the
    host if it got them one by one.
    """
    colours, visible = view.rgb.clone(), view.visible.clone()
    group = max(1, _DIRECTIONS // math.prod(view.size)) if view.rgb.is_cuda else 1
    for first in range(0, len(view), group):
        some = slice(first, first + group)
        colour, known = atlas.seen_by(cameras[some], intrinsics[some], view.size)
        behind = known & (view.visible[some] < 0.5)
        colours[some] = torch.where(behind[:, None], colour.permute(0, 3, 1, 2), view.rgb[some])
        if seen:
            visible[some] = torch.where(behind, 1.0, view.visible[some])
    return RenderedView(rgb=colours, depth=view.depth, visible=visible)


def with_photo(view: RenderedView, keyframe: Keyframe) -> RenderedView:
    """Frame 0 replaced by the keyframe's own picture and depth, all of it visible."""
    photo = RenderedView(
        rgb=keyframe.image[None].to(view.rgb),
        depth=keyframe.geometry.depth.to(view.depth),
        visible=torch.ones_like(keyframe.geometry.depth).to(view.visible),
    ).resized(view.size)
    rest = RenderedView(rgb=view.rgb[1:], depth=view.depth[1:], visible=view.visible[1:])
    return concatenated((photo, rest))


def check_cameras(cameras: Tensor, intrinsics: Tensor, size: tuple[int, int]) -> None:
    """Raise GeometryError unless cameras [T,4,4] and intrinsics [T,3,3] can be rendered."""
    count = len(cameras) if cameras.ndim == 3 else 0
    if count == 0 or cameras.shape[1:] != (4, 4) or intrinsics.shape != (count, 3, 3):
        raise GeometryError(
            f"Target cameras {tuple(cameras.shape)} with intrinsics {tuple(intrinsics.shape)} "
            "cannot be rendered; give [T, 4, 4] and [T, 3, 3] with T at least 1."
        )
    if min(size) < 1:
        raise GeometryError(
            f"A rendering of size {size} was asked for; height and width must be at least 1."
        )
