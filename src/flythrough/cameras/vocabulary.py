"""All words of camera paths in tables, for people: what ``flythrough camera --list`` prints and
``docs/paths.md`` is held to."""

from __future__ import annotations

import math
from dataclasses import dataclass

from flythrough.cameras.presets import PRESETS, Preset
from flythrough.cameras.shots import SHOTS
from flythrough.cameras.verbs import VERBS


@dataclass(frozen=True)
class Table:
    """Rows of words under a heading for each column; the first column has what one may write."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables() -> dict[str, Table]:
    """Verbs, presets, amounts and shots by these names."""
    return {"verbs": _verbs(), "presets": _presets(), "amounts": _amounts(), "shots": _shots()}


def _verbs() -> Table:
    rows = []
    for name, verb in VERBS.items():
        example = " ".join(filter(None, (name, *verb.directions[:1], verb.example)))
        rows.append((name, ", ".join(verb.directions) or "-", verb.kind, example, verb.summary))
    columns = ("verb", "direction", "amount", "example", "what it does")
    return Table("Verbs: VERB [DIRECTION] AMOUNT [over SECONDS]", columns, tuple(rows))


def _presets() -> Table:
    rows = tuple(
        (name, preset.kind if preset.kind != "none" else "-", _default(preset), preset.summary)
        for name, preset in PRESETS.items()
    )
    columns = ("preset", "amount", "if left out", "what it does")
    return Table("Presets: NAME [AMOUNT] [over SECONDS]", columns, rows)


def _default(preset: Preset) -> str:
    if preset.kind == "angle":
        return f"{math.degrees(preset.default):g}deg"
    return f"{preset.default:g}" if preset.kind == "length" else "-"


def _amounts() -> Table:
    rows = (
        ("0.5", "length", "half of the photo's median depth"),
        ("0.5m", "length", "half a metre, where depth is in metres; then for all lengths"),
        ("20deg", "angle", "degrees"),
        ("0.35rad", "angle", "radians"),
        ("1.2x", "factor", "times the focal length"),
        ("1s", "seconds", "the s may be left out; also after the word over"),
    )
    return Table("Amounts", ("write", "amount", "what it is"), rows)


def _shots() -> Table:
    """Names alone: there are many, and each says what it does."""
    title = "Shots of WorldWarp: 'shots: NAME [+ NAME ...] [; ...]'"
    return Table(title, ("shot",), tuple((name,) for name in SHOTS))
