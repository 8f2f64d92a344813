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
    from flythrough.errors import RolloutError
    from flythrough.rollout import store
    from flythrough.rollout.manifest import read_manifest

    made = len(read_manifest(folder).chunks)
    if not 1 <= chunks <= made:
        raise RolloutError(
            f"--chunks {chunks} does not fit {folder}, which has {made} chunks; give 1 to {made}."
            if made
            else f"The rollout {folder} has no chunks to drop; run `flythrough continue {folder}`."
        )
    store.truncate(folder, made - chunks)  # works even when a dropped file is damaged
    rollout = store.load(folder)
    left = len(rollout.chunks)
    emit(
        {
            "rollout": str(folder),
            "chunks": left,
            "frames": rollout.frame_count,
            "digest": rollout.digest(),
        },
        f"{folder}: {left} chunks ({rollout.frame_count} frames) are left",
    )
