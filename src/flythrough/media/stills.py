"""A few frames out of a video without keeping the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flythrough.errors import MediaError
from flythrough.media.checks import check_input_file, reason


def frame_count(path: Path) -> int:
    """Frames of the first video stream, counted by decoding it.

    Raises:
        MediaError: missing, damaged or not a video.
    """
    return _decoded(path, ())[0]


def spread_frames(path: Path, count: int = 3) -> list[np.ndarray]:
    """``count`` frames from the first to the last at equal distances, uint8 [H,W,3] each; a video
    that is shorter gives each of its frames once.

    Raises:
        MediaError: missing, damaged or not a video.
    """
    total = frame_count(path)
    wanted = np.linspace(0, total - 1, min(count, total)).round().astype(int)
    return _decoded(path, tuple(wanted.tolist()))[1]


def _decoded(path: Path, wanted: tuple[int, ...]) -> tuple[int, list[np.ndarray]]:
    import av
    from av.error import FFmpegError

    check_input_file(path, "video")
    kept: list[np.ndarray] = []
    total = 0
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                if total in wanted:
                    kept.append(frame.to_ndarray(format="rgb24"))
                total += 1
    except (OSError, IndexError, FFmpegError) as error:
        raise MediaError(
            f"The video {path} cannot be read ({reason(error)}); convert it to H.264 MP4."
        ) from error
    if not total:
        raise MediaError(f"The video {path} holds no frames; record or convert it again.")
    return total, kept
