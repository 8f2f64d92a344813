"""``flythrough rewind``: drop the newest chunks of a stored rollout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from flythrough.cli.output import emit


def rewind(
    folder: Path, /, *, chunks: Annotated[int, Parameter(help="How many chunks to drop.")]
) -> None:
    """Drop the last chunks; `flythrough continue` then makes them again, the same or anew."""
    from flythrough.engine.stored import rewind_folder

    rollout = rewind_folder(folder, chunks)
    left = len(rollout.chunks)
    emit(
        {
            "rollout": str(folder),
            "chunks": left,
            "frames": rollout.frame_count,
            "digest": rollout.digest(),
        },
        f"{folder}: {left} chunk{'' if left == 1 else 's'} ({rollout.frame_count} frames) left",
    )
