"""Files that appear whole or not at all (written beside the target, synced, renamed), and JSON."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flythrough.errors import FaultError

UNREADABLE_ARRAYS = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    TypeError,
    SyntaxError,
    RuntimeError,
    MemoryError,
    OverflowError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
"""What reading a broken ``.npy`` or ``.npz`` file raises, by where it is broken."""

_PARTIAL = re.compile(r"^\.[0-9a-f]{16}\.partial(\.[A-Za-z0-9]+)?$")


def partial_name(target: Path) -> Path:
    """A fresh hidden name beside ``target`` with the same suffix (writers choose by suffix).

    The stem is left out, so that a target with the longest name a file system allows still works.
    """
    return target.with_name(f".{secrets.token_hex(8)}.partial{target.suffix}")


def is_partial(path: Path) -> bool:
    """Whether ``path`` has the form that :func:`partial_name` gives."""
    return _PARTIAL.match(path.name) is not None


def put_in_place(partial: Path, target: Path) -> None:
    """Flush ``partial`` to the disk and rename it to ``target``, replacing what was there."""
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    partial.replace(target)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` survive a power cut (only POSIX can open a folder)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary path; when the block succeeds its file becomes ``target``.

    When the block or the rename fails the temporary file is removed and ``target`` stays as it was.
    A killed process leaves the temporary file, recognisable by :func:`is_partial`.
    """
    partial = partial_name(target)
    try:
        yield partial
        put_in_place(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder beside ``target``; when the block succeeds it becomes ``target``, which is
    absent or an empty folder.

    When the block or the rename fails the folder is removed with all that was written into it. A
    killed process leaves it, recognisable by :func:`is_partial`.
    """
    partial = partial_name(target)
    partial.mkdir()
    try:
        yield partial
        for path in sorted(partial.rglob("*")):
            if path.is_dir():
                sync_folder(path)
            else:
                with path.open("rb+") as file:
                    os.fsync(file.fileno())
        sync_folder(partial)
        if target.is_dir():
            target.rmdir()  # not every system renames onto an empty folder
        partial.rename(target)
        sync_folder(target.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@contextmanager
def writing(folder: Path, remedy: str = "then try again") -> Iterator[None]:
    """Turn what the system says about a failed write below ``folder`` into a FaultError."""
    try:
        yield
    except OSError as error:
        raise FaultError(
            f"Writing to {folder} failed ({error.strerror or error}); check its permissions and "
            f"the free space, {remedy}."
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a UTF-8 file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not JSON.
        TypeError: it holds something else than an object.
    """
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise TypeError(f"{path} holds {type(value).__name__}, not an object")
    return value


def array_fault(path: Path, error: BaseException) -> str:
    """Why a ``.npy`` or ``.npz`` file could not be read, as part of a sentence."""
    if isinstance(error, OSError) and error.errno is not None:
        if error.errno in (errno.EACCES, errno.EPERM):
            return "it may not be read"
        return os.strerror(error.errno).lower()
    if "pickle" in str(error) or "Object arrays" in str(error):
        return "it holds pickled objects, or is damaged"
    if path.suffix.lower() == ".npz" and not zipfile.is_zipfile(path):
        return "it is no npz archive, or was cut off"
    return "it is damaged"
