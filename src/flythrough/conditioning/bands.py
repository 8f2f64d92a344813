"""Runs of history latents with their frame indices and visibility, before they become bands."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flythrough.errors import InputError
from flythrough.models.history_tokens import HistoryBand

BandSizes = tuple[int, int, int]
"""Latents in the long, mid and short band: oldest first."""


@dataclass(frozen=True, eq=False)
class Run:
    """``latents`` [B,C,n,h,w], their frame ``indices`` [B,n] (int64) and ``visible`` [B,n,h,w]."""

    latents: Tensor
    indices: Tensor
    visible: Tensor

    def band(self, *, select: bool) -> HistoryBand | None:
        """As the denoiser takes it: None when empty, without visibility unless ``select``."""
        if self.latents.shape[2] == 0:
            return None
        return HistoryBand(self.latents, self.indices, self.visible if select else None)


def seen(latents: Tensor, first: int, batch: int) -> Run:
    """Fully visible latents with consecutive indices from ``first``; a batch of 1 serves all."""
    frames = latents.shape[2]
    latents = latents.expand(batch, -1, -1, -1, -1)
    indices = frame_indices(first, frames, batch, latents.device)
    return Run(latents, indices, torch.ones_like(latents[:, 0]))


def newest(past: Tensor | None, like: Tensor, count: int, last: int) -> Run:
    """The newest ``count`` latents of ``past``, ending at frame index ``last``.

    Latents that do not exist yet are zeros in front, with visibility zero. ``like`` gives shape and
    type when there is no past.
    """
    reference = like if past is None else past
    batch, channels, _, height, width = reference.shape
    known = reference[:, :, :0] if past is None else past
    known = known[:, :, max(0, known.shape[2] - count) :]
    missing = count - known.shape[2]
    zeros = reference.new_zeros(batch, channels, missing, height, width)
    visible = reference.new_zeros(batch, count, height, width)
    visible[:, missing:] = 1
    indices = frame_indices(last + 1 - count, count, batch, reference.device)
    return Run(torch.cat((zeros, known), dim=2), indices, visible)


def split(run: Run, sizes: BandSizes) -> tuple[Run, Run, Run]:
    """Cut into long, mid and short, oldest first."""
    parts = zip(
        run.latents.split(sizes, dim=2),
        run.indices.split(sizes, dim=1),
        run.visible.split(sizes, dim=1),
        strict=True,
    )
    long, mid, short = (Run(*part) for part in parts)
    return long, mid, short


def joined(*runs: Run) -> Run:
    """One run after the other along time."""
    return Run(
        torch.cat([run.latents for run in runs], dim=2),
        torch.cat([run.indices for run in runs], dim=1),
        torch.cat([run.visible for run in runs], dim=1),
    )


def frame_indices(first: int, count: int, batch: int, device: torch.device | None) -> Tensor:
    """``first .. first+count-1`` for every sample: [B,count] int64."""
    return torch.arange(first, first + count, device=device).expand(batch, -1)


def check_latents(latents: Tensor, what: str) -> None:
    """Latents must have the five axes [B,C,n,h,w].

    Raises:
        InputError: they do not.
    """
    if latents.ndim != 5:
        raise InputError(
            f"the {what} has shape {tuple(latents.shape)}, but latents are [B, C, n, h, w]; add "
            "the missing axes"
        )


def check_same_size(latents: Tensor, other: Tensor, what: str) -> None:
    """``other`` must have the channels and the size of ``latents``, and a batch that fits it.

    Raises:
        InputError: it does not.
    """
    check_latents(other, what)
    same = latents.shape[1] == other.shape[1] and latents.shape[3:] == other.shape[3:]
    if not same or other.shape[0] not in (1, latents.shape[0]):
        raise InputError(
            f"the {what} has shape {tuple(other.shape)}, which does not fit latents of shape "
            f"{tuple(latents.shape)}; encode both at the same size"
        )
