"""Camera files appear whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from flythrough.errors import CameraError


def write_whole(path: Path, content: bytes) -> None:
    """Write ``content`` beside ``path``, flush it to the disk, then rename it to ``path``.

    When anything fails, ``path`` stays as it was and the temporary file is removed.

    Raises:
        CameraError: ``path`` is a folder, or its folder is missing or not writable.
    """
    partial = path.with_name(f".{secrets.token_hex(8)}.partial{path.suffix}")
    try:
        try:
            with partial.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CameraError(
            f"The camera file {path} cannot be written ({error.strerror or error}); "
            "choose a file name in a folder that exists and is writable."
        ) from None
