"""Checks on paths and pixel arrays that photos, videos and pictures share."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flythrough.errors import MediaError

IN_MEMORY = "in memory"
"""Stands in messages for the path of a picture or video that has none."""


def check_input_file(path: Path, kind: str) -> None:
    """Refuse a path that is missing, a folder or empty; ``kind`` is "photo" or "video".

    Raises:
        MediaError: naming the path and what is wrong with it.
    """
    try:
        if not path.exists():
            raise MediaError(f"The {kind} {path} does not exist; check the path.")
        if path.is_dir():
            raise MediaError(f"The {kind} {path} is a folder; name one {kind} file in it.")
        if path.stat().st_size == 0:
            raise MediaError(f"The {kind} {path} is an empty file; copy it again from its source.")
    except (OSError, ValueError) as error:
        if isinstance(error, MediaError):
            raise
        raise MediaError(
            f"The {kind} {str(path)[:120]!r} cannot be looked up ({reason(error)}); check the path."
        ) from error


def check_picture(array: np.ndarray, name: str) -> None:
    """Refuse anything but uint8 [H,W,3] with H, W >= 1.

    Raises:
        MediaError: naming the shape and dtype that came.
    """
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise MediaError(
            f"{name} is {array.dtype} {list(array.shape)} but must be uint8 [height, width, 3]; "
            "convert it first."
        )


def reason(error: BaseException) -> str:
    """The cause an operating system or library error states, on one line and without full stop."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split()).rstrip(".")
