"""The noise field of WorldWarp: which parts of a chunk are kept, revised or invented.

Every latent cell gets a *start*: the step of the sampler's schedule from which it takes part. What
nothing was seen of starts at step 0, from pure noise; what was rendered waits at a partial noise
level until the rest has come down to it; the chunk's overlap with the past never takes part (arXiv
2512.19678, section 4.2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from flythrough.errors import InputError

TEMPORAL_FACTOR = 4
SPATIAL_FACTOR = 8
PATCH = 2

Variation = Literal["both", "spatial", "temporal", "uniform"]
"""What noise levels depend on: the place and the frame, one of the two, or neither (ablations)."""


@dataclass(frozen=True, kw_only=True)
class FieldSettings:
    """How visibility becomes a noise field.

    Attributes:
        strength: share of the steps, from the last, that rewrite rendered cells: 0 hardly touches
            them, 1 ignores them.
        erosion: side in pixels, odd, of the window around a pixel that must be valid throughout.
        reference: as published: only every fourth frame's mask, eroded against invalid borders and
            sampled at the corner of each cell; token levels taken from the corner of each patch.
            By default all frames and pixels of a patch must be valid, and borders count as what
            lies beside them.
        variation: ``spatial``: rendered and unseen cells differ, but known frames get noise as
            rendered ones do; ``temporal``: known frames stay clean, but unseen cells begin where
            rendered ones do; ``uniform``: all cells begin there, as when a video is edited.

    Raises:
        InputError: a value out of range.
    """

    strength: float = 0.8
    erosion: int = 15
    reference: bool = False
    variation: Variation = "both"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.strength) and 0 <= self.strength <= 1):
            raise InputError(
                f"The strength {self.strength:g} is out of range; give 0 (keep what was rendered) "
                "to 1 (ignore it)."
            )
        if self.variation not in get_args(Variation):
            raise InputError(
                f"The noise field {self.variation!r} is unknown; choose "
                f"{' or '.join(get_args(Variation))}."
            )
        if self.erosion < 1 or self.erosion % 2 == 0 or self.erosion > 255:
            raise InputError(
                f"The erosion {self.erosion} must be an odd number of pixels from 1 to 255; 15 was "
                "published."
            )


def valid_cells(visible: Tensor, settings: FieldSettings) -> Tensor:
    """Which latent cells show something rendered.

    Args:
        visible: [B,T,H,W] in [0,1] (T = 4k + 1; H, W multiples of 8, of 16 unless ``reference``);
            0.5 and above is valid.

    Returns:
        bool [B,k+1,H/8,W/8], constant on 2x2 patches unless ``reference``.

    Raises:
        InputError: a shape that has no latents.
    """
    unit = SPATIAL_FACTOR if settings.reference else SPATIAL_FACTOR * PATCH
    _, frames, height, width = visible.shape if visible.ndim == 4 else (0, 0, 0, 0)
    if frames % TEMPORAL_FACTOR != 1 or height % unit or width % unit:
        raise InputError(
            f"A mask of shape {tuple(visible.shape)} has no latent cells; give [B, T, H, W] with T "
            f"one more than a multiple of {TEMPORAL_FACTOR} and sides that are multiples of {unit}."
        )
    valid = (visible >= 0.5).float()
    if settings.reference:
        sampled = valid[:, ::TEMPORAL_FACTOR]
        return _eroded(sampled, settings.erosion, "zeros")[..., ::unit, ::unit] > 0.5
    covered = _least_in_time(_eroded(valid, settings.erosion, "replicate"))
    cells = -functional.max_pool2d(-covered, unit) > 0.5
    return cells.repeat_interleave(PATCH, -2).repeat_interleave(PATCH, -1)


def start_steps(valid: Tensor, steps: int, settings: FieldSettings, context: int = 0) -> Tensor:
    """The step from which each cell is denoised: int64 [B,T,h,w] in 0 .. ``steps``.

    Args:
        valid: bool [B,T,h,w], see :func:`valid_cells`.
        context: latent frames at the front that are known; they start at ``steps``, that is never.
    """
    rendered = valid if settings.variation in ("both", "spatial") else torch.ones_like(valid)
    start = torch.where(rendered, start_step(settings.strength, steps, settings.reference), 0)
    if settings.variation in ("both", "temporal"):
        start[:, :context] = steps
    return start


def start_step(strength: float, steps: int, reference: bool = False) -> int:
    """The first of ``steps`` steps that rewrites rendered cells.

    Strength counts whole steps. The published code cuts the product of two floats, which loses a
    step at some values (0.8 of 50 leaves 41 steps); ``reference`` repeats that.
    """
    skipped = (1 - strength) * steps
    return min(int(skipped if reference else round(skipped, 6)), steps - 1)


def patch_steps(start: Tensor) -> Tensor:
    """One start for each token [B,T,h/2,w/2]: that of its patch's corner."""
    return start[..., ::PATCH, ::PATCH]


def _eroded(valid: Tensor, side: int, border: str) -> Tensor:
    """1 where all of the ``side`` x ``side`` window is 1."""
    reach = side // 2
    if reach == 0:
        return valid
    edges = (reach, reach, reach, reach)
    if border == "replicate":
        padded = functional.pad(valid, edges, mode="replicate")
    else:
        padded = functional.pad(valid, edges)
    rows = -functional.max_pool2d(-padded, (side, 1), stride=1)
    return -functional.max_pool2d(-rows, (1, side), stride=1)


def _least_in_time(valid: Tensor) -> Tensor:
    """[B,4k+1,H,W] -> [B,k+1,H,W]: the first frame alone, then the least of every four."""
    first, rest = valid[:, :1], valid[:, 1:]
    return torch.cat([first, rest.unflatten(1, (-1, TEMPORAL_FACTOR)).amin(2)], dim=1)
