"""Random camera paths in words: plausible material for training and for trying things out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from flythrough.errors import CameraError
from flythrough.seeds import fold

_CHUNK = 33
_SHORTEST, _LONGEST = 0.05, 0.5
_WIDEST = 25.0
_Draw = Callable[[np.random.Generator, float], str]


def random_path(seed: int, frames: int) -> str:
    """A path of one or two modest steps for ``frames`` frames; the same words for the same seed.

    A step of 33 frames or more moves by 0.05 to 0.5 of the median depth or turns by 2 to 25
    degrees; shorter steps get proportionally less, so that the speed stays plausible. Every drawn
    path is valid for :func:`flythrough.cameras.path_language.parse_path` with as many frames.

    Raises:
        CameraError: ``frames`` is below 1.
    """
    if frames < 1:
        raise CameraError(f"A camera path of {frames} frames is empty; ask for at least 1 frame.")
    if frames == 1:
        return "static"
    rng = np.random.default_rng(fold(seed, "random path"))
    steps = 2 if frames > 2 and rng.random() < 0.5 else 1
    # Steps share the frames, so each gets the amounts that its own frames allow.
    share = min(1.0, frames / (_CHUNK * steps))
    kinds = list(_KINDS)
    chances = np.array([_KINDS[kind] for kind in kinds])
    picked = rng.choice(len(kinds), size=steps, replace=False, p=chances / chances.sum())
    return "; ".join(kinds[int(index)](rng, share) for index in picked)


def _length(rng: np.random.Generator, share: float, most: float = _LONGEST) -> str:
    return f"{rng.uniform(_SHORTEST, max(_SHORTEST, most * share)):.3f}"


def _degrees(rng: np.random.Generator, share: float, most: float = _WIDEST) -> str:
    return f"{rng.uniform(2.0, max(2.0, most * share)):.1f}deg"


def _travel(rng: np.random.Generator, share: float) -> str:
    # Forward is what people ask for most; sideways and vertical moves uncover more at once.
    verb = rng.choice(["forward", "backward"], p=[0.75, 0.25])
    return f"{verb} {_length(rng, share)}"


def _shift(rng: np.random.Generator, share: float) -> str:
    verb = rng.choice(["left", "right", "up", "down"], p=[0.35, 0.35, 0.15, 0.15])
    return f"{verb} {_length(rng, share, 0.35)}"


def _pan(rng: np.random.Generator, share: float) -> str:
    return f"pan {rng.choice(['left', 'right'])} {_degrees(rng, share)}"


def _tilt(rng: np.random.Generator, share: float) -> str:
    return f"tilt {rng.choice(['up', 'down'])} {_degrees(rng, share, 15.0)}"


def _roll(rng: np.random.Generator, share: float) -> str:
    return f"roll {rng.choice(['left', 'right'])} {_degrees(rng, share, 10.0)}"


def _orbit(rng: np.random.Generator, share: float) -> str:
    return f"orbit {rng.choice(['left', 'right'])} {_degrees(rng, share)}"


def _zoom(rng: np.random.Generator, share: float) -> str:
    return f"zoom {np.exp(rng.uniform(-0.2, 0.3) * share):.3f}x"


def _preset(rng: np.random.Generator, share: float) -> str:
    name = rng.choice(["crane", "reveal", "hero", "spiral", "lemniscate", "dolly-zoom"])
    return f"{name} {_length(rng, share, 0.25)}"


_KINDS: dict[_Draw, float] = {
    _travel: 0.28,
    _shift: 0.18,
    _pan: 0.16,
    _tilt: 0.07,
    _roll: 0.03,
    _orbit: 0.16,
    _zoom: 0.05,
    _preset: 0.07,
}
