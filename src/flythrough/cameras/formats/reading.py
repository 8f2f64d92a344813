"""Checks that every reader of a camera file starts with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flythrough.errors import CameraError


def existing_file(path: Path) -> Path:
    """``path`` after checking that it names a file, else a CameraError."""
    try:
        folder, exists = path.is_dir(), path.exists()
    except OSError:  # a name that the file system rejects, such as one that is too long
        folder, exists = False, False
    if folder:
        raise CameraError(f"{path} is a folder, not a camera file; name the file inside it.")
    if not exists:
        raise CameraError(
            f"There is no camera file {path}; check its name, or write a path like 'forward 0.6'."
        )
    return path


def json_value(path: Path) -> Any:
    """What a JSON file holds, else a CameraError."""
    try:
        return json.loads(existing_file(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, CameraError):
            raise
        raise CameraError(
            f"The camera file {path} cannot be read as JSON ({error}); write it again."
        ) from None
