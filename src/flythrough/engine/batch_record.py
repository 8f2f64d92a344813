"""What a batch folder remembers: one line of JSON for every video that is finished.

``results.jsonl`` only grows. A line is written, and flushed to the disk, after its video stands
under its name; of several lines for one id the last counts. A kill can leave the last line torn:
readers pass over it and the next writer cuts it off.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

from flythrough.cameras.formats import files_of
from flythrough.cameras.source import camera_file
from flythrough.cameras.trajectory import Trajectory
from flythrough.disk import writing
from flythrough.engine.columns import COLUMNS
from flythrough.engine.files import named_files
from flythrough.engine.request import GenerateRequest
from flythrough.errors import InputError
from flythrough.geometry.estimators.words import split_axes
from flythrough.models.catalog import ModelFolder
from flythrough.rollout.canonical import canonical_json, digest_of
from flythrough.rollout.lock import claimed

RESULTS = "results.jsonl"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Record:
    """One finished video.

    Attributes:
        id: its name in the list.
        output: file name inside the batch folder; ``bytes`` its size.
        frames, chunks: what was made; ``seconds`` of work it took.
        digest: of the rollout, as in the video's metadata.
        request_digest: of what was asked for, with the content of all files named.
        request: the options that were stated.
    """

    id: str
    output: str
    bytes: int
    frames: int
    chunks: int
    seconds: float
    digest: str
    request_digest: str
    request: dict[str, Any]


def read_records(folder: Path) -> dict[str, Record]:
    """The newest record of every id in ``folder``; none where nothing was recorded.

    Raises:
        InputError: the file there is not one of ours.
    """
    path = folder / RESULTS
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror}); check it.") from None
    names = {field.name for field in fields(Record)}
    records = {}
    for line in data.split(b"\n")[:-1]:  # what follows the last line break is torn, or nothing
        try:
            values = json.loads(line)
            record = Record(**{name: values[name] for name in names})
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"{path} was not written by `flythrough batch`; name another folder."
            ) from None
        records[record.id] = record
    return records


@contextmanager
def recording(folder: Path) -> Iterator[Callable[[Record], None]]:
    """Yields a function that appends a record; one process at a time may have it.

    Raises:
        InputError: another process fills ``folder``.
        FaultError: the disk failed.
    """
    busy = InputError(f"Another process is filling {folder}; wait for it or name another folder.")
    with ExitStack() as open_files:
        open_files.enter_context(claimed(folder, busy))
        with writing(folder, "then run the batch again"):
            file = open_files.enter_context((folder / RESULTS).open("a+b"))
            _cut_torn_line(file)

        def append(record: Record) -> None:
            with writing(folder, "then run the batch again"):
                file.write(json.dumps(asdict(record), ensure_ascii=False).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())

        yield append


def is_done(record: Record | None, digest: str, folder: Path) -> bool:
    """Whether the recorded video stands in ``folder`` and was made from the same request."""
    if record is None or record.request_digest != digest:
        return False
    output = folder / record.output
    return output.is_file() and output.stat().st_size == record.bytes


class RequestDigests:
    """Digests of requests by the content of what they name; models are read once each."""

    def __init__(self) -> None:
        self._models: dict[Path, str] = {}

    def of(self, request: GenerateRequest, model: ModelFolder) -> str:
        """blake2b-128 in hexadecimal. Where files lie, and on which device the video is made, does
        not count; what they hold and every other option does."""
        if model.path not in self._models:
            self._models[model.path] = model.digest()
        named = named_files(request.geometry, request.lora, _text(request.style_lora))
        values: dict[str, Any] = {"model": self._models[model.path], **named}
        if "geometry_digest" in named:
            values["geometry_axes"] = split_axes(request.geometry)[1]
        for name in COLUMNS:
            value = getattr(request, name)
            if name == "model" or f"{name}_digest" in named:
                continue
            values[name] = _content(name, value)
        return digest_of("request", canonical_json(values))


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _content(name: str, value: Any) -> Any:
    if isinstance(value, Trajectory):
        return value.to_dict()
    file = camera_file(value) if name == "camera" and value is not None else value
    if not isinstance(file, Path):
        return value
    total = blake2b(digest_size=16)
    for one in files_of(file) if name == "camera" else [file]:
        with one.open("rb") as opened:
            while block := opened.read(_BLOCK):
                total.update(block)
    return {"file": total.hexdigest()}


def _cut_torn_line(file: IO[bytes]) -> None:
    file.seek(0)
    data = file.read()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        file.truncate(whole)
