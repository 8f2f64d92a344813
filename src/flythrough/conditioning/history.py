"""The native history of Helios: which latents of the past the denoiser sees, and as which frames.

A chunk is nine latent frames (33 pictures). Before every chunk the last 19 latents are cut into a
long, a mid and a short band (16, 2 and 1 latents), and the first frame of the video is put in front
of the short band as an anchor. Frame indices never advance with the video: the anchor is frame 0,
the past ends at frame 19 and the nine frames to be made are 20..28 (Helios, arXiv 2603.04379).
"""

from __future__ import annotations

import torch
from torch import Tensor

from flythrough.conditioning.bands import (
    BandSizes,
    check_latents,
    check_same_size,
    frame_indices,
    joined,
    newest,
    seen,
    split,
)
from flythrough.errors import InputError
from flythrough.models.history_tokens import History

HISTORY_SIZES: BandSizes = (16, 2, 1)
LATENT_FRAMES = 9
CHUNK_FRAMES = 33
ANCHOR_INDEX = 0


def native_history(
    past: Tensor | None,
    prefix: Tensor | None,
    *,
    sizes: BandSizes = HISTORY_SIZES,
    keep_first_frame: bool = True,
) -> History:
    """The history of plain Helios, and of the finer stages of Warp-as-History.

    Latents that do not exist yet are zeros and are *not* hidden: the network has learned to read an
    all-zero history as "nothing so far".

    Args:
        past: all latents so far [B,16,n,h,w], oldest first, start latents included. n may be 0, and
            None means the same; only the newest ``sum(sizes)`` count.
        prefix: the anchor latent [B or 1,16,1,h,w]; None without ``keep_first_frame``.
        sizes: latents in the long, mid and short band.
        keep_first_frame: without it there is no anchor; the short band takes one latent more and
            the past starts at index 0, while the target indices stay the same.

    Raises:
        InputError: an anchor given or missing against ``keep_first_frame``, negative sizes, or
            latents that do not belong together.
    """
    check_sizes(sizes)
    if keep_first_frame == (prefix is None):
        raise InputError(
            f"the anchor latent is {'missing' if prefix is None else 'given'} while "
            f"keep_first_frame is {keep_first_frame}; give an anchor exactly when it is to be kept"
        )
    like = prefix if past is None else past
    if like is None:
        raise InputError(
            "neither past latents nor an anchor were given, so the latent size is unknown; pass "
            "past latents of zero frames"
        )
    check_latents(like, "past")
    if prefix is None:
        sizes = (sizes[0], sizes[1], sizes[2] + 1)
    last = sum(sizes) if prefix is not None else sum(sizes) - 1
    long, mid, short = split(newest(past, like, sum(sizes), last), sizes)
    if prefix is not None:
        check_same_size(like, prefix, "anchor")
        short = joined(seen(prefix, ANCHOR_INDEX, len(like)), short)
    return History(
        short=short.band(select=False), mid=mid.band(select=False), long=long.band(select=False)
    )


def target_indices(
    batch: int = 1,
    *,
    sizes: BandSizes = HISTORY_SIZES,
    frames: int = LATENT_FRAMES,
    device: torch.device | None = None,
) -> Tensor:
    """Frame indices of the latents to be made: [B,9] int64, 20..28 for the published sizes."""
    return frame_indices(first_target(sizes), frames, batch, device)


def first_target(sizes: BandSizes = HISTORY_SIZES) -> int:
    """The index right after the anchor and the past."""
    return 1 + sum(sizes)


def check_sizes(sizes: BandSizes) -> None:
    """Three counts, none negative.

    Raises:
        InputError: anything else.
    """
    if len(sizes) != 3 or any(size < 0 for size in sizes):
        raise InputError(
            f"history sizes {tuple(sizes)} are not usable; give three counts of latents (long, "
            "mid, short), none of them negative"
        )
