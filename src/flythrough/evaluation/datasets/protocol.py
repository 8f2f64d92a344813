"""Protocols: which clips of a data set, how many frames of what size, and what is measured.

A protocol is a JSON file, so that a run can be repeated elsewhere and a deviation can be read off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from flythrough.errors import InputError
from flythrough.evaluation.columns import ALL
from flythrough.evaluation.datasets.layout import json_of

NAMES = ("re10k", "dl3dv", "davis", "worldscore")


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a data set is used.

    Attributes:
        dataset: one of ``NAMES``; ``split`` a part of it.
        clips: names, in order; None takes the split's own, in the order of their names.
        frames: of each clip, from frame ``start`` on, every ``stride``-th.
        size: (height, width); None takes the model's own.
        metrics: figures that are shown (``columns.ALL``).
        not_run: what the published protocols also ask for, and why it is not done here.
        about: sentences for readers.
    """

    dataset: str
    split: str
    frames: int
    metrics: tuple[str, ...]
    clips: tuple[str, ...] | None = None
    start: int = 0
    stride: int = 1
    size: tuple[int, int] | None = None
    not_run: tuple[str, ...] = ()
    about: tuple[str, ...] = ()


def protocol_of(dataset: str, file: Path | None = None) -> Protocol:
    """The protocol that comes with a data set, or that of a file.

    Raises:
        InputError: an unknown data set, or a file that breaks the rules above.
    """
    if dataset not in NAMES:
        raise InputError(f"The data set {dataset!r} is unknown; choose among {', '.join(NAMES)}.")
    own = files("flythrough.evaluation.datasets") / "protocols" / f"{dataset}.json"
    path = Path(str(own)) if file is None else file
    told = json_of(path)
    if not isinstance(told, dict):
        raise InputError(f"The protocol {path} must be a JSON object; see docs/evaluation.md.")
    found = _checked(told, path)
    if found.dataset != dataset:
        raise InputError(
            f"The protocol {path} is for {found.dataset}, not {dataset}; give the one that fits."
        )
    return found


def _checked(told: Mapping[str, Any], path: Path) -> Protocol:
    known = [field.name for field in fields(Protocol)]
    unknown = [key for key in told if key not in known]
    missing = [key for key in ("dataset", "split", "frames", "metrics") if key not in told]
    if unknown or missing:
        what = f"has an unknown key {unknown[0]!r}" if unknown else f"lacks {missing[0]!r}"
        raise InputError(f"The protocol {path} {what}; its keys are {', '.join(known)}.")
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in told.items()
    }
    for key, least in (("frames", 2), ("start", 0), ("stride", 1)):
        value = values.get(key, least)
        if not isinstance(value, int) or value < least:
            raise InputError(
                f"The protocol {path} gives {key} as {value!r}; it must be a whole number from "
                f"{least} on."
            )
    if values.get("size") is not None:
        _check_size(values["size"], path)
    odd = [name for name in values["metrics"] if name not in ALL]
    if odd:
        raise InputError(
            f"The protocol {path} asks for the metric {odd[0]!r}; known are {', '.join(ALL)}."
        )
    return Protocol(**values)


def _check_size(size: Sequence[Any], path: Path) -> None:
    if len(size) != 2 or any(not isinstance(side, int) or side < 32 for side in size):
        raise InputError(
            f"The protocol {path} gives the size {list(size)}; write [height, width] in pixels, "
            "from 32 on."
        )
