"""A rollout in a folder: safetensors files, and a manifest that is always the last to change.

``rollout.json`` names the files that count, ``start.safetensors`` holds the start, ``chunks/`` one
file a chunk, ``plan.json`` what is still to be made. Every file is written under a temporary name,
flushed and renamed, so a process killed at any instant leaves a folder that loads and has lost at
most the chunk in flight. Leftovers of such a process are ignored by readers and removed by the next
writer. One process may write to a folder at a time (``rollout/lock.py``); any number may read.
Files of starts and chunks are never changed in place, so branches share them by hard links.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from flythrough.disk import is_partial, replacing, writing
from flythrough.errors import RolloutError
from flythrough.rollout.chunk import Chunk
from flythrough.rollout.files import chunk_bytes, chunk_from, start_bytes, start_from
from flythrough.rollout.manifest import (
    CHUNK_FOLDER,
    MANIFEST,
    START_FILE,
    VERSION,
    Entry,
    Manifest,
    chunk_file,
    is_chunk_file,
    read_manifest,
    read_part,
)
from flythrough.rollout.rollout import Rollout, Start

PLAN = "plan.json"
_PLAN_FORMAT = "flythrough-plan"


def create(folder: str | Path, rollout: Rollout, plan: Mapping[str, Any] | None = None) -> None:
    """Store ``rollout`` and, if given, ``plan`` in ``folder``, which is made if needed.

    The manifest is written last: before it, the folder holds no rollout.

    Raises:
        RolloutError: the folder already holds a rollout, or is a file.
        FaultError: the disk failed; the folder holds no rollout then.
    """
    folder = Path(folder)
    _check_new(folder)
    with writing(folder):
        (folder / CHUNK_FOLDER).mkdir(parents=True, exist_ok=True)
        _clean(folder, ())
        start = None if rollout.start is None else _write_start(folder, rollout.start)
        chunks = tuple(_write_chunk(folder, chunk) for chunk in rollout.chunks)
        if plan is not None:
            _write(folder / PLAN, _plan_text(folder, plan).encode())
        _write_manifest(folder, Manifest(rollout.spec, start, chunks))


def append(folder: str | Path, chunk: Chunk) -> None:
    """Add ``chunk``, whose index must be the next one, to the stored rollout.

    Raises:
        RolloutError: no rollout there, another index, or a size that differs.
        FaultError: the disk failed; the stored rollout is as it was.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    _check_next(folder, manifest, chunk)
    with writing(folder):
        (folder / CHUNK_FOLDER).mkdir(exist_ok=True)
        _clean(folder, manifest.chunks)
        entry = _write_chunk(folder, chunk)
        _write_manifest(folder, replace(manifest, chunks=(*manifest.chunks, entry)))


def load(folder: str | Path, keep: int | None = None) -> Rollout:
    """The stored rollout, or its first ``keep`` chunks; every file of it is checked against its
    checksum and digest.

    Raises:
        RolloutError: which file is missing, damaged or foreign, and what to do; or ``keep`` is not
            in 0 .. number of chunks.
    """
    folder = Path(folder)
    return _loaded(folder, _kept(folder, keep))


def _kept(folder: Path, keep: int | None) -> Manifest:
    """The manifest with its first ``keep`` chunks (None: all)."""
    manifest = read_manifest(folder)
    made = len(manifest.chunks)
    if keep is not None and not 0 <= keep <= made:
        raise RolloutError(
            f"Cannot keep {keep} chunks of {folder}, which has {made}; give 0 to {made}."
        )
    return replace(manifest, chunks=manifest.chunks[:keep])


def _loaded(folder: Path, manifest: Manifest) -> Rollout:
    start = None
    if manifest.start is not None:
        remedy = "restore it from a copy or start a new rollout"
        start = start_from(_verified(folder, manifest.start, remedy), str(folder / START_FILE))
        _check_digest(folder, manifest.start, start.digest(), remedy)
    chunks = tuple(_load_chunk(folder, manifest, index) for index in range(len(manifest.chunks)))
    try:
        return Rollout(manifest.spec, start, chunks)
    except RolloutError as error:
        raise RolloutError(
            f"The files of {folder} do not belong together; restore it from a copy or start a new "
            "rollout."
        ) from error


def branch(
    parent: str | Path,
    folder: str | Path,
    keep: int | None = None,
    plan: Mapping[str, Any] | None = None,
) -> Rollout:
    """Store the first ``keep`` chunks (None: all) of ``parent`` in ``folder``, and give them back.

    The parent is read whole and checked first, and stays as it is. Files are hard links where the
    file system allows them, else copies.

    Raises:
        RolloutError: ``parent`` holds no sound rollout of that many chunks, or ``folder`` is a file
            or holds one already.
        FaultError: the disk failed; the folder holds no rollout then.
    """
    parent, folder = Path(parent), Path(folder)
    kept = _kept(parent, keep)
    rollout = _loaded(parent, kept)
    _check_new(folder)
    with writing(folder):
        (folder / CHUNK_FOLDER).mkdir(parents=True, exist_ok=True)
        _clean(folder, ())
        for entry in (*kept.chunks, *(() if kept.start is None else (kept.start,))):
            _link(parent / entry.file, folder / entry.file)
        if plan is not None:
            _write(folder / PLAN, _plan_text(folder, plan).encode())
        _write_manifest(folder, kept)
    return rollout


def check_current(folder: str | Path, rollout: Rollout) -> None:
    """Refuse to go on from ``rollout`` where ``folder`` holds other chunks by now.

    Raises:
        RolloutError: no rollout there, or another one.
    """
    stored = tuple(entry.digest for entry in read_manifest(folder).chunks)
    if stored != tuple(chunk.digest() for chunk in rollout.chunks):
        raise RolloutError(
            f"The rollout {folder} has changed since it was read; run the command again."
        )


