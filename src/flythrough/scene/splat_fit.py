"""Fitting Gaussians to the pictures they came from (WorldWarp, appendix; arXiv:2512.19678).

A few hundred steps of Adam, one source a step, without growing or dropping any Gaussian.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flythrough.scene.splat_projection import project
from flythrough.scene.splat_raster import Pairs, SplatView, listed
from flythrough.scene.splat_render import drawn, renderer
from flythrough.scene.splats import Splats, scene_unit, splats_from
from flythrough.scene.ssim import Ssim
from flythrough.scene.surface import Keyframe
from flythrough.seeds import generator

RATES = {
    "means": 1.6e-3,
    "log_scales": 5e-3,
    "quaternions": 1e-3,
    "opacity_logits": 5e-2,
    "sh0": 2.5e-3,
    "sh_rest": 1.25e-4,
}
"""Learning rates; lengths are in metres, or in median depths where depth is not metric."""

_NUMBERS = 59
"""Of a Gaussian: place, sizes, rotation, opacity and three colours of sixteen harmonics."""
_PROJECTED_BYTES = 1650
"""What projection and its gradients keep of a Gaussian; this and the next measured on a CPU."""
_PIXEL_BYTES, _LAYER_BYTES = 1300, 3200
"""Of a pixel: pictures, and pairs with the Gaussians that each source has there."""
_COLOUR, _STRUCTURE, _DISPARITY = 0.8, 0.2, 0.01
OnStep = Callable[[int, int], None]
"""Called after every step with the steps done and their number."""
_EPS = 1e-15
_REFRESH = 8
"""Steps for which the plain renderer's list of pairs is used: Gaussians move by less than a pixel
in that time, but listing takes as long as three steps."""


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How long to fit, and how many Gaussians a source picture and the scene may have.

    ``widest`` bounds their size at the start (see ``splats_from``); ``seed`` decides which pixels
    become Gaussians, and the order of the sources.
    """

    steps: int = 500
    per_source: int = 50_000
    most: int = 1_000_000
    widest: float = 0.6
    seed: int = 0


def fit_bytes(size: tuple[int, int], sources: int, settings: FitSettings | None = None) -> int:
    """Bytes that fitting to ``sources`` pictures of ``size`` (height, width) takes at most: an
    estimate from the number of Gaussians (parameters, gradients and two moments of Adam, and what
    projection keeps) and of their pairs with pixels, which grow with the area of all sources. It is
    made for the plain renderer, which keeps more than gsplat."""
    settings = FitSettings() if settings is None else settings
    pixels = size[0] * size[1]
    gaussians = min(settings.most, sources * min(settings.per_source, pixels))
    a_gaussian = 4 * 4 * _NUMBERS + _PROJECTED_BYTES
    return gaussians * a_gaussian + pixels * (_PIXEL_BYTES + sources * _LAYER_BYTES)


@dataclass(frozen=True, eq=False)
class _Source:
    """One picture to fit: all tensors free of inference mode, lengths in the fit's unit."""

    image: Tensor
    alike: Ssim
    disparity: Tensor
    sure: Tensor
    count: Tensor
    camera: Tensor
    matrix: Tensor

    @property
    def size(self) -> tuple[int, int]:
        return self.image.shape[1], self.image.shape[2]


def fitted(
    keyframes: Sequence[Keyframe],
    settings: FitSettings,
    *,
    confidence: float = 0.1,
    on_step: OnStep | None = None,
) -> Splats:
    """Gaussians that show the keyframes from where these stand, in their unit, without gradients.

    Only pixels with sure depth count. The same keyframes give the same splats on one device, except
    that gsplat's own sums on a GPU vary in the last digits.

    Raises:
        NoSurfaceError: no pixel of any keyframe is sure.
    """
    with torch.inference_mode(False), torch.enable_grad():
        unit = scene_unit(keyframes)
        near = tuple(replace(k, geometry=k.geometry.scaled(1 / unit)) for k in keyframes)
        start = splats_from(
            near,
            confidence=confidence,
            per_source=settings.per_source,
            most=settings.most,
            widest=settings.widest,
            seed=settings.seed,
        )
        sources = [_source(keyframe, confidence) for keyframe in near]
        return _optimised(start, sources, settings, on_step).detached().scaled(unit)


def _optimised(
    start: Splats, sources: Sequence[_Source], settings: FitSettings, on_step: OnStep | None
) -> Splats:
    splats = start.trainable()
    groups = [{"params": [value], "lr": RATES[name]} for name, value in splats.tensors().items()]
    # One launch a group instead of a dozen: on a GPU a step is bound by launches.
    fused = splats.means.device.type == "cuda"
    optimiser = torch.optim.Adam(groups, eps=_EPS, fused=fused)
    draws = torch.randint(
        len(sources), (settings.steps,), generator=generator(settings.seed, "splat sources")
    )
    plain = renderer(splats.means.device) == "torch"
    lists: dict[int, tuple[int, Pairs]] = {}
    for step, number in enumerate(draws.tolist()):
        source = sources[number]
        pairs = None
        if plain:
            made, pairs = lists.get(number, (-_REFRESH, None))
            if pairs is None or step - made >= _REFRESH:
                with torch.no_grad():
                    found = project(splats, source.camera, source.matrix, source.size)
                pairs = listed(found, source.size)
                lists[number] = step, pairs
        optimiser.zero_grad(set_to_none=True)
        view = drawn(splats, source.camera, source.matrix, source.size, pairs)
        _loss(view, source).backward()
        optimiser.step()
        if on_step is not None:
            on_step(step + 1, settings.steps)
    return splats


def _loss(view: SplatView, source: _Source) -> Tensor:
    sure, count = source.sure, source.count
    # Where depth is not sure nothing is to be shown, so that place counts as right.
    shown = torch.where(sure, view.rgb.permute(2, 0, 1), source.image)
    colour = (shown - source.image).abs().sum() / (3 * count)
    structure = 1 - source.alike(shown)
    there = view.depth > 0
    inverse = torch.where(there, 1 / torch.where(there, view.depth, 1.0), 0.0)
    disparity = (torch.where(sure, inverse - source.disparity, 0.0)).abs().sum() / count
    return _COLOUR * colour + _STRUCTURE * structure + _DISPARITY * disparity


def _source(keyframe: Keyframe, confidence: float) -> _Source:
    geometry = keyframe.geometry
    depth = geometry.depth[0].float().clone()
    sure = (geometry.valid[0] & (geometry.confidence[0] > confidence) & (depth > 0)).clone()
    image = keyframe.image.float().clone()
    return _Source(
        image=image,
        alike=Ssim(image),
        disparity=torch.where(sure, 1 / torch.where(sure, depth, 1.0), 0.0),
        sure=sure,
        count=sure.sum().clamp_min(1),
        camera=geometry.world_from_camera[0].float().clone(),
        matrix=geometry.intrinsics[0].float().clone(),
    )
