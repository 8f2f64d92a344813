"""Lists of training videos with their captions, in the layout of Warp-as-History's data CSV.

Importing this loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from flythrough.conditioning.prompts import TRIGGER, with_trigger
from flythrough.engine.manifest_files import Cells, cells_in, column_name
from flythrough.errors import InputError

VIDEO_COLUMNS = ("video", "video_url", "url", "video_path", "path")
PROMPT_COLUMNS = ("prompt", "prompts", "caption", "text")


@dataclass(frozen=True)
class TrainingVideo:
    """One row: ``id`` names it in seeds, ``video`` is a file, a folder of pictures or an address
    as the list has it, ``caption`` is its text and ``prompt`` the text with the trigger."""

    id: str
    video: str
    caption: str
    prompt: str

    def located(self, root: Path) -> Path:
        """The file or folder, relative ones under ``root``.

        Raises:
            InputError: the address of another machine, which nothing here fetches.
        """
        address = urlparse(self.video)
        # A single letter is the drive of a Windows path, not a scheme.
        if len(address.scheme) > 1:
            if address.scheme != "file":
                raise InputError(
                    f"the training video {self.video} is an address; download it and name the file"
                )
            return Path(url2pathname(address.path))
        return root / self.video


@dataclass(frozen=True)
class TrainingList:
    """The rows of a list and the columns they were read from."""

    videos: tuple[TrainingVideo, ...]
    video_column: str
    prompt_column: str


def read_training_list(
    source: Path | Sequence[Mapping[str, Any]],
    *,
    video_column: str | None = None,
    prompt_column: str | None = None,
    trigger: str = TRIGGER,
    limit: int | None = None,
) -> TrainingList:
    """Rows of a CSV or JSONL file, or of mappings in memory.

    The first known column name that the list has is taken, unless one is given. A row without an
    ``id`` is named after its place, ``online_000000`` for the first.

    Args:
        trigger: put before captions that do not begin with it; empty: nothing.
        limit: take only that many rows.

    Raises:
        InputError: the file cannot be read, a column is missing, or a row is incomplete or named
            as another.
    """
    if limit is not None and limit < 1:
        raise InputError(f"a limit of {limit} leaves no rows; give at least 1")
    rows, _, _ = cells_in(source)
    columns = list(dict.fromkeys(name for row in rows for name in row.values))
    video = _column(columns, video_column, VIDEO_COLUMNS, "videos")
    prompt = _column(columns, prompt_column, PROMPT_COLUMNS, "captions")
    videos = [_video(n, row, video, prompt, trigger) for n, row in enumerate(rows[:limit])]
    names = [one.id for one in videos]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            f"two rows have the id {twice[0]!r}, by which their clips are drawn; name them apart"
        )
    return TrainingList(tuple(videos), video, prompt)


def _column(columns: list[str], given: str | None, known: tuple[str, ...], what: str) -> str:
    if given is not None:
        if column_name(given) not in columns:
            raise InputError(
                f"the list has no column {given!r} for {what}; it has {', '.join(columns)}"
            )
        return column_name(given)
    found = [name for name in known if name in columns]
    if not found:
        raise InputError(
            f"the list has no column for {what}; call it {known[0]!r} or name one of "
            f"{', '.join(columns)}"
        )
    return found[0]


def _video(number: int, row: Cells, video: str, prompt: str, trigger: str) -> TrainingVideo:
    if row.fault:
        raise InputError(f"{row.place}: {row.fault}")
    values = {name: str(row.values.get(name) or "").strip() for name in ("id", video, prompt)}
    for name in (video, prompt):
        if not values[name]:
            raise InputError(f"{row.place} has nothing in the column {name!r}; fill it in")
    caption = values[prompt]
    return TrainingVideo(
        id=values["id"] or f"online_{number:06d}",
        video=values[video],
        caption=caption,
        prompt=with_trigger(caption, trigger),
    )
