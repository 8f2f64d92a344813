"""``plan.json`` read back: every value is checked, so that a damaged file gives one sentence."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from flythrough.cameras.trajectory import Trajectory
from flythrough.engine.plan import Leg, Plan
from flythrough.engine.warp_video import WarpRecord
from flythrough.errors import CameraError, RolloutError
from flythrough.rollout import store
from flythrough.rollout.rollout import Rollout
from flythrough.rollout.window import STANDARD, Window

_MOST_FRAMES = 100_000


class _DamageError(Exception):
    """What is wrong, as the part of a sentence."""


def read_plan(folder: Path) -> Plan:
    """The plan stored beside a rollout.

    Raises:
        RolloutError: there is none, or a part of it is missing, of the wrong kind or out of range.
    """
    return plan_from(store.read_plan(folder), folder / store.PLAN)


def plan_from(data: dict[str, Any], file: Path = Path(store.PLAN)) -> Plan:
    """The plan that :meth:`Plan.to_dict` wrote; ``file`` is named in errors.

    Raises:
        RolloutError: a part is missing, of the wrong kind or out of range.
    """
    try:
        return _plan(data)
    except _DamageError as damage:
        raise _damaged(file, str(damage)) from damage


def check_fits(plan: Plan, rollout: Rollout, folder: Path) -> None:
    """Refuse a plan that cannot belong to ``rollout``.

    Raises:
        RolloutError: it leads another way than the rollout's method.
    """
    if plan.window != rollout.spec.window:
        fits = False
    elif rollout.spec.method == "helios":
        fits = plan.warp is None and all(leg.trajectory is None for leg in plan.legs)
    elif plan.warp is not None:
        whole = len(plan.warp.digests) == plan.chunks
        fits = whole and all(leg.trajectory is None for leg in plan.legs)
    else:
        known = plan.median_depth is not None and rollout.start is not None
        fits = known and all(leg.trajectory is not None for leg in plan.legs)
    if not fits:
        raise _damaged(folder / store.PLAN, f"it does not fit the method {rollout.spec.method}")


def _damaged(file: Path, what: str) -> RolloutError:
    return RolloutError(
        f"The stored plan is damaged: in {file} {what}; restore the file from a copy or start a "
        "new rollout."
    )


def _plan(data: dict[str, Any]) -> Plan:
    items = _part(data, "legs")
    if not isinstance(items, list) or not items:
        raise _DamageError("'legs' is no list of camera commands")
    legs = tuple(_leg(item) for item in items)
    firsts = [leg.first_chunk for leg in legs]
    if firsts[0] != 0 or firsts != sorted(set(firsts)):
        raise _DamageError(f"the legs begin at the chunks {firsts}, not at 0 and one after another")
    output = _part(data, "output")
    if output is not None and not (isinstance(output, str) and output):
        raise _DamageError("'output' is no file name")
    metric = _part(data, "metric")
    if not isinstance(metric, bool):
        raise _DamageError("'metric' is neither true nor false")
    depth = _depth(_part(data, "median_depth"))
    return Plan(legs, depth, metric, output, _warp(data), _window(data))


def _leg(item: Any) -> Leg:
    if not isinstance(item, dict):
        raise _DamageError("a leg is no object with named fields")
    prompt, path = _part(item, "prompt"), _part(item, "trajectory")
    if not isinstance(prompt, str):
        raise _DamageError("the prompt of a leg is no text")
    try:
        trajectory = None if path is None else Trajectory.from_dict(path)
    except (CameraError, TypeError, ValueError, OverflowError) as error:
        raise _DamageError("the cameras of a leg cannot be read") from error
    first = _whole(item, "first_chunk", 0)
    return Leg(first, _whole(item, "frames", 1), prompt, trajectory)


def _warp(data: dict[str, Any]) -> WarpRecord | None:
    value = _part(data, "warp")
    if value is None:
        return None
    try:
        record = WarpRecord.from_dict(value)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _DamageError("the pre-rendered warp cannot be read") from error
    if not all(isinstance(digest, str) for digest in record.digests):
        raise _DamageError("the pre-rendered warp cannot be read")
    return record


def _window(data: dict[str, Any]) -> Window:
    """The standard one is not written."""
    value = data.get("window")
    if value is None:
        return STANDARD
    try:
        frames, overlap = value
        return Window(frames, overlap)
    except (TypeError, ValueError, RolloutError) as error:
        raise _DamageError("'window' is no length of chunks with their overlap") from error


def _part(data: dict[str, Any], name: str) -> Any:
    if name not in data:
        raise _DamageError(f"{name!r} is missing")
    return data[name]


def _whole(data: dict[str, Any], name: str, least: int) -> int:
    value = _part(data, name)
    right = isinstance(value, int) and not isinstance(value, bool)
    if not right or not least <= value <= _MOST_FRAMES:
        raise _DamageError(f"{name!r} is no whole number from {least} to {_MOST_FRAMES}")
    return int(value)


def _depth(value: Any) -> float | None:
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value < math.inf:
        raise _DamageError("'median_depth' is no number above 0")
    return float(value)
