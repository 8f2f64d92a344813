"""Rows out of CSV and JSONL files, before anything is known of their columns."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flythrough.errors import InputError

SUFFIXES = (".csv", ".jsonl")
_LONGEST_CELL = 1 << 20


@dataclass
class Cells:
    """A row as it stands: column names in lower case with ``_``, and values that are all text when
    ``text`` is set (CSV). ``fault`` says why the row cannot be read."""

    place: str
    values: dict[str, Any] = field(default_factory=dict)
    text: bool = False
    fault: str = ""


def cells_in(
    source: Path | Sequence[Mapping[str, Any]],
) -> tuple[list[Cells], str, tuple[Path, ...]]:
    """Rows, the word that nameless rows are called by, and folders that relative paths start from.

    Raises:
        InputError: not a .csv or .jsonl file in UTF-8, or no rows in it.
    """
    if not isinstance(source, Path):
        rows = [Cells(f"row {n}", _named(row)) for n, row in enumerate(source, 1)]
        return _some(rows, "The list"), "row", ()
    text = _content(source)
    rows = _csv(source, text) if source.suffix.lower() == ".csv" else _jsonl(text)
    return _some(rows, str(source)), source.stem, (source.absolute().parent,)


def column_name(text: str) -> str:
    """``--Warp-Mask`` -> ``warp_mask``."""
    return text.strip().lstrip("-").lower().replace("-", "_")


def _content(path: Path) -> str:
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"The list {path} must end in {' or '.join(SUFFIXES)}; convert it.")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"The list {path} is not UTF-8 text; save it as UTF-8.") from None
    except OSError as error:
        raise InputError(
            f"The list {path} cannot be opened ({error.strerror}); check the path."
        ) from None


def _csv(path: Path, text: str) -> list[Cells]:
    csv.field_size_limit(_LONGEST_CELL)
    try:
        table = [line for line in csv.reader(io.StringIO(text, newline=""), strict=True) if line]
    except csv.Error as error:
        raise InputError(
            f"The list {path} is not valid CSV ({error}); put texts that hold commas, quotes or "
            "line breaks in double quotes."
        ) from None
    if not table:
        return []
    names = [column_name(name) for name in table[0]]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"The list {path} has the column {twice[0]!r} twice; keep one of them.")
    lines = [line for line in table[1:] if any(cell.strip() for cell in line)]
    return [_csv_row(names, line, number) for number, line in enumerate(lines, 1)]


def _csv_row(names: list[str], line: list[str], number: int) -> Cells:
    row = Cells(f"row {number}", text=True)
    row.values = {name: cell.strip() for name, cell in zip(names, line, strict=False)}
    row.values |= dict.fromkeys(names[len(line) :], "")
    if len(line) > len(names):
        row.fault = (
            f"It has {len(line)} cells but the header has {len(names)}; put texts that hold commas "
            "in double quotes."
        )
    return row


def _jsonl(text: str) -> list[Cells]:
    rows: list[Cells] = []
    for line in text.split("\n"):
        if not line.strip():
            continue
        place = f"row {len(rows) + 1}"
        try:
            value = json.loads(line)
        except ValueError as error:
            rows.append(Cells(place, fault=f"It is not JSON ({error}); write one object a line."))
            continue
        if isinstance(value, dict):
            rows.append(Cells(place, _named(value)))
        else:
            rows.append(Cells(place, fault="It is not a JSON object; write one object a line."))
    return rows


def _named(row: Mapping[str, Any]) -> dict[str, Any]:
    return {column_name(str(name)): value for name, value in row.items()}


def _some(rows: list[Cells], name: str) -> list[Cells]:
    if not rows:
        raise InputError(f"{name} holds no rows; write one row a video.")
    return rows
