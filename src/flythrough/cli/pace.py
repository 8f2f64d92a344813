"""How long a run still takes: portions that are alike, learnt from and counted down."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable

_GAIN = 0.3
"""How far each report moves the foretold end: less is steadier, more follows sooner."""
_ENOUGH = 0.05
"""Part of the first portion that has to be done before it says anything about the rest."""


class Pace:
    """The end of a run of equal portions (chunks, videos, steps), from reports of what is done.

    A report need not come at equal times: how the reports of one portion lay in its time foretells
    those of the next. A portion is expected to last as long as the newer half of those before it,
    so that a slow start is forgotten.

    Args:
        done: portions that were done before.
        first: how many times as long portion 0 takes as any other.
    """

    def __init__(
        self, done: float = 0.0, first: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock, self._done, self._first = clock, done, first
        self._began = clock()
        self._seconds: list[float] = []
        self._now: list[tuple[float, float]] = []
        self._before: list[tuple[float, float]] = [(0.0, 0.0), (1.0, 1.0)]
        self._end: float | None = None

    def report(self, done: float, total: float) -> None:
        """``done`` of ``total`` portions are done, the last of them perhaps in part."""
        if done <= self._done:
            return
        now, whole = self._clock(), int(done)
        if whole > int(self._done):
            self._ended(now, whole - int(self._done))
        if done > whole:
            self._now.append((done - whole, now - self._began))
        self._done = done
        left = self._foretold(now, total)
        if left is not None:
            end = now + left
            self._end = end if self._end is None else self._end + _GAIN * (end - self._end)

    def left(self) -> float | None:
        """Seconds to the end, counting down between reports; None while nothing is known."""
        return None if self._end is None else max(0.0, self._end - self._clock())

    def _ended(self, now: float, count: int) -> None:
        seconds = max(now - self._began, 1e-9)
        if self._now:
            parts = [(share, at / seconds) for share, at in self._now]
            self._before = [(0.0, 0.0), *parts, (1.0, 1.0)]
        longer = self._first if int(self._done) == 0 else 1.0
        self._seconds += [seconds / (longer + count - 1)] * count
        self._now, self._began = [], now

    def _foretold(self, now: float, total: float) -> float | None:
        whole = int(self._done)
        passed = self._part(self._done - whole)
        weight = self._first if whole == 0 else 1.0
        if self._seconds:
            newer = self._seconds[len(self._seconds) // 2 :]
            portion = sum(newer) / len(newer)
        elif passed >= _ENOUGH:
            portion = (now - self._began) / passed / weight
        else:
            return None
        if whole >= total:
            return 0.0
        return portion * (weight * (1 - passed) + total - whole - 1)

    def _part(self, share: float) -> float:
        """Where ``share`` of the portion before lay in its time, 0 to 1."""
        place = bisect_right(self._before, share, key=lambda point: point[0])
        if place == len(self._before):
            return 1.0
        (low, since), (high, until) = self._before[place - 1 : place + 1]
        return since + (until - since) * (share - low) / (high - low)
