"""What the engine needs from a method: the next chunk of a rollout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from flythrough.rollout.chunk import Chunk, ChunkRequest
from flythrough.rollout.rollout import Rollout
from flythrough.rollout.spec import Anchor, Seams
from flythrough.sampling.guidance import Guidance

Report = Callable[[str, float], None]
"""Called with a short label and the finished share of the chunk in [0, 1]."""


def silent(label: str, share: float) -> None:
    """A report that nobody reads."""
    del label, share


class Generator(Protocol):
    """A method bound to a loaded model."""

    def chunk(self, rollout: Rollout, request: ChunkRequest, report: Report = silent) -> Chunk:
        """Generate the chunk that follows ``rollout``; a pure function of its arguments."""
        ...


@dataclass(frozen=True, kw_only=True)
class SamplerSettings:
    """How a generator samples.

    Attributes:
        steps: per stage, coarse to fine.
        amplify_first_chunk: twice the steps in chunk 0 (distilled models).
        guidance: towards the prompt and away from the rollout's negative prompt.
        blend_chunks: chunks that lead from an old prompt to a new one; 0: at once.
        condition_noise: start images and videos enter the history with a little noise.
        anchor: the latent that stays in the history for good: the video's first, from chunk 2 on
            the first of the second chunk (for starts that stand still), or none.
        seams: ``smooth`` leads the first frames of a chunk over from the chunk before
            (``generators/seams.py``); latents are the same.
        reference: the published timetable with its defects, and block noise factorised as
            published (other values of the same distribution).
        max_sequence_length: tokens of a prompt.
    """

    steps: tuple[int, ...] = (2, 2, 2)
    amplify_first_chunk: bool = True
    guidance: Guidance = field(default_factory=Guidance)
    blend_chunks: int = 0
    condition_noise: bool = True
    anchor: Anchor = "first"
    seams: Seams = "independent"
    reference: bool = False
    max_sequence_length: int = 512
