"""What every writer of a camera file ends with."""

from __future__ import annotations

from pathlib import Path

from flythrough.disk import replacing
from flythrough.errors import CameraError


def write_whole(path: Path, content: bytes) -> None:
    """Make ``content`` the file ``path``; when anything fails, ``path`` stays as it was.

    Raises:
        CameraError: ``path`` is a folder, or its folder is missing or not writable.
    """
    try:
        with replacing(path) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise CameraError(
            f"The camera file {path} cannot be written ({error.strerror or error}); "
            "choose a file name in a folder that exists and is writable."
        ) from None
