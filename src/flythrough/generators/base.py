"""What the engine needs from a method: the next chunk of a rollout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from flythrough.rollout.chunk import Chunk, ChunkRequest
from flythrough.rollout.rollout import Rollout

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
    """Few-step pyramid sampling: steps per stage from coarse to fine; ``amplify_first_chunk``
    doubles them for chunk 0; ``reference`` repeats the published timetable with its defects and
    factorises the block noise as published (other values of the same distribution)."""

    steps: tuple[int, ...] = (2, 2, 2)
    amplify_first_chunk: bool = True
    reference: bool = False
    max_sequence_length: int = 512
