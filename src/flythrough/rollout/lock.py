"""One writer a folder, by a lock that the system frees when the process that holds it ends.

The file ``.lock`` stays behind and means nothing by itself: whether it is held is known to the
system, so a killed process leaves nothing to clear away.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flythrough.errors import InputError, RolloutError
from flythrough.rollout.manifest import MANIFEST

LOCK = ".lock"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Within the block no other process goes on with the rollout in ``folder``.

    Blocks of one thread may be nested. A folder without a rollout, or one that this user may not
    write to, is not locked: nobody here can change it.

    Raises:
        RolloutError: another process (or another thread) holds it.
    """
    if not (folder / MANIFEST).is_file() or not os.access(folder, os.W_OK):
        yield
        return
    busy = RolloutError(
        f"Another process is at work on the rollout {folder}; wait until it ends, or go on in "
        f"a copy made with `flythrough branch {folder} NEW`."
    )
    with claimed(folder, busy):
        yield


@contextmanager
def claimed(folder: Path, busy: InputError) -> Iterator[None]:
    """Within the block no other process claims ``folder``; those of one thread may be nested.

    Raises:
        InputError: ``busy`` where another process (or another thread) holds it, or a lock file
            that cannot be used.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK, timeout=0, is_singleton=True)
    try:
        lock.acquire()
    except Timeout as error:
        raise busy from error
    except OSError as error:
        raise RolloutError(
            f"{folder / LOCK} cannot be locked ({error.strerror or error}); check its permissions."
        ) from error
    try:
        yield
    finally:
        lock.release()
