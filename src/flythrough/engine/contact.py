"""One picture of a whole batch, for people who would rather look than read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from flythrough.media.image import write_picture
from flythrough.media.picture import contact_sheet, strip
from flythrough.media.stills import spread_frames

CONTACT = "contact.png"
_STILLS = 3
_WIDTHS = (480, 320, 256, 192, 128, 96)
"""Of a still in pixels; the widest that keeps the sheet within these sides is taken."""

_SHEET_WIDTH, _SHEET_HEIGHT = 2400, 3000


def write_contact(path: Path, clips: Mapping[str, Path]) -> Path:
    """Write a picture of the first, middle and last frame of every clip with its name.

    Args:
        clips: names and video files, in the order of the sheet; at least one.

    Raises:
        MediaError: a video cannot be read.
        FaultError: the disk failed; an older picture stays as it was.
    """
    width = _still_width(len(clips))
    strips = [strip([_small(f, width) for f in spread_frames(c, _STILLS)]) for c in clips.values()]
    write_picture(path, contact_sheet(strips, _columns(width), list(clips)))
    return path


def _still_width(count: int) -> int:
    for width in _WIDTHS:
        rows = -(-count // _columns(width))
        if rows * width * 0.75 <= _SHEET_HEIGHT:
            return width
    return _WIDTHS[-1]


def _columns(width: int) -> int:
    """Clips a row."""
    return _SHEET_WIDTH // (_STILLS * width)


def _small(frame: np.ndarray, width: int) -> np.ndarray:
    width = min(width, frame.shape[1])
    height = max(1, round(frame.shape[0] * width / frame.shape[1]))
    picture = Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS)
    return np.array(picture)
