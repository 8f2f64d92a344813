"""WorldScore: JSON lists of photos with prompts and named camera moves (Duan et al. 2025).

Only the photo is given; there is no video to compare with. Its files list objects with ``image``,
``camera_path`` and ``prompt_list`` (static) or ``prompt`` (dynamic).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flythrough.errors import InputError
from flythrough.evaluation.datasets.layout import Scene, json_of

MOVES = {
    "push_in": "forward 0.3",
    "pull_out": "backward 0.3",
    "move_left": "truck left 0.25",
    "move_right": "truck right 0.25",
    "orbit_left": "orbit left 20deg",
    "orbit_right": "orbit right 20deg",
    "pan_left": "pan left 30deg",
    "pan_right": "pan right 30deg",
    "pull_left": "orbit right 15deg; backward 0.15",
    "pull_right": "orbit left 15deg; backward 0.15",
    "fixed": "hold",
}
"""The named moves in the path language. The amounts are this project's: the benchmark's own lie in
its camera generator, in units of the scenes that it builds."""


class WorldScore:
    """Splits are ``static`` and ``dynamic``."""

    def names(self, data: Path, split: str) -> list[str]:
        return list(_entries(data, split))

    def scene(self, data: Path, split: str, name: str) -> Scene:
        entry = _entries(data, split).get(name)
        if entry is None:
            raise InputError(f"WorldScore's {split} list has no photo {name}.")
        photo = _photo(data, str(entry["image"]))
        moves = entry.get("camera_path") or ["fixed"]
        moves = [moves] if isinstance(moves, str) else list(moves)
        unknown = [move for move in moves if move not in MOVES]
        if unknown:
            raise InputError(
                f"WorldScore's photo {name} asks for the move {unknown[0]!r}; known are "
                f"{', '.join(MOVES)}."
            )
        prompts = entry.get("prompt_list") or [entry.get("prompt", "")]
        path = "; ".join(MOVES[move] for move in moves)
        return Scene((photo,), path=path, caption=str(prompts[0]))


def _entries(data: Path, split: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(data.rglob("*.json")):
        told = json_of(file) if split in file.stem or split in file.parent.name else None
        if not isinstance(told, list):
            continue
        for entry in told:
            if isinstance(entry, dict) and "image" in entry and "camera_path" in entry:
                parts = Path(str(entry["image"])).with_suffix("").parts
                words = [part for part in parts if part not in (".", "..", "images", split)]
                found["-".join(words)] = entry
    if not found:
        raise InputError(
            f"There is no list {split}.json of photos with camera_path below {data}; give "
            "WorldScore's data folder and --split static or dynamic."
        )
    return found


def _photo(data: Path, image: str) -> Path:
    """The photo's file; the lists name it from the folder of the data set."""
    for above in (data, *sorted(folder for folder in data.iterdir() if folder.is_dir())):
        if (above / image).is_file():
            return above / image
    raise InputError(f"The photo {image} is missing below {data}; download WorldScore again.")
