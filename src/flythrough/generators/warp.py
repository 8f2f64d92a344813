"""The warp of one chunk: what the method hands to the encoder, rendered or read from a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from flythrough.rollout.chunk import ChunkRequest
from flythrough.rollout.rollout import Rollout


@dataclass(frozen=True, eq=False)
class WarpClip:
    """``rgb`` [33,3,H,W] in [0,1] and ``visible`` [33,H,W] in [0,1] at the output size."""

    rgb: Tensor
    visible: Tensor

    def to(self, device: torch.device) -> WarpClip:
        """The same on ``device``, where the model is; scenes may be rendered elsewhere."""
        return WarpClip(self.rgb.to(device), self.visible.to(device))


def levels(clip: WarpClip) -> tuple[np.ndarray, np.ndarray]:
    """``rgb`` as uint8 [33,H,W,3] and ``visible`` as uint8 [33,H,W], 255 where seen."""
    pixels = (clip.rgb.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1)
    seen = (clip.visible.clamp(0, 1) * 255).round().byte()
    return np.ascontiguousarray(pixels.cpu().numpy()), np.ascontiguousarray(seen.cpu().numpy())


class WarpSource(Protocol):
    """Where warps come from: a scene memory, or files."""

    def warp(self, rollout: Rollout, request: ChunkRequest) -> WarpClip:
        """The warp for the chunk that follows ``rollout``."""
        ...
