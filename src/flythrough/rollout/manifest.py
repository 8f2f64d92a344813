"""``rollout.json``: the specification and which files belong to a stored rollout."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flythrough.disk import read_json
from flythrough.errors import RolloutError
from flythrough.rollout.spec import RolloutSpec

MANIFEST = "rollout.json"
START_FILE = "start.safetensors"
CHUNK_FOLDER = "chunks"
FORMAT = "flythrough-rollout"
VERSION = 1

_CHUNK_NAME = re.compile(r"^(\d{6,})-([0-9a-f]{32})\.safetensors$")


@dataclass(frozen=True)
class Entry:
    """One file: its path in the folder, the digest of the value and the checksum of its bytes."""

    file: str
    digest: str
    checksum: str


@dataclass(frozen=True)
class Manifest:
    """What ``rollout.json`` says; ``start`` is None for a rollout that only a prompt started."""

    spec: RolloutSpec
    start: Entry | None
    chunks: tuple[Entry, ...]

    def to_json(self) -> str:
        """The text of the file."""
        data = {
            "format": FORMAT,
            "version": VERSION,
            "spec": self.spec.to_dict(),
            "start": None if self.start is None else vars(self.start),
            "chunks": [vars(entry) for entry in self.chunks],
        }
        return json.dumps(data, indent=1, sort_keys=True, allow_nan=False) + "\n"


def chunk_file(index: int, digest: str) -> str:
    """The path of a chunk's file in the folder of its rollout."""
    return f"{CHUNK_FOLDER}/{index:06d}-{digest}.safetensors"


def is_chunk_file(path: Path) -> bool:
    """Whether ``path`` has the form of :func:`chunk_file`."""
    return path.parent.name == CHUNK_FOLDER and _CHUNK_NAME.match(path.name) is not None


def read_manifest(folder: str | Path) -> Manifest:
    """Read and check ``rollout.json`` without opening the files it names.

    Raises:
        RolloutError: not a folder, no rollout in it, or the file is damaged or of another version.
    """
    path = Path(folder) / MANIFEST
    data = read_part(path, FORMAT, "rollout")
    try:
        spec = RolloutSpec.from_dict(data["spec"])
        start = None if data["start"] is None else _entry(data["start"], START_FILE)
        chunks = tuple(_chunk_entry(place, item) for place, item in enumerate(data["chunks"]))
    except RolloutError as error:
        raise RolloutError(f"{path} cannot be used: {_lowered(str(error))}") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise RolloutError(
            f"{path} lacks a part that every rollout has; restore it from a copy or start a new "
            "rollout."
        ) from error
    return Manifest(spec, start, chunks)


def read_part(path: Path, form: str, kind: str) -> Mapping[str, Any]:
    """The JSON object in ``path``, whose ``format`` and ``version`` must be ours.

    Raises:
        RolloutError: which file, what is wrong with it, what to do.
    """
    if not path.parent.is_dir():
        raise RolloutError(
            f"{path.parent} is not a folder that holds a rollout; name one made with --rollout."
        )
    try:
        data: Mapping[str, Any] = read_json(path)
    except FileNotFoundError as error:
        raise RolloutError(
            f"{path.parent} holds no {kind} ({path.name} is missing); name a folder made with "
            "--rollout."
        ) from error
    except OSError as error:
        raise RolloutError(
            f"{path} cannot be opened ({error.strerror}); check its permissions."
        ) from error
    except ValueError as error:
        raise RolloutError(
            f"{path} is not valid JSON; restore it from a copy or start a new rollout."
        ) from error
    except TypeError:
        data = {}  # JSON, but not ours: refused below like any other foreign file
    if data.get("format") != form:
        raise RolloutError(
            f"{path} was not written by Flythrough; name a folder made with --rollout."
        )
    if data.get("version") != VERSION:
        raise RolloutError(
            f"{path} has version {data.get('version')!r} but this Flythrough reads version "
            f"{VERSION}; use the Flythrough that wrote it."
        )
    return data


def _chunk_entry(place: int, item: Mapping[str, Any]) -> Entry:
    return _entry(item, chunk_file(place, str(item["digest"])))


def _entry(item: Mapping[str, Any], file: str) -> Entry:
    """``item`` as an entry; its name must be ``file``, so that no path leads out of the folder."""
    entry = Entry(str(item["file"]), str(item["digest"]), str(item["checksum"]))
    named = entry.file == START_FILE or is_chunk_file(Path(entry.file))
    if entry.file != file or not named:
        raise RolloutError(
            f"It names the file {entry.file!r} where {file!r} belongs; restore it from a copy or "
            "start a new rollout."
        )
    return entry


def _lowered(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]
