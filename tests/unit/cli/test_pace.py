"""The time left: steady, counting down, learnt from the portions before."""

from __future__ import annotations

from itertools import pairwise

import pytest

from flythrough.cli.pace import Pace

SHARES = [(0.1, 1.0), (0.4, 2.0), (0.7, 3.0), (0.9, 9.0)]
"""What a portion of ten seconds reports, and when: most of its time lies between two reports."""


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def lefts(
    pace: Pace, clock: Clock, portions: int, longer: float = 1.0
) -> list[tuple[float, float]]:
    """(seconds to the true end, seconds foretold) each second, from the first foretelling on."""
    found = []
    until = 10.0 * (portions - 1 + longer)
    reports = []
    begun = 0.0
    for portion in range(portions):
        slower = longer if portion == 0 else 1.0
        reports += [(begun + at * slower, portion + share) for share, at in SHARES]
        begun += 10 * slower
        reports.append((begun, portion + 1.0))
    for second in range(int(until)):
        clock.now = 100.0 + second
        while reports and reports[0][0] <= second:
            pace.report(reports.pop(0)[1], portions)
        left = pace.left()
        if left is not None:
            found.append((until - second, left))
    return found


def test_from_the_second_portion_on_the_end_is_known() -> None:
    clock = Clock()
    said = lefts(Pace(clock=clock), clock, 6)
    assert len(said) >= 58
    for true, left in said:
        if true < 40:
            assert left == pytest.approx(true, abs=3)


def test_it_counts_down_and_does_not_jump() -> None:
    clock = Clock()
    said = [left for _, left in lefts(Pace(clock=clock), clock, 6)][10:]
    steps = [before - after for before, after in pairwise(said)]
    assert max(abs(step - 1) for step in steps) < 4


def test_a_longer_first_portion_is_allowed_for() -> None:
    clock = Clock()
    told = lefts(Pace(first=2.0, clock=clock), clock, 4, longer=2.0)
    clock = Clock()
    untold = lefts(Pace(clock=clock), clock, 4, longer=2.0)
    wrong = [max(abs(true - left) for true, left in said[12:]) for said in (told, untold)]
    assert wrong[0] < wrong[1]


def test_nothing_is_said_before_anything_is_known() -> None:
    clock = Clock()
    pace = Pace(3.0, clock=clock)
    assert pace.left() is None
    pace.report(3.0, 5)
    assert pace.left() is None
    clock.now += 10
    pace.report(4.0, 5)
    assert pace.left() == 10
    clock.now += 4
    assert pace.left() == 6
    clock.now += 20
    assert pace.left() == 0
    pace.report(5.0, 5)
    assert pace.left() == 0
