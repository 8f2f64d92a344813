"""The path language: ``forward 0.6; pan left 20deg; hold 1s`` becomes a trajectory.

Steps are separated by ``;`` and read ``VERB [DIRECTION] AMOUNT [over SECONDS]``. Each step is
carried out in the frame of the camera where it starts, at constant speed. Lengths are multiples of
the median scene depth, or metres with ``m``; angles need ``deg`` or ``rad``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np

from flythrough.cameras import motions
from flythrough.cameras import pose as se3
from flythrough.cameras.motions import Motion
from flythrough.cameras.presets import PRESETS
from flythrough.cameras.trajectory import LengthUnit, Trajectory
from flythrough.cameras.verbs import VERBS
from flythrough.errors import CameraError

_WORDS = (*VERBS, *(name for name in PRESETS if name not in VERBS))
WHERE_WORDS_ARE = "`flythrough camera --list` shows all words of camera paths"

_QUOTED = 60
"""Characters of a text that is no path which a message repeats."""
_AMOUNT = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)([a-z°%]*)")
_SPACED_UNIT = re.compile(r"(\d\.?)\s+(m|deg|rad|x|s)(?=\s|$)")


@dataclass(frozen=True)
class Step:
    """One parsed step: its move, its length in seconds (None: a share of the rest), its unit."""

    text: str
    motion: Motion
    seconds: float | None
    unit: LengthUnit | None
    still: bool = False


def parse_path(text: str, frames: int, fps: float = 16.0) -> Trajectory:
    """``frames`` cameras at ``fps`` frames a second that follow a path, starting at the identity.

    Steps with ``over SECONDS`` take that long; the others share the remaining frames equally. The
    last step reaches its whole amount at the last frame; if every step has a time and frames are
    left over, the camera stands still at the end. Speed is constant within a step.

    Returns:
        Trajectory in multiples of the median depth, or in metres when the lengths have ``m``;
        ``focal_scale`` is set when a step zooms.

    Raises:
        CameraError: an unknown word, a missing or wrong unit, mixed units, or too few frames.
    """
    if frames < 1:
        raise CameraError(f"A path of {frames} frames is empty; ask for at least 1 frame.")
    if not math.isfinite(fps) or fps <= 0:
        raise CameraError(f"The frame rate {fps:g} is not a finite number above 0; try 16.")
    steps = parse_steps(text)
    ends = _ends(steps, frames, fps)
    at = np.arange(frames, dtype=np.float64)
    poses, focal = se3.identity(frames), np.ones(frames)
    carrier, scale, start = np.eye(4), 1.0, 0.0
    for step, end in zip(steps, ends, strict=True):  # a loop over steps, never over frames
        # Frames after the step stand where it ended, until the next step overwrites them.
        later = at >= start
        span = end - start
        progress = np.clip((at[later] - start) / span, 0, 1) if span > 0 else np.ones(later.sum())
        moves = np.append(progress, 1.0)
        local = step.motion.poses(moves)
        factor = np.ones(len(moves)) if step.motion.focal is None else step.motion.focal(moves)
        with np.errstate(over="ignore"):  # the trajectory refuses what is not finite
            poses[later], focal[later] = se3.compose(carrier, local[:-1]), scale * factor[:-1]
        carrier, scale, start = se3.compose(carrier, local[-1]), scale * float(factor[-1]), end
    poses[0] = np.eye(4)  # the photo's own camera, exactly
    zooms = any(step.motion.focal is not None for step in steps)
    return Trajectory(
        world_from_camera=poses,
        times=at / fps,
        unit=_common_unit(steps),
        focal_scale=focal if zooms else None,
    )


def parse_steps(text: str) -> tuple[Step, ...]:
    """The steps of a path, checked; empty pieces between ``;`` are left out."""
    pieces = [" ".join(piece.split()) for piece in text.lower().split(";")]
    steps = tuple(_step(piece) for piece in pieces if piece)
    if not steps:
        raise CameraError(
            f"The camera path {text!r} has no steps; write one like 'forward 0.6; pan left 20deg'."
        )
    _common_unit(steps)
    return steps


def starts_like_a_path(text: str) -> bool:
    """Whether the first word is a verb or a preset."""
    words = text.lower().split(";")[0].split()
    return bool(words) and words[0] in _WORDS


def _step(piece: str) -> Step:
    words = _SPACED_UNIT.sub(r"\1\2", piece).split()
    seconds = None
    if "over" in words:
        cut = words.index("over")
        seconds = _seconds(words[cut + 1 :], piece)
        words = words[:cut]
    if not words or words[0] not in _WORDS:
        raise _unknown_move((words or ["over"])[0], piece)
    verb, rest = words[0], words[1:]
    if verb == "hold" and rest:
        if seconds is not None:
            raise CameraError(
                f"The step {piece!r} gives its time twice; write 'hold 1s' or 'hold over 1s'."
            )
        return Step(piece, motions.hold(), _seconds(rest, piece), None, still=True)
    if verb == "hold":
        return Step(piece, motions.hold(), seconds, None, still=True)
    if verb == "zoom":
        return Step(piece, motions.zoom(_zoom_factor(rest, piece)), seconds, None)
    # 'crane' and 'orbit' are verbs when a direction follows and presets otherwise.
    if verb in VERBS and (verb not in PRESETS or not all(map(_is_amount, rest))):
        return _verb_step(verb, rest, seconds, piece)
    return _preset_step(verb, rest, seconds, piece)


def nearest(word: str, known: Iterable[str]) -> str:
    """What is said of a word that is not among ``known``: which one is most like it."""
    words = list(known)
    close = get_close_matches(word, words, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    return f"the nearest is {get_close_matches(word, words, n=1, cutoff=0.0)[0]}"


def _unknown_move(word: str, piece: str) -> CameraError:
    step = "" if word == piece else f" in the camera step {_shortened(piece)!r}"
    return CameraError(
        f"{_shortened(word)!r}{step} is no known move ({nearest(word, _WORDS)}); {WHERE_WORDS_ARE}."
    )


def _shortened(text: str) -> str:
    return text if len(text) <= _QUOTED else f"{text[:_QUOTED]}..."


_OTHERS = {"pan": "tilt", "tilt": "pan", "truck": "crane", "crane": "truck", "pedestal": "truck"}
"""The verb that moves or turns alike, in the other directions."""
_METRES = {"mm": 0.001, "cm": 0.01, "km": 1000.0, "ft": 0.3048, "in": 0.0254}


def _is_amount(word: str) -> bool:
    return _AMOUNT.fullmatch(word) is not None


def _verb_step(name: str, rest: list[str], seconds: float | None, piece: str) -> Step:
    verb = VERBS[name]
    direction, rest = _directed(name, rest, piece)
    word = _only(rest, piece, verb.example)
    if verb.kind == "length":
        amount, unit = _length(word, piece)
        return Step(
            piece, motions.straight(*np.array(verb.axes[direction]) * amount), seconds, unit
        )
    axis = np.array(verb.axes[direction]) * _angle(word, piece)
    if name == "orbit":
        return Step(piece, motions.orbit(float(axis[1])), seconds, LengthUnit.MEDIAN_DEPTH)
    return Step(piece, motions.turn(*axis), seconds, None)


def _directed(name: str, rest: list[str], piece: str) -> tuple[str, list[str]]:
    """The direction of a step ("" where its verb takes none) and the words without it."""
    verb = VERBS[name]
    takes = verb.directions
    if not takes:
        return "", rest
    if rest and rest[0] in takes:
        return rest[0], rest[1:]
    odd = next((word for word in rest if not _is_amount(word)), None)
    if odd is None and verb.assumed and rest:
        return verb.assumed, rest
    amount = next(filter(_is_amount, rest), verb.example)
    if odd is None:
        raise CameraError(
            f"The step {piece!r} lacks a direction; write '{name} {takes[0]} {amount}' or "
            f"'{name} {takes[1]} {amount}'."
        )
    if odd in takes:
        raise CameraError(
            f"The step {piece!r} has its direction behind other words; write '{name} {odd} "
            f"{amount}'."
        )
    listed = f"{', '.join(takes[:-1])} or {takes[-1]}"
    other = _OTHERS.get(name)
    if other is not None and odd in VERBS[other].directions:
        raise CameraError(
            f"The step {piece!r} names no direction of {name}, which takes {listed}; {odd!r} is "
            f"one of {other}: write '{other} {odd} {amount}'."
        )
    meant = (get_close_matches(odd, takes, n=1) or takes)[0]
    raise CameraError(
        f"The step {piece!r} names no direction of {name}, which takes {listed}: {odd!r} is "
        f"{'neither' if len(takes) == 2 else 'none of them'}; write '{name} {meant} {amount}'."
    )


def _preset_step(name: str, rest: list[str], seconds: float | None, piece: str) -> Step:
    preset = PRESETS[name]
    amount, unit = preset.default, LengthUnit.MEDIAN_DEPTH
    if preset.kind == "none":
        if rest:
            raise CameraError(
                f"The step {piece!r} gives an amount, but {name} has none; write '{name}' or "
                f"'{name} over 2s'."
            )
        return Step(piece, preset.build(0.0), seconds, None, still=True)
    if rest:
        word = _only(rest, piece, "0.4" if preset.kind == "length" else "20deg")
        if preset.kind == "length":
            amount, unit = _length(word, piece)
        else:
            amount = _angle(word, piece)
    motion = preset.build(amount)
    if motion.around_subject and unit is LengthUnit.METRE:
        raise CameraError(
            f"The step {piece!r} is in metres, but {name} moves around a subject at the median "
            "depth; leave out the 'm' to count in multiples of that depth."
        )
    if name == "dolly-zoom" and amount >= 1:
        raise CameraError(
            f"The step {piece!r} reaches the subject at depth 1, where the focal length would be "
            "0; use an amount below 1."
        )
    turns_only = preset.kind == "angle" and not motion.around_subject
    return Step(piece, motion, seconds, None if turns_only else unit)


def _only(rest: list[str], piece: str, example: str) -> str:
    if len(rest) != 1:
        odd = next((word for word in rest if not _is_amount(word)), rest[-1] if rest else None)
        fault = "lacks an amount" if odd is None else f"has the surplus word {odd!r}"
        if "," in piece:
            fault = "has a comma"
        raise CameraError(
            f"The step {piece!r} {fault}; a step reads VERB [DIRECTION] AMOUNT [over SECONDS], "
            f"with an amount like {example}, and steps are separated by ';'."
        )
    return rest[0]


def _number(word: str, piece: str) -> tuple[float, str]:
    match = _AMOUNT.fullmatch(word)
    if match is None or not math.isfinite(float(match[1])):
        raise CameraError(
            f"{word!r} in the camera step {piece!r} is not a finite number with a unit; write "
            "lengths like 0.5 or 0.5m and angles like 20deg."
        )
    return float(match[1]), match[2]


def _length(word: str, piece: str) -> tuple[float, LengthUnit]:
    value, unit = _number(word, piece)
    if unit not in ("", "m"):
        remedy = "write lengths like 0.5, in multiples of the median depth, or 0.5m"
        if unit in _METRES:
            remedy = f"write {value * _METRES[unit]:g}m"
        elif unit in ("deg", "rad", "°"):
            remedy += "; angles go with pan, tilt, roll and orbit"
        raise CameraError(
            f"The unit {unit!r} in the camera step {piece!r} is no length that is known; {remedy}."
        )
    return value, LengthUnit.METRE if unit else LengthUnit.MEDIAN_DEPTH


def _angle(word: str, piece: str) -> float:
    value, unit = _number(word, piece)
    if unit not in ("deg", "rad"):
        fault = f"the unit {unit!r}, which is no angle" if unit else "no unit"
        raise CameraError(
            f"The angle {word!r} in the camera step {piece!r} has {fault}; write {value:g}deg or "
            f"{value:g}rad."
        )
    return math.radians(value) if unit == "deg" else value


def _zoom_factor(rest: list[str], piece: str) -> float:
    value, unit = _number(_only(rest, piece, "1.2x"), piece)
    if unit != "x" or value <= 0:
        raise CameraError(
            f"The amount {rest[0]!r} in the camera step {piece!r} is not a positive factor of the "
            "focal length; write it like 1.2x (closer) or 0.8x (wider)."
        )
    return value


def _seconds(rest: list[str], piece: str) -> float:
    value, unit = _number(rest[0], piece) if len(rest) == 1 else (0.0, "s")
    if unit not in ("", "s") or value <= 0:
        raise CameraError(
            f"The time {' '.join(rest)!r} in the camera step {piece!r} is not a positive number of "
            "seconds; write it like 1.5s, as in 'hold 1s' or 'forward 0.5 over 1.5s'."
        )
    return value


def _common_unit(steps: tuple[Step, ...]) -> LengthUnit:
    metre = next((step for step in steps if step.unit is LengthUnit.METRE), None)
    depth = next((step for step in steps if step.unit is LengthUnit.MEDIAN_DEPTH), None)
    if metre is not None and depth is not None:
        raise CameraError(
            f"The steps {metre.text!r} (metres) and {depth.text!r} (multiples of the median depth) "
            "mix length units; give all lengths with 'm' or none (orbits and other moves around "
            "the subject count its median depth)."
        )
    return LengthUnit.MEDIAN_DEPTH if metre is None else LengthUnit.METRE


def _ends(steps: tuple[Step, ...], frames: int, fps: float) -> np.ndarray:
    """Where each step ends [steps], counted in frames from the first (fractions allowed)."""
    timed = sum(step.seconds * fps for step in steps if step.seconds is not None)
    shared = [step for step in steps if step.seconds is None]
    moving = sum(not step.still for step in shared)
    needed = math.ceil(timed - 1e-9) + moving + 1
    if needed > frames:
        raise CameraError(
            f"The camera path needs at least {needed} frames at {fps:g} frames a second but gets "
            f"{frames}; ask for {needed} frames or shorten its steps."
        )
    rest = max(frames - 1 - timed, 0.0) / max(len(shared), 1)
    ends = np.cumsum([rest if step.seconds is None else step.seconds * fps for step in steps])
    # The sum of equal shares may miss the last frame by a rounding error.
    return np.where(np.abs(ends - (frames - 1)) < 1e-9 * frames, frames - 1.0, ends)
