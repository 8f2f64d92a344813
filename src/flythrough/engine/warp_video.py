"""A warp rendered elsewhere, read from video files or given in memory. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from flythrough.errors import MediaError, RolloutError
from flythrough.media.image import Photo, fit
from flythrough.media.video import read_video
from flythrough.rollout.chunk import CHUNK_FRAMES

_SAME_ASPECT = 0.02
"""Relative; published warps have sides rounded to a few pixels."""


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
    multiple of 33; ``given`` frames of ``shape`` (height, width) stood in the file."""

    frames: np.ndarray
    mask: np.ndarray
    given: int
    record: WarpRecord
    shape: tuple[int, int]


def read_warp(
    video: Path,
    mask: Path | None,
    frames: int,
    size: tuple[int, int],
    photo: tuple[int, int] | None = None,
) -> WarpVideo:
    """Read a warp for ``frames`` frames at ``size`` = (height, width).

    A warp that is too long is cut; the last chunk is filled up with its last frame. Without a mask
    everything counts as seen. Warp and mask may have any size of the output's shape, or of the
    shape of the ``photo`` (height, width) before its crop: they are then cut and scaled as the
    photo is.

    Raises:
        MediaError: unreadable, too short, of another shape, or a mask of another length.
    """
    return _read(video, mask, frames, size, (size,) if photo is None else (size, photo))


def reread_warp(record: WarpRecord, frames: int, size: tuple[int, int]) -> WarpVideo:
    """The warp of a stored plan, which must still be the same.

    Raises:
        MediaError: a file is gone.
        RolloutError: a file changed since the rollout was started.
    """
    mask = None if record.mask is None else Path(record.mask)
    warp = _read(Path(record.video), mask, frames, size, None)
    if warp.record.digests != record.digests:
        raise RolloutError(
            f"The warp {record.video} or its mask changed since the rollout was started; restore "
            "the old files or start a new rollout."
        )
    return warp


def warp_digest(frames: np.ndarray, mask: np.ndarray) -> str:
    """What a chunk's request keeps of its warp: uint8 [33,H,W,3] and [33,H,W]."""
    return blake2b(frames.tobytes() + mask.tobytes(), digest_size=16).hexdigest()


def warp_in_memory(
    frames: np.ndarray, mask: np.ndarray | None, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """One chunk's warp as uint8 [33,H,W,3] and mask uint8 [33,H,W] (255: seen), after checks.

    Args:
        frames: uint8 [33,H,W,3] sRGB at ``size`` = (height, width).
        mask: [33,H,W] of bool, of floats in [0,1], or of uint8 with 255 for seen; None: all seen.

    Raises:
        MediaError: another shape, type or range.
    """
    pixels = np.asarray(frames)
    wanted = (CHUNK_FRAMES, *size, 3)
    if pixels.dtype != np.uint8 or pixels.shape != wanted:
        raise MediaError(
            f"The warp is {pixels.dtype} {list(pixels.shape)} but a step needs uint8 "
            f"{list(wanted)}: {CHUNK_FRAMES} frames at the rollout's size; convert it first."
        )
    if mask is None:
        return np.ascontiguousarray(pixels), np.full(wanted[:3], 255, np.uint8)
    seen = np.asarray(mask)
    if seen.shape != wanted[:3] or seen.dtype.kind not in "bf" + "u" * (seen.dtype == np.uint8):
        raise MediaError(
            f"The mask is {seen.dtype} {list(seen.shape)} but must be {list(wanted[:3])} of bool, "
            "uint8 (255: seen) or floats from 0 to 1; convert it first."
        )
    if seen.dtype != np.uint8:
        share = seen.astype(np.float64)
        if not ((share >= 0) & (share <= 1)).all():
            raise MediaError(
                "The mask holds values that do not lie between 0 (unseen) and 1 (seen); scale it."
            )
        seen = np.round(share * 255).astype(np.uint8)
    return np.ascontiguousarray(pixels), np.ascontiguousarray(seen)


Shapes = tuple[tuple[int, int], ...] | None
"""(height, width) whose aspects a warp may have; None when that was checked before."""


def _read(
    video: Path, mask: Path | None, frames: int, size: tuple[int, int], shapes: Shapes
) -> WarpVideo:
    clip = read_video(video).frames
    if len(clip) < frames:
        raise MediaError(
            f"The warp video {video} has {len(clip)} frames but {frames} are to be made; give a "
            f"longer warp or --frames {len(clip)}."
        )
    _check_shape(video, clip, size, shapes)
    chunks = -(-frames // CHUNK_FRAMES)
    used = np.minimum(np.arange(chunks * CHUNK_FRAMES), frames - 1)
    taken = _fitted(clip[:frames], size, video)[used]
    seen = np.full((frames, *size), 255, np.uint8)
    if mask is not None:
        pixels = read_video(mask).frames
        if len(pixels) != len(clip):
            raise MediaError(
                f"The mask {mask} has {len(pixels)} frames but its warp has {len(clip)}; they must "
                "be equally long."
            )
        _check_shape(mask, pixels, size, shapes)
        seen = _fitted(pixels[:frames], size, mask).mean(axis=3).round().astype(np.uint8)
    shown = seen[used]
    digests = tuple(
        warp_digest(taken[a:b], shown[a:b])
        for a, b in ((k * CHUNK_FRAMES, (k + 1) * CHUNK_FRAMES) for k in range(chunks))
    )
    place = None if mask is None else str(mask.resolve())
    record = WarpRecord(str(video.resolve()), place, digests)
    height, width = clip.shape[1:3]
    return WarpVideo(taken, shown, len(clip), record, (height, width))


def _fitted(frames: np.ndarray, size: tuple[int, int], path: Path) -> np.ndarray:
    if frames.shape[1:3] == size:
        return frames
    return np.stack([fit(Photo(frame, None, path, ""), *size).pixels for frame in frames])


def _check_shape(path: Path, frames: np.ndarray, size: tuple[int, int], shapes: Shapes) -> None:
    aspect = frames.shape[2] / frames.shape[1]
    if shapes is None or any(abs(aspect * h / w - 1) < _SAME_ASPECT for h, w in shapes):
        return
    given = f"{frames.shape[1]}x{frames.shape[2]}"
    raise MediaError(
        f"{path} is {given}, which has neither the shape of the output {size[0]}x{size[1]} nor "
        f"that of the photo; give --size {given} or render it at the output size."
    )
