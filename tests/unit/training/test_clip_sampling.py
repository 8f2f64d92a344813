"""Clips of training videos: what always holds, whatever the seed, and what is refused."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest

from flythrough.errors import InputError
from flythrough.training.clip_sampling import (
    WINDOW,
    Clip,
    ClipSettings,
    item_order,
    sample_clip,
)


def clips(frames: int, **settings: Any) -> list[Clip]:
    made = ClipSettings(**settings)
    return [sample_clip(frames, 5, "car", item, made) for item in range(1, 201)]


def test_every_clip_lies_in_its_video() -> None:
    for clip in clips(60):
        assert clip.target == tuple(range(clip.start, clip.start + WINDOW))
        assert 0 <= clip.start <= 60 - WINDOW
        assert min(clip.keyframes) >= 0
        assert set(clip.future) <= set(clip.target)
        if clip.kind == "first":
            assert (clip.keyframes, clip.cameras) == ((clip.start,), clip.target)
            assert clip.condition == clip.start
        else:
            assert clip.history[-1] == clip.condition == clip.start - 1
            assert clip.cameras == (clip.keyframes[-1], *clip.target)


def test_shares_of_clips() -> None:
    drawn = clips(120, reverse=0.25, first=0.75)
    assert 0.15 < sum(c.direction == "reverse" for c in drawn) / len(drawn) < 0.35
    assert 0.65 < sum(c.kind == "first" for c in drawn) / len(drawn) < 0.85
    assert {c.direction for c in clips(120, augment=False)} == {"forward"}
    later = clips(120, first=0.0, future=1.0, future_count=(3, 3), history=4)
    assert {len(c.future) for c in later} == {3}
    assert {len(c.history) for c in later} == {1, 2, 3, 4}


def test_a_clip_depends_on_seed_row_and_item_alone() -> None:
    one = sample_clip(200, 5, "car", 7)
    assert sample_clip(200, 5, "car", 7) == one
    others = [sample_clip(200, 6, "car", 7), sample_clip(200, 5, "bus", 7)]
    assert one not in [*others, sample_clip(200, 5, "car", 8)]


def test_the_shortest_video_has_one_window() -> None:
    assert {(c.kind, c.start) for c in clips(WINDOW, first=0.0)} == {("first", 0)}
    with pytest.raises(InputError, match="car has 32 frames, but a clip needs 33"):
        clips(WINDOW - 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"first": 1.5}, "first is 1.5"),
        ({"reverse": -0.1}, "reverse is -0.1"),
        ({"history": 0}, "at least 1"),
        ({"future_count": (2, 1)}, "2 to 1 future keyframes"),
        ({"future_count": (0, 1)}, "0 to 1 future keyframes"),
        ({"future_count": (1, 34)}, "1 to 34 future keyframes"),
    ],
)
def test_settings_that_are_none(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ClipSettings(**settings)


def test_every_epoch_has_every_row_once() -> None:
    order = list(islice(item_order(5, 3), 15))
    epochs = [order[i : i + 5] for i in (0, 5, 10)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert epochs[0] != epochs[1]
    with pytest.raises(InputError, match="0 rows"):
        next(item_order(0, 3))
