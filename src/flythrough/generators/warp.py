"""The warp of one chunk: what the method hands to the encoder, rendered or read from a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from flythrough.rollout.chunk import ChunkRequest
from flythrough.rollout.rollout import Rollout


@dataclass(frozen=True, eq=False)
class WarpClip:
    """``rgb`` [33,3,H,W] in [0,1] and ``visible`` [33,H,W] in [0,1] at the output size."""

    rgb: Tensor
    visible: Tensor


class WarpSource(Protocol):
    """Where warps come from: a scene memory, or files."""

    def warp(self, rollout: Rollout, request: ChunkRequest) -> WarpClip:
        """The warp for the chunk that follows ``rollout``."""
        ...
