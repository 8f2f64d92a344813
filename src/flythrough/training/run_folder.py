"""A run's folder: what it belongs to, and that one run at a time works in it.

What a run's weights depend on (its identity) lies in ``train.json``; a folder is continued only by
a run of the same. Logs lose the lines of steps that are done again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

from flythrough.disk import read_json, replacing
from flythrough.errors import InputError

IDENTITY_FILE = "train.json"
LOCK_FILE = ".lock"
LOGS = ("log.jsonl", "preview.jsonl")

_BLOCK = 1 << 20


def check_same_run(folder: Path, identity: Mapping[str, Any]) -> bool:
    """Whether ``folder`` holds a run of this identity (False: none yet).

    Raises:
        InputError: it holds another run, or something else.
    """
    file = folder / IDENTITY_FILE
    if not file.is_file():
        return False
    try:
        stored = read_json(file)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{file} cannot be read ({error}); delete the run folder or name another."
        ) from error
    for name, value in identity.items():
        if stored.get(name) != value:
            raise InputError(
                f"The run folder {folder} was started with {name} = {stored.get(name)!r}, not "
                f"{value!r}; give the same settings to continue it, or name another folder."
            )
    return True


def write_identity(folder: Path, identity: Mapping[str, Any]) -> None:
    """Say what ``folder`` belongs to."""
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / IDENTITY_FILE) as partial:
        partial.write_text(json.dumps(identity, indent=1) + "\n", encoding="utf-8")


@contextmanager
def alone(folder: Path, rank: int) -> Iterator[None]:
    """No second run works in ``folder``; the system frees the lock of a killed one. Processes of
    one run count as one: the first of them holds the lock.

    Raises:
        InputError: another run holds it.
    """
    if rank != 0:
        yield
        return
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK_FILE, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(
            f"Another process trains in {folder}; wait until it ends or name another folder."
        ) from error
    try:
        yield
    finally:
        lock.release()


def add_file(total: blake2b, file: Path) -> None:
    """Size and content of a file become part of a fingerprint."""
    total.update(f"{file.stat().st_size};".encode())
    with file.open("rb") as opened:
        while block := opened.read(_BLOCK):
            total.update(block)


def edges_digest(files: Iterable[Path]) -> str:
    """A fingerprint of names, sizes, beginnings and ends: 1 MB each, so that collections too large
    to be read for every start can be told apart."""
    total = blake2b(digest_size=16)
    for file in files:
        size = file.stat().st_size
        total.update(f"{file.name}:{size};".encode())
        with file.open("rb") as opened:
            total.update(opened.read(_BLOCK))
            if size > _BLOCK:
                opened.seek(max(_BLOCK, size - _BLOCK))
                total.update(opened.read(_BLOCK))
    return total.hexdigest()


def read_log(log: Path) -> list[dict[str, Any]]:
    """Lines of a log; a last line cut off by a stop is left out."""
    found = []
    if log.is_file():
        for line in log.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    return found


def cut_log(log: Path, step: int) -> None:
    """Drop lines after ``step``: those steps are done again."""
    kept = [line for line in read_log(log) if line["step"] <= step]
    if log.is_file():
        with replacing(log) as partial:
            partial.write_text("".join(json.dumps(line) + "\n" for line in kept), "utf-8")
