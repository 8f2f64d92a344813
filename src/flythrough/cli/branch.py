"""``flythrough branch``: the beginning of a stored rollout as a rollout of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from flythrough.cli.output import emit


def branch(
    folder: Path,
    new: Path,
    /,
    *,
    chunks: Annotated[int | None, Parameter(help="How many chunks to take; default: all.")] = None,
) -> None:
    """Copy the first chunks into a new rollout folder, to go on from there in another way.

    The old folder stays as it is. Give the branch a video of its own: `flythrough continue NEW
    --camera PATH -o OUT.mp4`.
    """
    from flythrough.engine.stored import branch_folder

    rollout = branch_folder(folder, new, chunks)
    taken = len(rollout.chunks)
    emit(
        {
            "rollout": str(new),
            "parent": str(folder),
            "chunks": taken,
            "frames": rollout.frame_count,
            "digest": rollout.digest(),
        },
        f"{new}: {taken} chunk{'' if taken == 1 else 's'} ({rollout.frame_count} frames) of "
        f"{folder}",
    )
