"""Meshes into one z-buffer, small holes closed, the unseen coloured: one layer of a rendering.

On NVIDIA GPUs with Triton all frames are drawn from the grids themselves (``triton_raster.py``);
elsewhere, and in the published arithmetic, the samples are laid out and splatted (``raster.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor

from flythrough.scene.fill import close_small_holes
from flythrough.scene.mesh import GridMesh, joined
from flythrough.scene.raster import Splat, frames_per_pass, kernel_frames_per_pass, splat
from flythrough.scene.rendered import RenderedView, concatenated
from flythrough.scene.settings import WarpSettings

MOST_SAMPLES = 2**32 - 1
"""What an index beside a depth in one 64-bit key can count."""


class Part(NamedTuple):
    """A mesh, its samples along each side of a cell, and its picture [3,H,W] in [0,1]."""

    mesh: GridMesh
    per_axis: int
    picture: Tensor


Draw = Callable[[Tensor, Tensor], Splat]


def drawn(
    parts: Sequence[Part],
    cameras: Tensor,
    intrinsics: Tensor,
    size: tuple[int, int],
    settings: WarpSettings,
    colour: Tensor,
) -> RenderedView:
    """What cameras [T,4,4] with intrinsics [T,3,3] see of ``parts`` in one z-buffer.

    As many frames at a time as fit into memory; unseen pixels take ``colour`` [3].
    """
    closing = settings.render_mode == "target_fill" and settings.fill_radius > 0
    step, draw = _painter(parts, size, settings)
    views = []
    for some, matrices in zip(cameras.split(step), intrinsics.split(step), strict=True):
        shown = draw(some, matrices)
        if closing:
            shown = close_small_holes(
                shown,
                [part.picture for part in parts],
                radius=settings.fill_radius,
                min_neighbors=settings.fill_min_neighbors,
                reference=settings.reference,
            )
        rgb = torch.where(shown.seen[..., None], shown.rgb, colour.to(shown.rgb))
        views.append(
            RenderedView(
                rgb=rgb.permute(0, 3, 1, 2).float().contiguous(),
                depth=shown.depth.float(),
                visible=shown.seen.float(),
            )
        )
    return views[0] if len(views) == 1 else concatenated(views)


def _painter(
    parts: Sequence[Part], size: tuple[int, int], settings: WarpSettings
) -> tuple[int, Draw]:
    """Frames at a time, and what draws them."""
    if _kernels_draw(parts, settings):
        from flythrough.scene.triton_raster import draw_grids

        pixels = size[0] * size[1]
        return kernel_frames_per_pass(pixels), lambda cameras, matrices: draw_grids(
            parts, cameras, matrices, size
        )
    found = [part.mesh.sampled(part.per_axis, quantise=settings.reference) for part in parts]
    samples = joined(found) if len(found) > 1 else found[0]
    return frames_per_pass(samples, size), lambda cameras, matrices: splat(
        samples, cameras, matrices, size
    )


def _kernels_draw(parts: Sequence[Part], settings: WarpSettings) -> bool:
    points = parts[0].mesh.points
    nvidia = points.device.type == "cuda" and torch.version.cuda is not None
    total = sum(part.mesh.whole.numel() * part.per_axis**2 for part in parts)
    fits = points.dtype == torch.float32 and not settings.reference and total < MOST_SAMPLES
    return nvidia and fits and _has_triton()


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None
