"""What is left to do: a trajectory cut into chunk requests, kept beside the rollout on disk."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flythrough.cameras.trajectory import Trajectory
from flythrough.engine.warp_video import WarpRecord
from flythrough.rollout.chunk import ChunkRequest
from flythrough.rollout.rollout import Rollout
from flythrough.rollout.window import STANDARD, Window


def current_prompt(rollout: Rollout) -> str:
    """What the user said for the newest chunk, which goes on until something else is said: its
    prompt, or its wish where a captioner worded the prompt."""
    if not rollout.chunks:
        return rollout.spec.prompt
    newest = rollout.chunks[-1].request
    if newest.wish is not None:
        return newest.wish
    # captioned chunks of older rollouts did not keep the wish
    return rollout.spec.prompt if "captioner" in rollout.spec.settings else newest.prompt


@dataclass(frozen=True, eq=False)
class Leg:
    """One camera command: ``trajectory`` (unresolved, or None for a method without camera) that
    starts at chunk ``first_chunk`` and gives ``frames`` frames, with its prompt."""

    first_chunk: int
    frames: int
    prompt: str
    trajectory: Trajectory | None

    def chunks(self, window: Window) -> int:
        """How many chunks of ``window`` it takes."""
        return window.chunks(window.first(self.first_chunk) + self.frames) - self.first_chunk

    def to_dict(self) -> dict[str, Any]:
        path = None if self.trajectory is None else self.trajectory.to_dict()
        return {
            "first_chunk": self.first_chunk,
            "frames": self.frames,
            "prompt": self.prompt,
            "trajectory": path,
        }


@dataclass(frozen=True, eq=False)
class Plan:
    """All legs of a rollout, finished or not, and the median depth that scales them.

    The camera of leg n starts where leg n-1 ended. ``median_depth`` is that of the photo, in scene
    units; None for a method without geometry. ``warp`` leads instead of a trajectory when it was
    rendered elsewhere. ``window``: length and overlap of the rollout's chunks.
    """

    legs: tuple[Leg, ...]
    median_depth: float | None = None
    metric: bool = False
    output: str | None = None
    warp: WarpRecord | None = None
    window: Window = STANDARD

    @property
    def chunks(self) -> int:
        return max((leg.first_chunk + leg.chunks(self.window) for leg in self.legs), default=0)

    @property
    def frames(self) -> int:
        """Frames of the trimmed video: every leg but the last fills its chunks."""
        if not self.legs:
            return 0
        last = self.legs[-1]
        return self.window.first(last.first_chunk) + last.frames

    def to_dict(self) -> dict[str, Any]:
        data: dict[str, Any] = {
            "legs": [leg.to_dict() for leg in self.legs],
            "median_depth": self.median_depth,
            "metric": self.metric,
            "output": self.output,
            "warp": None if self.warp is None else self.warp.to_dict(),
        }
        if self.window != STANDARD:
            data["window"] = [self.window.frames, self.window.overlap]
        return data

    def extended(self, leg: Leg) -> Plan:
        """The plan with everything from ``leg.first_chunk`` on replaced by ``leg``."""
        kept = tuple(old for old in self.legs if old.first_chunk < leg.first_chunk)
        return replace(self, legs=(*kept, leg))

    def request(self, rollout: Rollout) -> ChunkRequest:
        """The request for the chunk that follows ``rollout``."""
        index = len(rollout.chunks)
        leg = next(leg for leg in reversed(self.legs) if leg.first_chunk <= index)
        if leg.trajectory is None:
            digest = None if self.warp is None else self.warp.digests[index]
            return ChunkRequest(
                index=index, prompt=leg.prompt, warp_digest=digest, window=self.window
            )
        cameras = self.cameras(leg, rollout)
        at = self.window.first(index) - self.window.first(leg.first_chunk)
        part = slice(at, at + self.window.shown(index))
        return ChunkRequest(
            index=index,
            prompt=leg.prompt,
            world_from_camera=cameras.world_from_camera[part],
            intrinsics=cameras.intrinsics[part] if cameras.intrinsics is not None else None,
            window=self.window,
        )

    def cameras(self, leg: Leg, rollout: Rollout) -> Trajectory:
        """The leg's cameras in the photo's frame, padded to whole chunks."""
        assert leg.trajectory is not None
        assert rollout.start is not None
        assert self.median_depth is not None
        pose, matrix = np.eye(4), rollout.start.intrinsics
        path = leg.trajectory
        if leg.first_chunk:
            before = rollout.chunks[leg.first_chunk - 1].request
            assert before.world_from_camera is not None
            assert before.intrinsics is not None
            pose, matrix = before.world_from_camera[-1], before.intrinsics[-1]
        resolved = path.resolve(matrix, rollout.size, self.median_depth, self.metric)
        if leg.first_chunk:
            resolved = resolved[1:]
        last, first = leg.first_chunk + leg.chunks(self.window), leg.first_chunk
        padded = resolved.padded(self.window.first(last) - self.window.first(first))
        return padded.moved(pose) if leg.first_chunk else padded
