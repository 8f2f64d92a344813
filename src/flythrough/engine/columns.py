"""What each column of a list may hold, taken from the fields of :class:`GenerateRequest`."""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from flythrough.cameras.path_language import starts_like_a_path
from flythrough.engine.files import WORDS
from flythrough.engine.request import GenerateRequest
from flythrough.engine.words import NO, YES, parse_size, parse_steps
from flythrough.errors import InputError
from flythrough.geometry.estimators.words import split_axes
from flythrough.models.catalog import BUNDLED

WHOLE_BATCH = (
    *("output", "rollout", "save_warp", "save_mask"),
    *("device", "memory", "compute", "hardware", "codec_precision"),
)
"""Fields that a row cannot state."""

_MAY_NAME_FILES = ("camera", "geometry", "lora", "model")


@dataclass(frozen=True)
class Column:
    """``kind``: path, text, number, count, choice, switch, size or steps; ``choices`` of choice."""

    kind: str
    choices: tuple[str, ...] = ()


def _column(hint: Any) -> Column:
    members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    for member in members:
        if get_origin(member) is Literal:
            return Column("choice", tuple(map(str, get_args(member))))
        if get_origin(member) is tuple:
            return Column("steps" if Ellipsis in get_args(member) else "size")
    for kind, form in (("text", str), ("path", Path), ("switch", bool), ("count", int)):
        if form in members:
            return Column(kind)
    return Column("number")


COLUMNS: dict[str, Column] = {
    name: _column(hint)
    for name, hint in get_type_hints(GenerateRequest).items()
    if name not in WHOLE_BATCH
}


def value_of(name: str, value: Any, places: tuple[Path, ...]) -> Any:
    """``value`` as the field ``name`` wants it; text from a CSV cell and JSON values both do.

    Files are looked for in ``places``; where none has them the path stays as it is.

    Raises:
        InputError: which value does not fit the column.
    """
    column = COLUMNS[name]
    if column.kind == "choice":
        if value not in column.choices:
            raise _refused(name, value, f"one of {', '.join(column.choices)}")
        return value
    found = _READERS[column.kind](name, value)
    if column.kind == "path":
        return located(found, places)
    return _text_or_file(name, found, places) if name in _MAY_NAME_FILES else found


def located(path: Path, places: tuple[Path, ...]) -> Path:
    """``path`` in the first of ``places`` that has it, else ``path``."""
    path = path.expanduser()
    try:
        return next((place / path for place in places if (place / path).exists()), path)
    except (OSError, ValueError):  # a name that no file system takes is refused when it is opened
        return path


def _text_or_file(name: str, text: str, places: tuple[Path, ...]) -> str:
    words = name == "camera" and starts_like_a_path(text)
    if words or text in (*WORDS, BUNDLED) or not text.strip():
        return text
    file, axes = split_axes(text) if name == "geometry" else (text, None)
    return str(located(Path(file), places)) + (f":{axes}" if axes else "")


def _text(name: str, value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    if not isinstance(value, str):
        raise _refused(name, value, "text")
    return value


def _path(name: str, value: Any) -> Path:
    return Path(_text(name, value))


def _number(name: str, value: Any) -> float:
    try:
        if isinstance(value, bool):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise _refused(name, value, "a number") from None


def _count(name: str, value: Any) -> int:
    try:
        if isinstance(value, bool) or (isinstance(value, float) and value != int(value)):
            raise TypeError
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise _refused(name, value, "a whole number") from None


def _switch(name: str, value: Any) -> bool:
    text = str(value).strip().lower()
    if text not in YES + NO:
        raise _refused(name, value, "yes or no")
    return text in YES


def _size(name: str, value: Any) -> tuple[int, int] | None:
    if isinstance(value, list | tuple) and len(value) == 2:
        return _count(name, value[0]), _count(name, value[1])
    return parse_size(_text(name, value))


def _steps(name: str, value: Any) -> tuple[int, ...] | None:
    if isinstance(value, list | tuple):
        return tuple(_count(name, one) for one in value)
    return parse_steps(str(value))


def _refused(name: str, value: Any, wanted: str) -> InputError:
    return InputError(f"The {name.replace('_', '-')} {value!r} must be {wanted}; correct it.")


_READERS: dict[str, Callable[[str, Any], Any]] = {
    "text": _text,
    "path": _path,
    "number": _number,
    "count": _count,
    "switch": _switch,
    "size": _size,
    "steps": _steps,
}
