"""Lists in the layout of Warp-as-History's demos, translated to the columns of ``generate``.

A row there names a photo, a prompt (or a text file) and either camera poses or a pre-rendered warp
with an optional visibility mask. Paths count from the list, its repository or the working
directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flythrough.cameras.formats import read_trajectory
from flythrough.engine.columns import COLUMNS, located
from flythrough.engine.manifest_files import Cells
from flythrough.errors import FlythroughError, InputError
from flythrough.media.stills import frame_count

SEED = 42
"""The seed of the published script."""

_NAMES = {
    "image": ("first_frame_path", "image_path", "first_frame"),
    "prompt": ("prompts", "caption"),
    "prompt_path": ("prompt_path",),
    "camera": ("camera_poses_path", "camera_path"),
    "warp": ("warp_video_path", "warp_path"),
    "warp_mask": (
        "warp_visibility_mask_path",
        "warp_visibliry_mask_path",
        "visibility_mask_path",
        "warp_mask_path",
    ),
}
_OURS = {name: ours for ours, names in _NAMES.items() for name in names}
_TELLING = frozenset(_OURS) - {"prompts", "caption", "prompt_path"}


def is_published(columns: set[str]) -> bool:
    """Whether a list is in the published layout: some column is known from nowhere else."""
    return bool(columns & _TELLING) and not columns & {"video_path"}


def translated(
    rows: Sequence[Cells], places: tuple[Path, ...], given: dict[str, Any]
) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Rename the columns of ``rows`` in place; returns where paths count from, and notes.

    ``given`` are options for all rows. A row that cannot be translated keeps its reason as
    ``fault``.
    """
    places = tuple(folder for place in places for folder in (place, *place.parents))
    notes = [
        "the list is in the published Warp-as-History layout and was translated: a clip is as long "
        "as its poses or warp unless frames are given (exactly, where the published script rounds "
        "down to 33, 65, 97 ...), "
        f"its seed is {SEED} unless one is given, distances of poses count 0.1 median depths, size "
        "and frame rate are the model's."
    ]
    for row in rows:
        try:
            notes += _translate(row, places, given)
        except FlythroughError as error:
            row.fault = row.fault or str(error)
    return places, tuple(notes)


def _translate(row: Cells, places: tuple[Path, ...], given: dict[str, Any]) -> list[str]:
    notes: list[str] = []
    values: dict[str, Any] = {}
    for name, value in row.values.items():
        ours = _OURS.get(name, name)
        if value in (None, "") and ours not in COLUMNS and ours != "id" and name in _OURS:
            continue
        if values.get(ours) not in (None, "") and value not in (None, ""):
            raise InputError(f"The columns for {ours} are filled twice; keep one of them.")
        if values.get(ours) in (None, ""):
            values[ours] = value
    row.values = values
    text = values.pop("prompt_path", None)
    if text not in (None, "") and values.get("prompt") in (None, ""):
        values["prompt"] = _text_in(located(Path(str(text)), places))
    if values.get("warp") and values.get("camera"):
        values["camera"] = None
        notes.append(f"{row.place}: warp and poses are both named: the warp leads, as published.")
    if "seed" not in given and values.get("seed") in (None, ""):
        values["seed"] = SEED
    return notes + _length(row, places, given)


def _length(row: Cells, places: tuple[Path, ...], given: dict[str, Any]) -> list[str]:
    """Give the row its frames where none are stated; a note where poses end before the clip."""
    values = row.values
    stated = values.get("frames") or given.get("frames")
    if values.get("camera") and not values.get("warp"):
        count = len(read_trajectory(located(Path(str(values["camera"])), places)))
        if stated and str(stated).isdigit() and int(stated) > count:
            return [
                f"{row.place}: {stated} frames are asked for but there are {count} poses: the last "
                "is held (the published script refuses)."
            ]
    elif values.get("warp") and not stated:
        count = frame_count(located(Path(str(values["warp"])), places))
    else:
        return []
    if not stated:
        values["frames"] = count
    return []


def _text_in(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise InputError(
            f"The prompt file {path} cannot be read; check the path, it must be UTF-8 text."
        ) from None