def truncate(folder: str | Path, keep: int) -> None:
    """Keep only the first ``keep`` chunks of the stored rollout, even if later files are damaged.

    Raises:
        RolloutError: no rollout there, or ``keep`` is not in 0 .. number of chunks.
        FaultError: the disk failed.
    """
    folder = Path(folder)
    kept = _kept(folder, keep)
    with writing(folder):
        _write_manifest(folder, kept)
        _clean(folder, kept.chunks)


def write_plan(folder: str | Path, plan: Mapping[str, Any]) -> None:
    """Store what is still to be made, as a JSON object, beside a stored rollout.

    Raises:
        RolloutError: no rollout there, or the plan cannot be written as JSON.
        FaultError: the disk failed; the old plan is as it was.
    """
    folder = Path(folder)
    read_manifest(folder)
    text = _plan_text(folder, plan)
    with writing(folder):
        _write(folder / PLAN, text.encode())


def _plan_text(folder: Path, plan: Mapping[str, Any]) -> str:
    try:
        data = {"format": _PLAN_FORMAT, "version": VERSION, "plan": dict(plan)}
        return json.dumps(data, indent=1, sort_keys=True, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise RolloutError(
            f"The plan for {folder} cannot be written as JSON ({error}); use plain values."
        ) from error


def read_plan(folder: str | Path) -> dict[str, Any]:
    """The object that :func:`write_plan` stored.

    Raises:
        RolloutError: none there, or the file is damaged.
    """
    path = Path(folder) / PLAN
    plan = read_part(path, _PLAN_FORMAT, "plan").get("plan")
    if not isinstance(plan, dict):
        raise RolloutError(f"{path} holds no plan; state again what to make.")
    return plan


def _check_new(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise RolloutError(f"{folder} is a file; name a new folder for the rollout.")
    if (folder / MANIFEST).exists():
        raise RolloutError(f"{folder} already holds a rollout; continue it or name another folder.")


def _check_next(folder: Path, manifest: Manifest, chunk: Chunk) -> None:
    count = len(manifest.chunks)
    if chunk.request.index != count:
        raise RolloutError(
            f"Chunk {chunk.request.index} cannot follow the {count} chunks stored in {folder}; "
            f"append chunk {count} next."
        )
    if chunk.request.window != manifest.spec.window:
        raise RolloutError(
            f"Chunk {count} has another length or overlap than the rollout in {folder}; make it "
            "for that rollout."
        )
    if chunk.size != manifest.spec.size:
        raise RolloutError(
            f"Chunk {count} is {chunk.size[0]}x{chunk.size[1]} but the rollout in {folder} is "
            f"{manifest.spec.height}x{manifest.spec.width}; decode it at that size."
        )
    if count and (first := _load_chunk(folder, manifest, 0)).latents.shape != chunk.latents.shape:
        raise RolloutError(
            f"The latents of chunk {count} are {list(chunk.latents.shape)} but those stored in "
            f"{folder} are {list(first.latents.shape)}; use one model for all chunks."
        )


def _load_chunk(folder: Path, manifest: Manifest, index: int) -> Chunk:
    entry, last = manifest.chunks[index], len(manifest.chunks)
    remedy = f"restore it from a copy or drop it with --chunks {last - index} of rewind"
    chunk = chunk_from(_verified(folder, entry, remedy), str(folder / entry.file))
    _check_digest(folder, entry, chunk.digest(), remedy)
    return chunk


def _verified(folder: Path, entry: Entry, remedy: str) -> bytes:
    path = folder / entry.file
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise RolloutError(f"{path} is missing; {remedy}.") from error
    except OSError as error:
        raise RolloutError(f"{path} cannot be opened ({error.strerror}); {remedy}.") from error
    if _checksum(data) != entry.checksum:
        raise RolloutError(f"{path} is damaged (its checksum differs); {remedy}.")
    return data


def _check_digest(folder: Path, entry: Entry, digest: str, remedy: str) -> None:
    if digest != entry.digest:
        raise RolloutError(f"{folder / entry.file} is not what {MANIFEST} says; {remedy}.")


def _write_start(folder: Path, start: Start) -> Entry:
    data = start_bytes(start)
    _write(folder / START_FILE, data)
    return Entry(START_FILE, start.digest(), _checksum(data))


def _write_chunk(folder: Path, chunk: Chunk) -> Entry:
    digest, data = chunk.digest(), chunk_bytes(chunk)
    name = chunk_file(chunk.request.index, digest)
    _write(folder / name, data)
    return Entry(name, digest, _checksum(data))


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    _write(folder / MANIFEST, manifest.to_json().encode())


def _write(path: Path, data: bytes) -> None:
    with replacing(path) as partial:
        partial.write_bytes(data)


def _link(source: Path, target: Path) -> None:
    with replacing(target) as partial:
        try:
            os.link(source, partial)
        except FileNotFoundError:
            raise
        except OSError:  # another disk, or a file system without links
            shutil.copyfile(source, partial)


def _checksum(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()


def _clean(folder: Path, chunks: tuple[Entry, ...]) -> None:
    """Remove temporary files and chunk files that no manifest names; touch nothing else."""
    named = {folder / entry.file for entry in chunks}
    for place in (folder, folder / CHUNK_FOLDER):
        for path in place.iterdir() if place.is_dir() else ():
            if is_partial(path) or (is_chunk_file(path) and path not in named):
                path.unlink(missing_ok=True)
