"""Lists of videos to make: CSV or JSONL, one row a job, columns as the options of ``generate``.

Columns follow from the fields of :class:`GenerateRequest`, so every option can stand in a list.
Importing this loads no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Any

from flythrough.engine.columns import COLUMNS, value_of
from flythrough.engine.manifest_files import Cells, cells_in
from flythrough.engine.published_manifest import is_published, translated
from flythrough.errors import FlythroughError, InputError

ID = "id"
LISTS = ("image", "camera", "prompt", "seed")
"""Columns that may hold several values; all combinations are made."""

MAX_PRODUCT = 10_000
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Row:
    """One video: ``place`` is where it was asked for ("row 3"), ``id`` names it, ``options`` are
    fields of ``GenerateRequest`` of the right types."""

    place: str
    id: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Manifest:
    """Every row that can be read, one sentence for each that cannot, and notes for the user."""

    rows: tuple[Row, ...]
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_manifest(
    source: Path | Sequence[Mapping[str, Any]], given: Mapping[str, Any] | None = None
) -> Manifest:
    """The rows of a .csv or .jsonl file, or of mappings in memory.

    Relative paths count from the file's folder and, if there is nothing, from the working
    directory.

    Args:
        given: options for the rows that do not state them.

    Raises:
        InputError: the file cannot be read at all, has unknown columns or no rows, or an option of
            ``given`` is unknown or has no effect since every row states it.
    """
    cells, stem, places = cells_in(source)
    defaults = {name: value_of(name, value, ()) for name, value in _known(given or {}).items()}
    notes: tuple[str, ...] = ()
    published = is_published({name for row in cells for name in row.values})
    if published:
        places, notes = translated(cells, places, defaults)
    _check_columns(cells)
    rows: list[Row] = []
    faults: list[str] = []
    for number, row in enumerate(cells, 1):
        name = stem if len(cells) == 1 else f"{stem}-{number:03d}"
        try:
            rows += _jobs(row, name, defaults, places, split=row.text and not published)
        except FlythroughError as error:
            faults.append(f"{row.place}: {error}")
    faults += _repeated(rows)
    _check_effect(defaults, cells)
    return Manifest(tuple(rows), tuple(faults), notes)


def _jobs(
    row: Cells, name: str, defaults: Mapping[str, Any], places: tuple[Path, ...], *, split: bool
) -> list[Row]:
    """The jobs of one row: all combinations of its lists."""
    if row.fault:
        raise InputError(row.fault)
    stated = {key: value for key, value in row.values.items() if value not in (None, "")}
    name = _checked_id(stated.pop(ID, name))
    unknown = [key for key in stated if key not in COLUMNS]
    if unknown:
        raise InputError(_unknown(unknown[0]))
    options = dict(defaults)
    lists: dict[str, list[Any]] = {}
    for key, value in stated.items():
        if key in LISTS:
            lists[key] = [value_of(key, one, places) for one in _several(key, value, split)]
        else:
            options[key] = value_of(key, value, places)
    sizes = [len(values) for values in lists.values()]
    count = 1
    for size in sizes:
        count *= size
    if count > MAX_PRODUCT:
        raise InputError(
            f"Its lists make {count} combinations, more than {MAX_PRODUCT}; split the row."
        )
    keys = [key for key in LISTS if key in lists]
    choices = [list(zip(lists[key], _suffixes(key, lists[key]), strict=True)) for key in keys]
    jobs = []
    for chosen in product(*choices):
        own = {key: value for key, (value, _) in zip(keys, chosen, strict=True)}
        suffix = "".join(text for _, text in chosen)
        jobs.append(Row(row.place, _checked_id(name + suffix), options | own))
    return jobs


def _several(key: str, value: Any, split: bool) -> list[Any]:
    """The values of a cell: a JSON array, or text cut at ``|`` where the file is CSV."""
    values = value
    if split and isinstance(value, str):
        values = [part.strip() for part in value.split("|")]
    if not isinstance(values, list | tuple):
        return [values]
    if not values or any(one in (None, "") for one in values):
        raise InputError(f"The list of {key} has an empty place; fill it or take it out.")
    return list(values)


def _suffixes(key: str, values: list[Any]) -> list[str]:
    """What tells the values of one list apart in ids; nothing where there is one value."""
    if len(values) == 1:
        return [""]
    if key == "seed":
        return [f"-seed{value}" for value in values]
    numbered = [f"-{key}{number}" for number in range(1, len(values) + 1)]
    if key != "image":
        return numbered
    stems = [Path(value).stem for value in values]
    distinct = len({stem.casefold() for stem in stems}) == len(stems)
    fine = distinct and all(_ID.fullmatch(stem) for stem in stems)
    return [f"-{stem}" for stem in stems] if fine else numbered


def _checked_id(name: Any) -> str:
    text = str(name)
    if _ID.fullmatch(text) is None:
        raise InputError(
            f"The id {text[:120]!r} cannot name a file; use up to 100 letters, digits and . _ -, "
            "not beginning with . or -."
        )
    return text


def _repeated(rows: list[Row]) -> list[str]:
    """Ids that would be one file, also where the file system does not tell capitals apart."""
    first: dict[str, Row] = {}
    faults = []
    for row in rows:
        before = first.setdefault(row.id.casefold(), row)
        if before is not row:
            faults.append(
                f"{row.place}: The id {row.id} is taken by {before.place}; give each video its own."
            )
    return faults


def _check_columns(cells: Sequence[Cells]) -> None:
    """Columns of a CSV header that mean nothing: reported once, not for every row."""
    row = next((row for row in cells if row.text and not row.fault), None)
    if row is None:
        return
    unknown = [key for key in row.values if key != ID and key not in COLUMNS]
    if unknown:
        raise InputError(" ".join(_unknown(key) for key in unknown))


def _unknown(key: str) -> str:
    if key in ("output", "rollout", "save_warp", "save_mask", "device", "memory"):
        return (
            f"The column {key!r} has no place in a list, because it belongs to the whole batch; "
            "drop it and see `flythrough batch --help`."
        )
    near = get_close_matches(key, [ID, *COLUMNS], n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join([ID, *COLUMNS])}."
    return f"The column {key!r} is unknown; {hint}"


def _known(given: Mapping[str, Any]) -> Mapping[str, Any]:
    for key in given:
        if key not in COLUMNS:
            raise InputError(_unknown(key).replace("column", "option", 1))
    return {key: value for key, value in given.items() if value is not None}


def _check_effect(defaults: Mapping[str, Any], cells: Sequence[Cells]) -> None:
    for key in defaults:
        if cells and all(row.values.get(key) not in (None, "") for row in cells):
            option = key.replace("_", "-")
            raise InputError(
                f"--{option} {defaults[key]} has no effect, because every row states its own "
                f"{key}; drop the option or the column."
            )
