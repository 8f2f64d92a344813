"""What the engine needs from a method: the next chunk of a rollout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from flythrough.rollout.chunk import Chunk, ChunkRequest
from flythrough.rollout.rollout import Rollout
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
    """Sampling: steps per stage from coarse to fine; ``amplify_first_chunk`` doubles them for chunk
    0 (distilled models); ``guidance`` towards the prompt and away from the rollout's negative
    prompt; ``blend_chunks`` chunks lead from an old prompt to a new one (0: at once);
    ``condition_noise``: start images and videos enter the history with a little noise;
    ``reference`` repeats the published timetable with its defects and factorises the block noise
    as published (other values of the same distribution)."""

    steps: tuple[int, ...] = (2, 2, 2)
    amplify_first_chunk: bool = True
    guidance: Guidance = field(default_factory=Guidance)
    blend_chunks: int = 0
    condition_noise: bool = True
    reference: bool = False
    max_sequence_length: int = 512
