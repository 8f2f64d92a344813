"""The compressed past as the denoiser takes it: bands of latents, their frame indices, visibility.

Helios (arXiv 2603.04379) reads old latents in three bands of falling resolution; Warp-as-History
adds, per history token, whether anything was seen there, and leaves unseen tokens out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from flythrough.errors import InputError

Kernel = tuple[int, int, int]
Selection = Literal["drop", "mask"]

# What the published code falls back to when no threshold, or zero, is passed to it.
_REFERENCE_THRESHOLD = 0.5


@dataclass(frozen=True, eq=False)
class HistoryBand:
    """Latents of one band.

    Attributes:
        latents: [B,C,t,h,w], normalised, at full latent resolution whatever the pyramid stage.
        indices: [B,t] or [1,t] integers, the frame index of every latent.
        visible: [B,t,h,w] or [1,t,h,w] (a channel axis of one is allowed) in [0,1], or None where
            everything counts as seen.

    Raises:
        InputError: shapes that do not belong together.
    """

    latents: Tensor
    indices: Tensor
    visible: Tensor | None = None

    def __post_init__(self) -> None:
        if self.latents.ndim != 5:
            raise InputError(
                f"history latents have shape {tuple(self.latents.shape)}, but a band needs "
                "[B, C, t, h, w]; add the missing axes"
            )
        batch, _, frames, height, width = self.latents.shape
        if self.indices.ndim != 2 or self.indices.shape[1] != frames:
            raise InputError(
                f"frame indices of shape {tuple(self.indices.shape)} do not fit {frames} history "
                "latents; give one index for every latent, [B, t]"
            )
        if self.visible is None:
            return
        if self.visible.ndim == 5 and self.visible.shape[1] == 1:
            object.__setattr__(self, "visible", self.visible[:, 0])
        shape = tuple(self.visible.shape)
        if shape not in {(batch, frames, height, width), (1, frames, height, width)}:
            raise InputError(
                f"a visibility mask of shape {shape} does not fit history latents of shape "
                f"{tuple(self.latents.shape)}; give it as [B, t, h, w] at the latents' resolution"
            )


class ChosenTokens(NamedTuple):
    """Positions [n] int64 of the tokens that stay in each band, None where all do, and how many
    stay in all bands together."""

    long: Tensor | None
    mid: Tensor | None
    short: Tensor | None
    total: int

    @property
    def dropped(self) -> bool:
        """Whether any token was left out."""
        return any(band is not None for band in (self.long, self.mid, self.short))


@dataclass(frozen=True, eq=False)
class History:
    """The three bands, newest first, and the visibility from which a token is kept.

    ``threshold`` is inclusive and in [0,1]; None keeps every token, whatever the masks say.
    ``chosen`` are the tokens that stay where they were chosen already, before the latents were
    known (``HeliosTransformer.choose_tokens``); None: when the history is packed.

    Raises:
        InputError: a threshold outside [0,1], or bands of different latent sizes.
    """

    short: HistoryBand | None = None
    mid: HistoryBand | None = None
    long: HistoryBand | None = None
    threshold: float | None = 0.5
    chosen: ChosenTokens | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0.0 <= self.threshold <= 1.0:
            raise InputError(
                f"visibility threshold {self.threshold} lies outside [0, 1]; choose a share of a "
                "token's area, or None to keep all tokens"
            )
        sizes = {tuple(b.latents.shape[-2:]) for b in (self.short, self.mid, self.long) if b}
        if len(sizes) > 1:
            raise InputError(
                f"history bands have latent sizes {sorted(sizes)}, but all must have that of the "
                "finest stage; resize them"
            )


class PackedHistory(NamedTuple):
    """A history ready for the blocks: made once, good for every step of a stage.

    Attributes:
        tokens: [B or 1,H,D] embedded latents in the order long, mid, short.
        cos, sin: [B or 1,H,head_dim / 2] rotary tables, float32.
        visible: [B,H] bool, which tokens may be attended to; None where all may.
        dropped: tokens were left out, so that their number is as good as any.
    """

    tokens: Tensor
    cos: Tensor
    sin: Tensor
    visible: Tensor | None = None
    dropped: bool = False


HISTORY_TENSORS = ("tokens", "cos", "sin", "visible")
"""The fields of :class:`PackedHistory` that are tensors, or None."""


def pad_to_multiple(x: Tensor, kernel: Kernel) -> Tensor:
    """Repeat the last values of the three trailing axes up to multiples of ``kernel``."""
    (t, h, w), (kt, kh, kw) = x.shape[-3:], kernel
    extra = (0, -w % kw, 0, -h % kh, 0, -t % kt)
    return functional.pad(x, extra, mode="replicate") if any(extra) else x


def pooled_visibility(visible: Tensor, kernel: Kernel) -> Tensor:
    """Mean visibility of every token: [B,t,h,w] to [B,t',h',w'] float32, edges repeated."""
    padded = pad_to_multiple(visible.float()[:, None], kernel)
    return functional.avg_pool3d(padded, kernel, stride=kernel)[:, 0]


def kept_tokens(visible: Tensor, kernel: Kernel, threshold: float) -> Tensor:
    """Which tokens are seen enough: [B,N] bool in token order (t, h, w); the rule is >=."""
    return pooled_visibility(visible, kernel).flatten(1) >= threshold


def effective_threshold(threshold: float | None, *, reference: bool) -> float | None:
    """The threshold in force; the published code turns a missing one or zero into 0.5."""
    return (threshold or _REFERENCE_THRESHOLD) if reference else threshold


def kept_positions(keeps: Sequence[Tensor]) -> list[Tensor | None]:
    """Positions kept by every sample of each of ``keeps`` [B,N]; None where that is all of them.

    The host waits once for how many they are, whatever the number of bands.

    Raises:
        InputError: samples disagree, so that no rectangular batch remains.
    """
    if not keeps:
        return []
    facts = [torch.stack([k[0].sum(), (k != k[:1]).any().long()]) for k in keeps]
    found: list[Tensor | None] = []
    for keep, (count, differ) in zip(keeps, torch.stack(facts).tolist(), strict=True):
        if differ:
            raise InputError(
                "visibility masks differ between the samples of a batch, so that different tokens "
                'would be dropped; pass selection="mask" or run the samples one by one'
            )
        # A stable sort lists them in order without asking how many there are.
        ordered = (~keep[0]).byte().sort(stable=True).indices
        found.append(None if count == keep.shape[1] else ordered[:count])
    return found
