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
_WIDEST = 256
"""Pixels of a still; narrower where many clips share the sheet."""

_SHEET_WIDTH, _SHEET_HEIGHT = 2400, 12_000


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
    across = max(1, min(len(strips), _columns(len(strips), width)))
    write_picture(path, contact_sheet(strips, across, list(clips)))
    return path


def _still_width(count: int) -> int:
    """The widest stills with which ``count`` clips stay within a sheet of sensible height."""
    for width in (_WIDEST, 192, 128, 96):
        rows = -(-count // _columns(count, width))
        if rows * width * 0.75 <= _SHEET_HEIGHT:
            return width
    return 64


def _columns(count: int, width: int) -> int:
    fitting = max(1, _SHEET_WIDTH // (_STILLS * width))
    return 1 if count <= 4 else fitting


def _small(frame: np.ndarray, width: int) -> np.ndarray:
    height = max(1, round(frame.shape[0] * width / frame.shape[1]))
    picture = Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS)
    return np.array(picture)
