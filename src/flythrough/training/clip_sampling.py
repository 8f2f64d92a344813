"""Which frames of a training video become target, history and keyframes: a function of the seed.

Warp-as-History trains on a few long videos; every step draws a new window of 33 frames, the
direction of time and the keyframes from which the warp is rendered (arXiv 2605.15182). The draws
follow the published trainer number by number, so that a run with its seed sees its clips.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from flythrough.errors import InputError

WINDOW = 33
_MAX_SEED = 2**63 - 1
_PURPOSE = "online_warp_training"

Direction = Literal["forward", "reverse"]
Kind = Literal["first", "later"]


@dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """How clips are drawn.

    Attributes:
        augment: play some clips backwards, a share ``reverse`` of them.
        first: share of clips that start a video: their source is their own first frame.
        history: most frames before a later clip that may be keyframes, at least 1.
        future: share of later clips that also get keyframes out of the target itself.
        future_count: fewest and most of those, 1 to 33.

    Raises:
        InputError: a share or count that is none.
    """

    augment: bool = True
    reverse: float = 0.5
    first: float = 0.5
    history: int = 19
    future: float = 0.5
    future_count: tuple[int, int] = (1, 2)

    def __post_init__(self) -> None:
        for name in ("reverse", "first", "future"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(
                    f"{name} is {getattr(self, name)}, but it is a share of clips; choose one in "
                    "[0, 1]"
                )
        if self.history < 1:
            raise InputError(
                f"a later clip with {self.history} history frames has no keyframe; allow at least 1"
            )
        low, high = self.future_count
        if not 1 <= low <= high <= WINDOW:
            raise InputError(
                f"{low} to {high} future keyframes cannot be drawn from {WINDOW} frames; give "
                f"1 <= low <= high <= {WINDOW}"
            )


@dataclass(frozen=True)
class Clip:
    """One training item, in frame numbers of its video (of the reversed one, if ``reverse``).

    Attributes:
        start: first of the 33 target frames.
        history: frames right before the target; empty for a first clip.
        future: keyframes within the target.
    """

    direction: Direction
    start: int
    history: tuple[int, ...] = ()
    future: tuple[int, ...] = ()

    @property
    def kind(self) -> Kind:
        """Whether the clip starts a video or continues one."""
        return "later" if self.history else "first"

    @property
    def target(self) -> tuple[int, ...]:
        """The 33 frames to be made."""
        return tuple(range(self.start, self.start + WINDOW))

    @property
    def keyframes(self) -> tuple[int, ...]:
        """Frames whose geometry the warp is rendered from, in order of time."""
        if not self.history:
            return (self.start,)
        return tuple(sorted({*self.history, *self.future}))

    @property
    def cameras(self) -> tuple[int, ...]:
        """Frames whose cameras are rendered.

        The first is the source view; in a later clip it stands before the target and is dropped
        after rendering, video and mask together.
        """
        return self.target if not self.history else (self.keyframes[-1], *self.target)

    @property
    def condition(self) -> int:
        """The frame that stands for the past: its latent is anchor and still history."""
        return self.history[-1] if self.history else self.start


def sample_clip(
    frames: int, seed: int, row: str, item: int, settings: ClipSettings | None = None
) -> Clip:
    """The clip of the ``item``-th prepared item (counted from 1) of a video of ``frames`` frames.

    Args:
        row: the id of the video's row in the data list.

    Raises:
        InputError: a video shorter than 33 frames.
    """
    s = settings or ClipSettings()
    if frames < WINDOW:
        raise InputError(
            f"the training video {row} has {frames} frames, but a clip needs {WINDOW}; give a "
            "longer video or a smaller frame stride"
        )
    draw = random.Random(stable_seed(seed, _PURPOSE, row, item))
    backwards = s.augment and draw.random() < s.reverse
    direction: Direction = "reverse" if backwards else "forward"
    # The number is drawn even where only one window fits, or later draws would shift.
    if draw.random() < s.first or frames == WINDOW:
        return Clip(direction, draw.randint(0, frames - WINDOW))
    start = draw.randint(1, frames - WINDOW)
    length = draw.randint(1, min(s.history, start))
    future: list[int] = []
    if draw.random() < s.future:
        count = draw.randint(*s.future_count)
        future = sorted(draw.sample(range(start, start + WINDOW), count))
    return Clip(direction, start, tuple(range(start - length, start)), tuple(future))


def item_order(rows: int, seed: int, *, shuffle: bool = True) -> Iterator[int]:
    """Row numbers without end: a new permutation every epoch, or one row after the other.

    Raises:
        InputError: no rows.
    """
    if rows < 1:
        raise InputError(f"{rows} rows of training data give no items; list at least one video")
    source = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(rows, generator=source).tolist() if shuffle else range(rows)


def stable_seed(*parts: int | str) -> int:
    """The published trainer's seed of a purpose, in [0, 2**63 - 1); new code folds seeds with
    :func:`flythrough.seeds.fold`, which keeps numbers and words apart."""
    text = "|".join(str(part) for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % _MAX_SEED
