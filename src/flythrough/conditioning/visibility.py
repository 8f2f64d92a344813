"""Visibility of rendered frames, on the grid of their latents."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from flythrough.errors import InputError

TEMPORAL_FACTOR = 4


def visibility_to_latent(
    visible: Tensor, size: tuple[int, int] | torch.Size, *, reference: bool = False
) -> Tensor:
    """Reduce the visibility of a chunk's frames to its latents: frames 0, 4, 8, ..., resized.

    A latent covers four frames; its visibility is that of the first frame it encodes after the
    lead, as in the published code. Space is resized bilinearly with pixel centres at half-integers
    and without antialiasing, then clamped.

    Args:
        visible: [B,T,H,W] or [B,1,T,H,W] in [0,1], bool or floating. T = 4k+1 gives k+1 latents (33
            give 9). T = 4k+2 means that the boundary frame is in front, as chunks after the first
            are rendered: it is dropped.
        size: (h, w) of the latents.
        reference: with a boundary frame in front, keep the published off-by-one: sample the mask
            with the boundary frame still in it.

    Returns:
        [B,k+1,h,w] float32 in [0,1].

    Raises:
        InputError: a frame count that is neither 4k+1 nor 4k+2, integer values, or wrong axes.
    """
    if visible.ndim == 5 and visible.shape[1] == 1:
        visible = visible[:, 0]
    if visible.ndim != 4:
        raise InputError(
            f"a visibility clip has shape {tuple(visible.shape)}, but [B, T, H, W] is needed; add "
            "the missing axes"
        )
    if not (visible.is_floating_point() or visible.dtype == torch.bool):
        raise InputError(
            f"a visibility clip is of type {visible.dtype}, but values in [0, 1] are needed; "
            "divide 8-bit masks by 255"
        )
    remainder = visible.shape[1] % TEMPORAL_FACTOR
    if remainder not in (1, 2):
        raise InputError(
            f"a visibility clip has {visible.shape[1]} frames, but a chunk has 4k+1 (33) or, with "
            "the boundary frame in front, 4k+2 (34); render whole chunks"
        )
    with_boundary = remainder == 2
    first = 1 if with_boundary and not reference else 0
    count = visible.shape[1] - 1 if with_boundary else visible.shape[1]
    sampled = visible[:, first : first + count : TEMPORAL_FACTOR].to(torch.float32)
    resized = interpolate(
        sampled[:, None], (sampled.shape[1], *size), mode="trilinear", align_corners=False
    )
    return resized[:, 0].clamp(0.0, 1.0)
