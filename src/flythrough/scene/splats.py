"""A scene as coloured 3D Gaussians (Kerbl et al. 2023), and its start from depth maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from math import ceil, sqrt

import torch
from torch import Tensor
from torch.nn import functional

from flythrough.geometry.types import ScaleKind
from flythrough.scene.mesh import NOTHING_TO_RENDER, NoSurfaceError
from flythrough.scene.surface import Keyframe
from flythrough.seeds import generator

SH_REST = 15
"""Coefficients beside the constant one: spherical harmonics up to degree 3."""
SH_CONSTANT = 0.28209479177387814
"""Value of the constant harmonic: colour = 0.5 + SH_CONSTANT * coefficient."""

_OPACITY = 0.9999
_NEIGHBOURS = 3
_WANTED = 13  # pixels to find neighbours among
_LEAST_SQUARE = 1e-7
_NEAREST = 0.05
"""Depths below this share of the median (below 5 cm in metres) are taken for noise."""


@dataclass(frozen=True, eq=False)
class Splats:
    """N Gaussians, float32, in the world frame; the tensors are what an optimiser works on.

    Attributes:
        means: [N,3] centres.
        log_scales: [N,3] logarithms of the standard deviations along the own axes.
        quaternions: [N,4] (w,x,y,z) of any length.
        opacity_logits: [N].
        sh0: [N,1,3] constant harmonic, and sh_rest: [N,15,3] the others, of each colour channel.
    """

    means: Tensor
    log_scales: Tensor
    quaternions: Tensor
    opacity_logits: Tensor
    sh0: Tensor
    sh_rest: Tensor

    def __len__(self) -> int:
        return len(self.means)

    def tensors(self) -> dict[str, Tensor]:
        """All of them by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def detached(self) -> Splats:
        """The same numbers without gradients."""
        return replace(self, **{name: value.detach() for name, value in self.tensors().items()})

    def trainable(self) -> Splats:
        """Copies that collect gradients."""
        return Splats(
            **{k: v.detach().clone().requires_grad_(True) for k, v in self.tensors().items()}
        )

    def scaled(self, factor: float) -> Splats:
        """The same scene in another unit of length."""
        return replace(
            self,
            means=self.means * factor,
            log_scales=self.log_scales + torch.log(self.means.new_tensor(factor)),
        )


def scene_unit(keyframes: Sequence[Keyframe]) -> float:
    """Length that stands for a metre: 1 where depth is metric, else the first median depth."""
    first = keyframes[0].geometry
    return 1.0 if first.scale is ScaleKind.METRIC else float(first.median_depth())


def splats_from(
    keyframes: Sequence[Keyframe],
    *,
    confidence: float = 0.1,
    per_source: int = 50_000,
    most: int = 1_000_000,
    widest: float = 0.6,
    seed: int = 0,
) -> Splats:
    """One Gaussian for each sure pixel, at most ``per_source`` of a picture and ``most`` in all.

    Pixels are drawn at random from the seed. Sizes are the root mean square distance to the three
    nearest of the picture's own Gaussians (WorldWarp section 3.1, where near points are kept and
    the confidence is one; published code drops everything nearer than 0.8 m instead), but no more
    than ``widest`` times the spacing of pixels at that depth: on surfaces seen edge-on neighbours
    lie far behind each other, and round Gaussians of that size hide what is beside them
    (``widest=inf`` is as published).

    Raises:
        NoSurfaceError: no pixel is sure.
    """
    quota = max(1, min(per_source, most // len(keyframes)))
    parts = [
        _of_one(keyframe, confidence, quota, widest, seed, number)
        for number, keyframe in enumerate(keyframes)
    ]
    points, radii, colours = (torch.cat(part) for part in zip(*parts, strict=True))
    count = len(points)
    if count == 0:
        raise NoSurfaceError(NOTHING_TO_RENDER)
    return Splats(
        means=points,
        log_scales=radii.log()[:, None].expand(count, 3).contiguous(),
        quaternions=points.new_tensor([1.0, 0, 0, 0]).expand(count, 4).contiguous(),
        opacity_logits=torch.logit(points.new_full((count,), _OPACITY)),
        sh0=((colours - 0.5) / SH_CONSTANT)[:, None],
        sh_rest=points.new_zeros(count, SH_REST, 3),
    )


def _of_one(
    keyframe: Keyframe, confidence: float, quota: int, widest: float, seed: int, number: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Centres [n,3], radii [n] and colours [n,3] of one picture."""
    geometry = keyframe.geometry
    depth = geometry.depth[0].float()
    nearest = _NEAREST
    if geometry.scale is not ScaleKind.METRIC:
        nearest *= float(geometry.median_depth())
    sure = geometry.valid[0] & (geometry.confidence[0] > confidence) & (depth > nearest)
    place = sure.flatten().nonzero()[:, 0]
    if len(place) > quota:
        drawn = torch.randperm(len(place), generator=generator(seed, "splats", number))[:quota]
        place = place[drawn.to(place.device).sort().values]
    camera = geometry.points_camera()[0].float()
    chosen = torch.zeros_like(sure).flatten()
    chosen[place] = True
    radii = _radii(camera, chosen.view_as(sure), geometry.intrinsics[0], widest)
    points = geometry.points_world()[0].float().reshape(-1, 3)[place]
    colours = keyframe.image.permute(1, 2, 0).reshape(-1, 3)[place]
    return points, radii.flatten()[place], colours.float()


def _radii(points: Tensor, chosen: Tensor, intrinsics: Tensor, widest: float) -> Tensor:
    """Root mean square distance [H,W] to the three nearest chosen points among the pixels around,
    at most ``widest`` times the spacing of chosen pixels at that depth; that spacing itself where
    there are fewer points."""
    height, width = chosen.shape
    share = float(chosen.float().mean().clamp_min(1e-6))
    reach = min(8, max(1, ceil((sqrt(_WANTED / share) - 1) / 2)))
    edges = (reach,) * 4
    far = functional.pad(points.permute(2, 0, 1), edges)
    known = functional.pad(chosen, edges)
    best = points.new_full((_NEIGHBOURS, height, width), torch.inf)
    for row in range(2 * reach + 1):
        for column in range(2 * reach + 1):
            if row == reach and column == reach:
                continue
            window = (..., slice(row, row + height), slice(column, column + width))
            square = (far[window] - points.permute(2, 0, 1)).square().sum(0)
            square = torch.where(known[window], square, torch.inf)
            best = torch.cat([best, square[None]]).topk(_NEIGHBOURS, 0, largest=False).values
    spacing = (points[..., 2] / intrinsics[0, 0]).square() / share
    mean = torch.where(torch.isfinite(best).all(0), best.mean(0), spacing)
    return torch.minimum(mean, widest**2 * spacing).clamp_min(_LEAST_SQUARE).sqrt()
