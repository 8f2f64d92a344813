"""A clip that a new video continues. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from flythrough.errors import MediaError
from flythrough.media.checks import IN_MEMORY
from flythrough.media.fitting import default_intrinsics
from flythrough.media.image import Photo, fit
from flythrough.media.video import Clip, read_video
from flythrough.rollout.chunk import CHUNK_FRAMES, HISTORY_CHUNKS


@dataclass(frozen=True, eq=False)
class StartVideo:
    """The part of a clip that generation sees, at the output size.

    ``first`` uint8 [H,W,3] is the clip's first frame, the anchor; ``frames`` uint8 [T,H,W,3] its
    last frames, T a multiple of 33 and at most 99; ``given`` frames at ``fps`` stood in the file;
    ``intrinsics`` [3,3] are assumed.
    """

    first: np.ndarray
    frames: np.ndarray
    given: int
    fps: float
    intrinsics: np.ndarray
    digest: str


def read_start_video(video: Path | Clip, size: tuple[int, int]) -> StartVideo:
    """Read the clip and cut it to ``size`` = (height, width); a surplus is cut at the front.

    Raises:
        MediaError: unreadable, or shorter than 33 frames.
    """
    path = Path(IN_MEMORY) if isinstance(video, Clip) else video
    clip = video if isinstance(video, Clip) else read_video(video)
    given = len(clip.frames)
    chunks = min(given // CHUNK_FRAMES, HISTORY_CHUNKS)
    if chunks == 0:
        raise MediaError(
            f"The video {path} has {given} frames but at least {CHUNK_FRAMES} are needed to "
            "continue it; give a longer clip, or one of its frames as IMAGE."
        )
    used = clip.frames[given - chunks * CHUNK_FRAMES :]

    def fitted(frame: np.ndarray) -> np.ndarray:
        return fit(Photo(frame, None, path, ""), *size).pixels

    return StartVideo(
        first=fitted(clip.frames[0]),
        frames=np.stack([fitted(frame) for frame in used]),
        given=given,
        fps=clip.fps,
        intrinsics=default_intrinsics(*size),
        digest=blake2b(used.tobytes(), digest_size=16).hexdigest(),
    )
