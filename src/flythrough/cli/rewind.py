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
    from flythrough.rollout import store

    rollout = store.load(folder).rewound(chunks)
    store.truncate(folder, len(rollout.chunks))
    left = len(rollout.chunks)
    emit(
        {"rollout": str(folder), "chunks": left, "frames": 33 * left, "digest": rollout.digest()},
        f"{folder}: {left} chunks ({33 * left} frames) are left",
    )
