"""What a run reports while it works: frozen values, in the order in which things happen."""

from __future__ import annotations

from dataclasses import dataclass

from flythrough.rollout.chunk import Chunk
from flythrough.rollout.rollout import Rollout


@dataclass(frozen=True, eq=False)
class Started:
    """The run begins at ``rollout`` and will make it ``chunks`` long."""

    rollout: Rollout
    chunks: int


@dataclass(frozen=True)
class ChunkStarted:
    """Work on chunk ``index`` begins."""

    index: int


@dataclass(frozen=True)
class Progress:
    """``done`` of ``total`` ``unit``s ("step", "frame") of a ``stage`` ("denoise") are finished."""

    done: int
    total: int
    unit: str
    stage: str

    @property
    def share(self) -> float:
        """In [0, 1]; an empty stage is finished."""
        return min(1.0, self.done / self.total) if self.total > 0 else 1.0


@dataclass(frozen=True, eq=False)
class ChunkFinished:
    """``chunk`` is made and, if the run has a folder, stored."""

    chunk: Chunk


@dataclass(frozen=True, eq=False)
class Finished:
    """The run is over; ``rollout`` is its result."""

    rollout: Rollout


@dataclass(frozen=True)
class Note:
    """Something the user should know, such as a fallback that was taken."""

    text: str


Event = Started | ChunkStarted | Progress | ChunkFinished | Finished | Note
