"""Warped history: rendered views as evidence for the very frames that are to be made.

The scene is rendered from the requested cameras, encoded to latents and placed in the short band of
the history (or, in the efficient variant, in the mid band) *at the frame indices of the target*, so
that the denoiser reads warp latent j as a statement about target latent j. What the renderer did
not see is marked, and tokens below a visibility threshold are left out (Warp-as-History, arXiv
2605.15182).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from flythrough.conditioning.bands import (
    BandSizes,
    Run,
    check_latents,
    check_same_size,
    frame_indices,
    joined,
    newest,
    seen,
    split,
)
from flythrough.conditioning.condition_noise import draw_condition_noise, noised
from flythrough.conditioning.history import (
    ANCHOR_INDEX,
    HISTORY_SIZES,
    check_sizes,
    first_target,
)
from flythrough.conditioning.visibility import visibility_to_latent
from flythrough.errors import InputError
from flythrough.models.history_tokens import History

__all__ = [
    "WarpHistorySettings",
    "draw_condition_noise",
    "noised",
    "visibility_to_latent",
    "warped_history",
]

WarpBand = Literal["short", "patch_mid"]
WarpPosition = Literal["target", "target_reversed", "past"]


@dataclass(frozen=True)
class WarpHistorySettings:
    """How the warp is packed.

    Attributes:
        prev_sizes: latents of the real past kept in the long, mid and short band, at most (16,2,1).
        align: the target shares the warp's frame indices. Off, the target moves on by the warp's
            length and the warp reads as its immediate past.
        select: leave out tokens whose mean visibility is below ``threshold`` (inclusive rule).
        threshold: share of a token's area that must have been seen, in [0,1].
        mode: the band that takes the warp. "patch_mid" makes the warp seven times cheaper and needs
            an adapter trained for it; keep the mid count even, or pairs of frames shift.
        position: where the warp's indices lie: "target"; "target_reversed" (a training ablation);
            or "past", the frames right before the target.
        delta: subtracted from the warp's indices (a training ablation).
        total_sizes: the history the indices are counted by; the target starts right after it.
    """

    prev_sizes: BandSizes = HISTORY_SIZES
    align: bool = True
    select: bool = True
    threshold: float = 0.1
    mode: WarpBand = "short"
    position: WarpPosition = "target"
    delta: int = 0
    total_sizes: BandSizes = HISTORY_SIZES

    def __post_init__(self) -> None:
        check_sizes(self.prev_sizes)
        check_sizes(self.total_sizes)
        limits = zip(self.prev_sizes, HISTORY_SIZES, strict=True)
        if any(size > limit for size, limit in limits):
            raise InputError(
                f"history sizes {self.prev_sizes} exceed {HISTORY_SIZES}, the bands the network "
                "knows; lower them"
            )
        if sum(self.prev_sizes) > sum(self.total_sizes):
            raise InputError(
                f"history sizes {self.prev_sizes} hold more latents than {self.total_sizes}, by "
                "which frame indices are counted; lower them"
            )
        if not 0.0 <= self.threshold <= 1.0:
            raise InputError(
                f"visibility threshold {self.threshold} lies outside [0, 1]; choose a share of a "
                "token's area"
            )
        if self.mode not in ("short", "patch_mid"):
            raise InputError(f'warp mode {self.mode!r} is unknown; choose "short" or "patch_mid"')
        if self.position not in ("target", "target_reversed", "past"):
            raise InputError(
                f'warp position {self.position!r} is unknown; choose "target", "target_reversed" '
                'or "past"'
            )


def warped_history(
    prefix: Tensor,
    past: Tensor | None,
    warp: Tensor,
    warp_visible: Tensor,
    *,
    settings: WarpHistorySettings,
    still_start: bool = True,
) -> tuple[History, Tensor]:
    """The history of the stages that see the warp, and the target's frame indices.

    Args:
        prefix: the first frame's latent [B or 1,16,1,h,w], noised by the caller (:func:`noised`).
        past: *all* latents before the target [B,16,n,h,w], oldest first; do not cut it, the
            settings say how many count. n may be 0 and None means the same.
        warp: the encoded warp [B,16,t,h,w] (t = 9), noised by the caller.
        warp_visible: [B or 1,t,h,w] in [0,1], see :func:`visibility_to_latent`.
        still_start: ``past`` begins with the "still" latent of the start image. It stands in for a
            past only while there is none (and only if the short band holds past latents): once a
            chunk is finished the window holds finished latents alone, as in the published code.

    Returns:
        the history, and [B,t] int64.

    Raises:
        InputError: shapes that do not belong together, or frame indices below zero.
    """
    check_latents(warp, "warp")
    if past is not None:
        check_same_size(past, warp, "warp")
    check_same_size(warp, prefix, "anchor")
    batch, frames = warp.shape[0], warp.shape[2]
    start, sizes = first_target(settings.total_sizes), settings.prev_sizes
    window = newest(_real_past(past, still_start, sizes), warp, sum(sizes), last=start - 1)
    long, mid, short = split(window, sizes)
    short = joined(seen(prefix, ANCHOR_INDEX, batch), short)
    evidence = Run(warp, _warp_indices(settings, start, warp), _fitted(warp_visible, warp))
    if settings.mode == "short":
        short = joined(short, evidence)
    else:
        mid = joined(mid, evidence)
    select = settings.select
    history = History(
        short=short.band(select=select),
        mid=mid.band(select=select),
        long=long.band(select=select),
        threshold=settings.threshold if select else None,
    )
    shift = 0 if settings.align else frames
    return history, frame_indices(start + shift, frames, batch, warp.device)


def _real_past(past: Tensor | None, still_start: bool, sizes: BandSizes) -> Tensor | None:
    """What counts as past: the still start latent only while nothing else exists."""
    if past is None or not still_start:
        return past
    if past.shape[2] > 1:
        return past[:, :, 1:]
    return past if sizes[2] > 0 else past[:, :, :0]


def _warp_indices(settings: WarpHistorySettings, start: int, warp: Tensor) -> Tensor:
    batch, frames = warp.shape[0], warp.shape[2]
    first = start - frames if settings.position == "past" else start
    first -= settings.delta
    if first < 0:
        raise InputError(
            f"the warp would start at frame index {first}, but indices are not negative; lower "
            f"delta ({settings.delta}) or keep a longer history"
        )
    indices = frame_indices(first, frames, batch, warp.device)
    return indices.flip(1) if settings.position == "target_reversed" else indices


def _fitted(visible: Tensor, warp: Tensor) -> Tensor:
    batch, _, frames, height, width = warp.shape
    expected = (frames, height, width)
    if visible.ndim != 4 or visible.shape[1:] != expected or visible.shape[0] not in (1, batch):
        raise InputError(
            f"warp visibility of shape {tuple(visible.shape)} does not fit warp latents of shape "
            f"{tuple(warp.shape)}; reduce it with visibility_to_latent first"
        )
    return visible.to(torch.float32).expand(batch, -1, -1, -1)
