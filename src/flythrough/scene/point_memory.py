"""The two poorer scene memories of WorldWarp's ablation: a coloured point cloud, and none at all.

Same interface as meshes and Gaussians (arXiv 2512.19678, table 3).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flythrough.geometry.types import Geometry
from flythrough.scene.fill import fill_colour
from flythrough.scene.mesh import NOTHING_TO_RENDER, NoSurfaceError, Samples, joined
from flythrough.scene.mesh_memory import check_cameras, with_photo
from flythrough.scene.raster import frames_per_pass, splat
from flythrough.scene.rendered import RenderedView, concatenated
from flythrough.scene.settings import WarpSettings
from flythrough.scene.surface import Keyframe, with_backdrop

RADIUS = 1.5
"""Of a point in pixels, however far away it is."""


@dataclass(frozen=True, eq=False)
class PointMemory:
    """Keyframes, oldest first, as discs of one radius in one z-buffer: between them holes open
    where the camera comes near, and far points show through."""

    keyframes: tuple[Keyframe, ...] = ()

    def extended(self, image: Tensor, geometry: Geometry) -> PointMemory:
        """A new memory with one more keyframe; this one stays as it is.

        Raises:
            GeometryError: picture and geometry do not belong together.
        """
        return PointMemory((*self.keyframes, Keyframe(image, geometry)))

    def render(
        self,
        world_from_camera: Tensor,
        intrinsics: Tensor,
        size: tuple[int, int],
        settings: WarpSettings,
        *,
        first_is_photo: bool = False,
    ) -> RenderedView:
        """What T cameras see; as :meth:`MeshMemory.render`.

        Raises:
            GeometryError: no keyframe has a sure pixel, or shapes disagree.
        """
        check_cameras(world_from_camera, intrinsics, size)
        points = joined([_points(keyframe, settings) for keyframe in self.keyframes])
        if len(points) == 0:
            raise NoSurfaceError(NOTHING_TO_RENDER)
        colour = fill_colour(self.keyframes[0].image, settings.fill)
        step = frames_per_pass(points, size)
        views = [
            _discs(points, cameras, matrices, size, colour)
            for cameras, matrices in zip(
                world_from_camera.split(step), intrinsics.split(step), strict=True
            )
        ]
        view = concatenated(views)
        return with_photo(view, self.keyframes[0]) if first_is_photo else view


@dataclass(frozen=True, eq=False)
class NoMemory:
    """Shows nothing but the photo itself: every chunk knows the frames before it alone."""

    keyframes: tuple[Keyframe, ...] = ()

    def extended(self, image: Tensor, geometry: Geometry) -> NoMemory:
        """A new memory with one more keyframe, of which only the first is ever shown."""
        return NoMemory((*self.keyframes, Keyframe(image, geometry)))

    def render(
        self,
        world_from_camera: Tensor,
        intrinsics: Tensor,
        size: tuple[int, int],
        settings: WarpSettings,
        *,
        first_is_photo: bool = False,
    ) -> RenderedView:
        """T pictures of the fill colour, nowhere visible.

        Raises:
            GeometryError: shapes disagree.
        """
        check_cameras(world_from_camera, intrinsics, size)
        photo = self.keyframes[0].image
        colour = fill_colour(photo, settings.fill).to(photo)
        shape = (len(world_from_camera), *size)
        nothing = torch.zeros(shape, device=photo.device)
        rgb = colour.reshape(1, 3, 1, 1).expand(len(world_from_camera), 3, *size)
        view = RenderedView(rgb=rgb.contiguous(), depth=nothing, visible=nothing.clone())
        return with_photo(view, self.keyframes[0]) if first_is_photo else view


def _points(keyframe: Keyframe, settings: WarpSettings) -> Samples:
    """One point for each sure pixel; with ``top_fill`` the sky as a far backdrop."""
    geometry = with_backdrop(keyframe, settings).geometry
    sure = geometry.valid[0]
    rows, columns = sure.nonzero(as_tuple=True)
    return Samples(
        points=geometry.points_world()[0][sure],
        colours=keyframe.image.permute(1, 2, 0)[sure].float(),
        source_xy=torch.stack([columns, rows], dim=-1).float(),
        source=torch.zeros_like(rows),
    )


def _discs(
    points: Samples, cameras: Tensor, intrinsics: Tensor, size: tuple[int, int], colour: Tensor
) -> RenderedView:
    """Every point covers the pixels around its own; the nearest wins.

    Points of one pixel cover the same pixels, so the pixel's nearest point can stand for them all.
    """
    drawn = splat(points, cameras, intrinsics, size)
    reach = int(RADIUS)
    far = torch.where(drawn.seen, drawn.depth, torch.inf)
    depth, rgb = far, drawn.rgb
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            if (down == 0 and right == 0) or down**2 + right**2 > RADIUS**2:
                continue
            other = _moved(far, down, right, torch.inf)
            nearer = other < depth
            depth = torch.where(nearer, other, depth)
            rgb = torch.where(nearer[..., None], _moved(drawn.rgb, down, right, 0.0), rgb)
    seen = torch.isfinite(depth)
    shown = torch.where(seen[..., None], rgb, colour.to(rgb))
    return RenderedView(
        rgb=shown.permute(0, 3, 1, 2).float().contiguous(),
        depth=torch.where(seen, depth, 0.0).float(),
        visible=seen.float(),
    )


def _moved(pictures: Tensor, down: int, right: int, empty: float) -> Tensor:
    """[T,H,W,...] moved by whole pixels; ``empty`` comes in at the borders."""
    result = torch.full_like(pictures, empty)
    height, width = pictures.shape[1:3]
    to = (slice(max(down, 0), height + min(down, 0)), slice(max(right, 0), width + min(right, 0)))
    of = (slice(max(-down, 0), height - max(down, 0)), slice(max(-right, 0), width - max(right, 0)))
    result[:, to[0], to[1]] = pictures[:, of[0], of[1]]
    return result
