"""What part of a chunk's time has passed when it reports a share of its work.

Generators report steps, and steps of a pyramid differ: those of the last stage see most tokens. The
weights are rough (from nano and from token counts); they only shape a progress bar.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

from flythrough.rollout.spec import RolloutSpec

_DRAWN, _CONDITIONED, _SAMPLED = 0.1, 0.15, 0.9
"""Shares that generators report: the camera path is rendered, encoded; all steps are done."""
_AROUND = 1.2
"""What comes before the steps, and what comes after them, each; a target of full size is 1."""
_HISTORY = 0.4
"""What the history's tokens add to every step."""


@dataclass(frozen=True)
class ChunkTime:
    """Times of the chunks of a rollout.

    Attributes:
        steps: per pyramid stage, coarse to fine; one number where there is no pyramid.
        doubled: whether the first chunk has twice the steps.
    """

    steps: tuple[int, ...] = (2, 2, 2)
    doubled: bool = False

    @property
    def first(self) -> float:
        """How many times as long as a later chunk the first one takes."""
        return sum(self._costs(0)) / sum(self._costs(1))

    def part(self, index: int, share: float) -> float:
        """The part of chunk ``index``'s time, 0 to 1, that has passed at a reported ``share``."""
        costs = self._costs(index)
        done = list(accumulate(costs, initial=0.0))
        count = len(costs) - 3
        steps = [_CONDITIONED + (_SAMPLED - _CONDITIONED) * n / count for n in range(1, count + 1)]
        shares = [0.0, _DRAWN, _CONDITIONED, *steps, 1.0]
        for low, high, since, until in zip(shares, shares[1:], done, done[1:], strict=False):
            if share <= high:
                return (since + (until - since) * (share - low) / (high - low)) / done[-1]
        return 1.0

    def _costs(self, index: int) -> list[float]:
        times = 2 if self.doubled and index == 0 else 1
        sizes = [4.0**-coarser for coarser in reversed(range(len(self.steps)))]
        sampling = [
            size + _HISTORY
            for size, steps in zip(sizes, self.steps, strict=True)
            for _ in range(times * steps)
        ]
        return [_AROUND / 2, _AROUND / 2, *sampling, _AROUND]


def chunk_time(spec: RolloutSpec) -> ChunkTime:
    """Times of the chunks of a rollout with this specification."""
    doubled = bool(spec.settings.get("amplify_first_chunk", False))
    return ChunkTime(tuple(map(int, spec.settings["steps"])), doubled)
