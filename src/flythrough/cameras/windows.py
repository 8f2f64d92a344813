"""Which frames of a path belong to which chunk, when chunks overlap (WorldWarp section 3.1)."""

from __future__ import annotations

from flythrough.errors import CameraError


def chunk_window(index: int, frames: int, overlap: int) -> range:
    """Frames of the whole video that chunk ``index`` shows, from 0: every chunk of ``frames``
    frames begins with the last ``overlap`` frames of the one before.

    Raises:
        CameraError: a negative index, or chunks that do not lead on.
    """
    if index < 0 or not 0 <= overlap < frames:
        raise CameraError(
            f"Chunk {index} of {frames} frames with {overlap} in common does not exist; count from "
            "0 and let the overlap be shorter than a chunk."
        )
    first = index * (frames - overlap)
    return range(first, first + frames)


def frames_needed(chunks: int, frames: int, overlap: int) -> int:
    """Length of the path that ``chunks`` chunks follow, 0 for none."""
    return chunk_window(chunks - 1, frames, overlap).stop if chunks > 0 else 0
