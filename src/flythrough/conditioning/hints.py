"""What a chunk of WorldWarp starts from: the known past and, behind it, rendered views.

Generation and training build it here, so that the network meets what it was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flythrough.conditioning.noise_field import TEMPORAL_FACTOR, FieldSettings, valid_cells
from flythrough.errors import InputError
from flythrough.models.wan_codec import Codec


@dataclass(frozen=True, eq=False)
class Hint:
    """History and rendering encoded as one clip: ``latents`` [B,C,L,h,w], ``valid`` bool [B,L,h,w]
    where they show something, and ``context``, the latents at the front that are the history
    itself."""

    latents: Tensor
    valid: Tensor
    context: int


def encoded_hint(
    codec: Codec, history: Tensor, rendered: Tensor, visible: Tensor, settings: FieldSettings
) -> Hint:
    """Encode the history and the frames rendered for what follows it.

    The codec looks back only, so the first latents are those of the history alone.

    Args:
        history: [B,3,c,H,W] in [0,1], c = 4k + 1: the last frames so far, or the photo.
        rendered: [B,3,n - c,H,W] in [0,1].
        visible: [B,n - c,H,W] in [0,1], where the rendering shows something.

    Raises:
        InputError: a history that does not end with a latent, or shapes that disagree.
    """
    frames = history.shape[2]
    wanted = (history.shape[0], rendered.shape[2], *history.shape[3:])
    if frames % TEMPORAL_FACTOR != 1 or visible.shape != wanted:
        raise InputError(
            f"history {tuple(history.shape)}, rendering {tuple(rendered.shape)} and visibility "
            f"{tuple(visible.shape)} do not make a chunk; give 4k + 1 frames of history and a mask "
            "for each rendered frame"
        )
    clip = torch.cat([history, rendered.to(history)], dim=2)
    known = torch.ones_like(history[:, 0])
    seen = torch.cat([known, visible.to(known)], dim=1)
    return Hint(
        latents=codec.encode(clip),
        valid=valid_cells(seen, settings),
        context=(frames - 1) // TEMPORAL_FACTOR + 1,
    )
