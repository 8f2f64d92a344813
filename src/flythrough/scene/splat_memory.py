"""A short-lived Gaussian cache: pictures with geometry, fitted and drawn into target cameras.

The scene memory of WorldWarp, with the interface of the keyframe meshes, so that either can lead
either method. It is fitted anew for every chunk, on first use, and thrown away with the value.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from flythrough.errors import GeometryError
from flythrough.geometry.types import Geometry, moved, unproject
from flythrough.scene.fill import fill_colour, summed
from flythrough.scene.memory import SceneMemory
from flythrough.scene.mesh_memory import MeshMemory, check_cameras, with_photo
from flythrough.scene.point_memory import NoMemory, PointMemory
from flythrough.scene.rendered import RenderedView
from flythrough.scene.settings import WarpSettings
from flythrough.scene.splat_fit import FitSettings, OnStep, fitted
from flythrough.scene.splat_render import drawn
from flythrough.scene.splats import Splats
from flythrough.scene.surface import Keyframe, with_backdrop

_AGREES = 0.10
"""Relative difference in depth within which a source confirms what is drawn."""
_HALF = 0.5
_ENOUGH = WarpSettings.fill_min_neighbors
"""Seen pixels around an unseen one that close it, of eight: as meshes have it by default."""


@dataclass(frozen=True, eq=False)
class GaussianMemory:
    """Keyframes, oldest first, all in one world frame and unit, and how they are fitted."""

    keyframes: tuple[Keyframe, ...] = ()
    settings: WarpSettings = field(default_factory=WarpSettings)
    fit: FitSettings = field(default_factory=FitSettings)

    def extended(self, image: Tensor, geometry: Geometry) -> GaussianMemory:
        """A new memory with one more keyframe; this one stays as it is.

        Args:
            image: [3,H,W] in [0,1].
            geometry: one frame of size H x W, placed in the memory's world frame.

        Raises:
            GeometryError: picture and geometry do not belong together.
        """
        return replace(self, keyframes=(*self.keyframes, Keyframe(image, geometry)))

    @cached_property
    def sources(self) -> tuple[Keyframe, ...]:
        """The keyframes as they are fitted: skies have their far backdrop."""
        return tuple(with_backdrop(keyframe, self.settings) for keyframe in self.keyframes)

    @cached_property
    def splats(self) -> Splats:
        """The Gaussians, fitted once.

        Raises:
            GeometryError: there is no keyframe, or none has a sure pixel.
        """
        return self.optimised()

    def optimised(self, on_step: OnStep | None = None) -> Splats:
        """The Gaussians, fitted anew; ``on_step`` is told the steps done and their number.

        Raises:
            GeometryError: there is no keyframe, or none has a sure pixel.
        """
        if not self.keyframes:
            raise GeometryError("The scene memory is empty; add the photo as a keyframe first.")
        steps = replace(self.fit, steps=self.settings.gaussian_steps)
        return fitted(self.sources, steps, confidence=self.settings.confidence, on_step=on_step)

    def render(
        self,
        world_from_camera: Tensor,
        intrinsics: Tensor,
        size: tuple[int, int],
        settings: WarpSettings,
        *,
        first_is_photo: bool = False,
    ) -> RenderedView:
        """What T cameras see. Visible is what is more than half opaque and lies at a depth that at
        least one source confirms within 10 %, and single pixels between such (:func:`closed`).

        Args:
            world_from_camera: [T,4,4], OpenCV axes.
            intrinsics: [T,3,3] in pixels of ``size``, pixel centres at half-integers.
            size: (height, width) of the result.
            settings: only ``fill`` is read here; the memory's own decide about the fit.
            first_is_photo: frame 0 is the first keyframe's own picture rather than a rendering.

        Raises:
            GeometryError: there is no keyframe, none has a sure pixel, or shapes disagree.
        """
        check_cameras(world_from_camera, intrinsics, size)
        splats = self.splats
        colour = fill_colour(self.keyframes[0].image, settings.fill)
        rgb, depth, visible = [], [], []
        with torch.no_grad():
            cameras, matrices = world_from_camera.to(splats.means), intrinsics.to(splats.means)
            for camera, matrix in zip(cameras, matrices, strict=True):
                view = drawn(splats, camera, matrix, size)
                seen = (view.alpha > _HALF) & self._confirmed(view.depth, camera, matrix)
                # Drawn over black: the opacity would darken borders.
                full = (view.rgb / view.alpha.clamp_min(_HALF)[..., None]).clamp(0, 1)
                layers = torch.cat([full.permute(2, 0, 1), view.depth[None]])
                layers, seen = closed(layers, seen)
                rgb.append(torch.where(seen, layers[:3], colour.to(full)[:, None, None]))
                depth.append(torch.where(seen, layers[3], 0.0))
                visible.append(seen.float())
        result = RenderedView(
            rgb=torch.stack(rgb), depth=torch.stack(depth), visible=torch.stack(visible)
        )
        return with_photo(result, self.keyframes[0]) if first_is_photo else result

    def _confirmed(self, depth: Tensor, camera: Tensor, matrix: Tensor) -> Tensor:
        """Where a depth map [H,W] agrees with the depth that some source has at that place."""
        points = moved(unproject(depth[None], matrix[None]), camera[None])[0]
        agreed = torch.zeros_like(depth, dtype=torch.bool)
        for source in self.sources:
            geometry = source.geometry
            pose, inner = geometry.world_from_camera[0], geometry.intrinsics[0]
            x, y, z = ((points - pose[:3, 3]) @ pose[:3, :3]).unbind(-1)
            front = z > 0
            safe = torch.where(front, z, 1.0)
            column = (inner[0, 0] * x / safe + inner[0, 2]).floor()
            row = (inner[1, 1] * y / safe + inner[1, 2]).floor()
            height, width = geometry.size
            inside = front & (column >= 0) & (column < width) & (row >= 0) & (row < height)
            at = (torch.where(inside, row, 0).long(), torch.where(inside, column, 0).long())
            known = geometry.depth[0][at]
            near = (z - known).abs() < _AGREES * known
            agreed |= inside & geometry.valid[0][at] & (known > 0) & near
        return agreed


def closed(layers: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Give unseen pixels with at least four seen ones among their eight neighbours their mean.

    Gaussians that were one pixel apart in the source leave single pixels between them where the
    camera comes nearer. A mask that is eroded afterwards would lose a window around each.

    Args:
        layers: [C,H,W], anything that may be averaged.
        seen: bool [H,W]; outside the frame nothing is seen.

    Returns:
        Both with the holes closed; seen pixels stay as they are.
    """
    weight = seen[None].to(layers)
    stacked = torch.cat([weight, torch.where(seen, layers, 0.0)])
    sums = summed(stacked, 1)
    count = sums[0]
    holes = ~seen & (count >= _ENOUGH)
    return torch.where(holes, sums[1:] / count.clamp_min(1), layers), seen | holes


def scene_memory(keyframes: tuple[Keyframe, ...], settings: WarpSettings) -> SceneMemory:
    """The memory that ``settings.memory`` asks for, holding ``keyframes``."""
    if settings.memory == "gaussian":
        return GaussianMemory(keyframes, settings)
    if settings.memory == "points":
        return PointMemory(keyframes)
    if settings.memory == "none":
        return NoMemory(keyframes)
    return MeshMemory(keyframes)
