"""A warp rendered elsewhere (the published pre-rendered case): frames and mask, given whole."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from flythrough.generators.warp import WarpClip
from flythrough.models.uploads import uploaded
from flythrough.rollout.chunk import CHUNK_FRAMES, ChunkRequest
from flythrough.rollout.rollout import Rollout


class GivenWarp:
    """Slices of a whole pre-rendered warp.

    Args:
        frames: uint8 [T,H,W,3] at the output size, T a multiple of 33.
        mask: uint8 [T,H,W], 255 where the warp shows something that was seen.
        first_chunk: the chunk that the warp begins with.
    """

    def __init__(
        self, frames: np.ndarray, mask: np.ndarray, device: torch.device, first_chunk: int = 0
    ) -> None:
        self.frames, self.mask, self.device = frames, mask, device
        self.first_chunk = first_chunk

    def warp(self, rollout: Rollout, request: ChunkRequest) -> WarpClip:
        """The 33 frames of the request's chunk."""
        del rollout
        at = CHUNK_FRAMES * (request.index - self.first_chunk)
        window = slice(at, at + CHUNK_FRAMES)
        return WarpClip(
            rgb=self._unit(self.frames[window]).permute(0, 3, 1, 2),
            visible=self._unit(self.mask[window]),
        )

    def _unit(self, array: np.ndarray) -> Tensor:
        return uploaded(array, self.device) / 255
