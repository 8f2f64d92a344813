"""A warp rendered elsewhere, read from video files. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from flythrough.errors import MediaError, RolloutError
from flythrough.media.video import read_video
from flythrough.rollout.chunk import CHUNK_FRAMES


@dataclass(frozen=True)
class WarpRecord:
    """What a stored plan keeps of a warp: its files, and a digest of every chunk's part."""

    video: str
    mask: str | None
    digests: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {"video": self.video, "mask": self.mask, "digests": list(self.digests)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> WarpRecord:
        mask = data["mask"]
        return cls(str(data["video"]), None if mask is None else str(mask), tuple(data["digests"]))


@dataclass(frozen=True, eq=False)
class WarpVideo:
    """A pre-rendered warp: ``frames`` uint8 [T,H,W,3] and ``mask`` uint8 [T,H,W] (255 = seen), T a
    multiple of 33; ``given`` frames stood in the file."""

    frames: np.ndarray
    mask: np.ndarray
    given: int
    record: WarpRecord


def read_warp(video: Path, mask: Path | None, frames: int, size: tuple[int, int]) -> WarpVideo:
    """Read a warp for ``frames`` frames at ``size`` = (height, width).

    A warp that is too long is cut; the last chunk is filled up with its last frame. Without a mask
    everything counts as seen.

    Raises:
        MediaError: unreadable, too short, of another size, or a mask of another length.
    """
    clip = read_video(video).frames
    if len(clip) < frames:
        raise MediaError(
            f"The warp video {video} has {len(clip)} frames but {frames} are to be made; give a "
            f"longer warp or --frames {len(clip)}."
        )
    _check_same_size(video, clip, size)
    seen = np.full(clip.shape[:3], 255, np.uint8)
    if mask is not None:
        pixels = read_video(mask).frames
        if len(pixels) != len(clip):
            raise MediaError(
                f"The mask {mask} has {len(pixels)} frames but its warp has {len(clip)}; they must "
                "be equally long."
            )
        _check_same_size(mask, pixels, size)
        seen = pixels.mean(axis=3).round().astype(np.uint8)
    chunks = -(-frames // CHUNK_FRAMES)
    used = np.minimum(np.arange(chunks * CHUNK_FRAMES), frames - 1)
    taken, shown = clip[used], seen[used]
    digests = tuple(
        blake2b(taken[a:b].tobytes() + shown[a:b].tobytes(), digest_size=16).hexdigest()
        for a, b in ((k * CHUNK_FRAMES, (k + 1) * CHUNK_FRAMES) for k in range(chunks))
    )
    place = None if mask is None else str(mask.resolve())
    return WarpVideo(taken, shown, len(clip), WarpRecord(str(video.resolve()), place, digests))


def reread_warp(record: WarpRecord, frames: int, size: tuple[int, int]) -> WarpVideo:
    """The warp of a stored plan, which must still be the same.

    Raises:
        MediaError: a file is gone.
        RolloutError: a file changed since the rollout was started.
    """
    mask = None if record.mask is None else Path(record.mask)
    warp = read_warp(Path(record.video), mask, frames, size)
    if warp.record.digests != record.digests:
        raise RolloutError(
            f"The warp {record.video} or its mask changed since the rollout was started; restore "
            "the old files or start a new rollout."
        )
    return warp


def _check_same_size(path: Path, frames: np.ndarray, size: tuple[int, int]) -> None:
    if frames.shape[1:3] != size:
        given = f"{frames.shape[1]}x{frames.shape[2]}"
        raise MediaError(
            f"{path} is {given} but the output is {size[0]}x{size[1]}; give --size {given} or "
            "render the warp at the output size."
        )
