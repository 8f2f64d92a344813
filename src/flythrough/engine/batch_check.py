"""A list becomes jobs: every row is checked before the first model is loaded. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flythrough.engine.batch_record import Record, RequestDigests, is_done, read_records
from flythrough.engine.columns import COLUMNS
from flythrough.engine.hardware import ONE_DEVICE, Hardware, check_hardware
from flythrough.engine.manifest import Row, read_manifest
from flythrough.engine.options import (
    check_codec_precision,
    check_compute,
    check_device,
    check_memory,
)
from flythrough.engine.request import GenerateRequest, check
from flythrough.engine.words import CodecPrecision, Compute, MemoryChoice
from flythrough.errors import FlythroughError, InputError

ROLLOUTS = "rollouts"
UNFINISHED = ".unfinished"
_PER_VIDEO = (
    *("image", "video", "camera", "camera_convention", "camera_scale", "warp", "warp_mask"),
    *("prompt", "frames", "size", "seed"),
)
_FILES = ("image", "video", "camera", "warp", "warp_mask", "geometry", "lora", "style_lora")


@dataclass(frozen=True, kw_only=True)
class BatchRequest:
    """What ``flythrough batch`` accepts.

    ``source`` is a .csv or .jsonl file, or rows as mappings; ``given`` holds options for the rows
    that do not state them; ``keep_rollouts`` keeps every chunk under ``folder``/rollouts/ID.
    """

    source: Path | Sequence[Mapping[str, Any]]
    folder: Path
    given: Mapping[str, Any] = field(default_factory=dict)
    device: str = "auto"
    memory: MemoryChoice = "auto"
    compute: Compute = "auto"
    hardware: Hardware = ONE_DEVICE
    codec_precision: CodecPrecision = "auto"
    keep_rollouts: bool = False


@dataclass(frozen=True, eq=False)
class BatchJob:
    """One video to make; ``pixels`` of one of its chunks; ``done`` where it was made before."""

    id: str
    place: str
    request: GenerateRequest
    stated: Mapping[str, Any]
    digest: str
    pixels: int
    done: Record | None
    chunks: int


@dataclass(frozen=True, eq=False)
class CheckedBatch:
    """Jobs in the order of the list, all found to be possible; nothing was written yet."""

    request: BatchRequest
    jobs: tuple[BatchJob, ...]
    notes: tuple[str, ...]

    @property
    def pending(self) -> tuple[BatchJob, ...]:
        """What is to be made, ordered so that each model is loaded once and, among its videos, the
        largest come first (they decide how its weights are placed)."""
        groups: dict[tuple[Any, ...], list[BatchJob]] = {}
        for job in self.jobs:
            if job.done is None:
                groups.setdefault(_group(job.request), []).append(job)
        return tuple(
            job for group in groups.values() for job in sorted(group, key=lambda job: -job.pixels)
        )


def check_batch(request: BatchRequest) -> CheckedBatch:
    """Check every row as ``generate`` checks its options; no model is loaded, nothing is written.

    Raises:
        InputError: the list or the folder cannot be used, or one sentence for every row that
            cannot be made.
    """
    check_device(request.device)
    check_memory(request.memory, request.device)
    check_compute(request.compute, request.device)
    check_hardware(
        request.hardware, request.device, request.memory, request.compute, "helios", renders=True
    )
    check_codec_precision(request.codec_precision, request.device)
    _check_folder(request.folder)
    manifest = read_manifest(request.source, request.given)
    records, digests = read_records(request.folder), RequestDigests()
    jobs, faults = [], list(manifest.faults)
    outputs = {(request.folder / f"{row.id}.mp4").resolve() for row in manifest.rows}
    for row in manifest.rows:
        try:
            jobs.append(_checked(row, request, records, digests, outputs))
        except FlythroughError as error:
            faults.append(f"{row.place} ({row.id}): {error}")
    if faults:
        what = "One fault" if len(faults) == 1 else f"{len(faults)} faults"
        lines = "\n".join(f"  {fault}" for fault in sorted(faults, key=_row_number))
        raise InputError(f"{what} in the list; nothing was made, correct it first:\n{lines}")
    return CheckedBatch(request, tuple(jobs), manifest.notes)


def _checked(
    row: Row,
    batch: BatchRequest,
    records: Mapping[str, Record],
    digests: RequestDigests,
    outputs: set[Path],
) -> BatchJob:
    """One row as a job, after the same check that ``generate`` makes."""
    request = GenerateRequest(
        **row.options,
        device=batch.device,
        memory=batch.memory,
        compute=batch.compute,
        hardware=batch.hardware,
        codec_precision=batch.codec_precision,
    )
    if request.blend_chunks and not batch.keep_rollouts:
        raise InputError(
            f"--blend-chunks {request.blend_chunks} has no effect without --keep-rollouts, since "
            "prompts change when a rollout is continued; add it or drop the column."
        )
    for name in _FILES:
        value = getattr(request, name)
        if value is not None and Path(str(value)).resolve() in outputs:
            raise InputError(
                f"Its {name.replace('_', '-')} {value} is the output of a row and would be "
                "overwritten; write to another folder."
            )
    # The folder need not exist yet, so targets are checked as if they lay where it will be made.
    there = batch.folder if batch.folder.exists() else batch.folder.absolute().parent
    target = there / f".{row.id}{UNFINISHED}" if batch.keep_rollouts else None
    checked = check(replace(request, rollout=target))
    digest = digests.of(request, checked.model)
    record = records.get(row.id)
    done = is_done(record, digest, batch.folder)
    if batch.keep_rollouts and not (batch.folder / ROLLOUTS / row.id).is_dir():
        done = False
    pixels = checked.size[0] * checked.size[1] * checked.window.frames
    found = record if done else None
    chunks = checked.chunks
    return BatchJob(row.id, row.place, request, row.options, digest, pixels, found, chunks)


def _group(request: GenerateRequest) -> tuple[Any, ...]:
    """Equal for requests that one loaded model serves."""
    shaping = (getattr(request, name) for name in COLUMNS if name not in _PER_VIDEO)
    return (*shaping, request.camera is None, request.warp is None)


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder for the videos.")
    there = folder if folder.exists() else folder.absolute().parent
    if not there.is_dir():
        raise InputError(f"The folder {there} of {folder.name} does not exist; create it first.")
    if not os.access(there, os.W_OK):
        raise InputError(f"The folder {there} cannot be written to; choose another place.")


def _row_number(fault: str) -> int:
    digits = fault.removeprefix("row ").split(":")[0].split(" ")[0]
    return int(digits) if digits.isdigit() else 0
