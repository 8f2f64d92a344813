"""Many videos from one list: a model is loaded once for its rows, and what was finished before is
not made again. Importing this loads no torch."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from flythrough.disk import is_partial
from flythrough.engine.announce import announce
from flythrough.engine.batch_check import (
    ROLLOUTS,
    UNFINISHED,
    BatchJob,
    BatchRequest,
    CheckedBatch,
    check_batch,
)
from flythrough.engine.batch_record import Record, recording
from flythrough.engine.contact import CONTACT, write_contact
from flythrough.engine.hardware import Hardware
from flythrough.engine.request import check
from flythrough.engine.sessions import Sessions
from flythrough.engine.words import CodecPrecision, Compute, MemoryChoice
from flythrough.errors import InputError

Notify = Callable[[str], None]
BatchProgress = Callable[["BatchJob", int, str, float], None]
"""Called with the job, the chunk index, a label and the finished share of that chunk."""


@dataclass(frozen=True)
class BatchResult:
    """How a job ended: ``made`` now, ``kept`` from an earlier run, or ``failed`` with ``error``.

    ``output`` is the video's path; ``seconds`` is the work it took when it was made.
    """

    id: str
    status: Literal["made", "kept", "failed"]
    output: Path | None = None
    frames: int = 0
    chunks: int = 0
    seconds: float = 0.0
    digest: str | None = None
    error: str | None = None


def run_jobs(
    checked: CheckedBatch, notify: Notify, progress: BatchProgress
) -> Iterator[BatchResult]:
    """Make what is missing; yields a result for every job, those made before first.

    A row whose model or files turn out not to work is reported and the next one is made. Stopping
    at any time loses the video in flight, nothing else.

    Raises:
        FaultError: the disk failed or is full.
    """
    request, pending = checked.request, checked.pending
    for job in checked.jobs:
        if job.done is not None:
            yield _result(job, job.done, "kept", request.folder)
    if not pending:
        return
    request.folder.mkdir(exist_ok=True)
    with recording(request.folder) as append:
        _remove_leftovers(request.folder)
        speaker = _Speaker(notify)
        sessions = Sessions(
            request.device,
            request.memory,
            speaker,
            request.compute,
            request.hardware,
            request.codec_precision,
        )
        for job in pending:
            speaker.name = job.id
            try:
                record = _made(job, checked, sessions, speaker, progress)
            except InputError as error:
                yield BatchResult(job.id, "failed", error=str(error))
                continue
            append(record)
            yield _result(job, record, "made", request.folder)


def write_contact_sheet(checked: CheckedBatch, results: Sequence[BatchResult]) -> Path | None:
    """``contact.png`` with the first, middle and last frame of every finished video, in the order
    of the list; None where there is none.

    Raises:
        MediaError: a video was removed or damaged since.
        FaultError: the disk failed.
    """
    finished = {result.id: result.output for result in results if result.output is not None}
    clips = {job.id: finished[job.id] for job in checked.jobs if job.id in finished}
    return write_contact(checked.request.folder / CONTACT, clips) if clips else None


def run_batch(
    source: str | Path | Sequence[Mapping[str, Any]],
    folder: str | Path,
    *,
    device: str = "auto",
    memory: MemoryChoice = "auto",
    compute: Compute = "auto",
    gpus: int = 1,
    graphs: bool | None = None,
    codec_precision: CodecPrecision = "auto",
    keep_rollouts: bool = False,
    callback: BatchProgress | None = None,
    **options: Any,
) -> list[BatchResult]:
    """Make every video of a list into ``folder``, as ``flythrough batch`` does.

    Args:
        source: a .csv or .jsonl file, or mappings from option names to values (or lists of them).
        device, memory, compute, gpus, graphs, codec_precision: as in :func:`flythrough.load`.
        keep_rollouts: keep every chunk under ``folder``/rollouts/ID.
        callback: called with the job, chunk index, label and finished share of the chunk.
        options: for rows that do not state them, such as ``model`` and ``frames``.

    Returns:
        One result for each video, in the order of the list; look at ``status`` for failures.

    Raises:
        InputError: one sentence for every row that cannot be made, before a model is loaded.
    """
    request = BatchRequest(
        source=Path(source) if isinstance(source, str) else source,
        folder=Path(folder),
        given=options,
        device=device,
        memory=memory,
        compute=compute,
        hardware=Hardware(gpus, graphs=graphs),
        codec_precision=codec_precision,
        keep_rollouts=keep_rollouts,
    )
    checked = check_batch(request)
    for text in checked.notes:
        announce(text)
    results = {result.id: result for result in run_jobs(checked, announce, callback or _ignored)}
    write_contact_sheet(checked, tuple(results.values()))
    return [results[job.id] for job in checked.jobs]


class _Speaker:
    """Puts the id of the video at work before each note."""

    def __init__(self, notify: Notify) -> None:
        self.notify, self.name = notify, ""

    def __call__(self, text: str) -> None:
        self.notify(f"{self.name}: {text}")


def _made(
    job: BatchJob,
    checked: CheckedBatch,
    sessions: Sessions,
    notify: Notify,
    progress: BatchProgress,
) -> Record:
    """Make one video; on any failure nothing of it is left."""
    from flythrough.engine.run import advance, start_job, write_result

    batch = checked.request
    output = batch.folder / f"{job.id}.mp4"
    kept = batch.folder / ROLLOUTS / job.id if batch.keep_rollouts else None
    under_way = None if kept is None else kept.with_name(f".{job.id}{UNFINISHED}")
    try:
        if under_way is not None:
            under_way.parent.mkdir(exist_ok=True)
        again = check(replace(job.request, output=output, rollout=under_way))
        # A kept rollout names no video, so that continuing it never replaces the batch's.
        again = replace(again, request=replace(again.request, output=None))
        run = start_job(again, notify, sessions)
        if run.session.memory is not None:
            run.session.memory.say_again()
        for _ in advance(run, lambda index, label, share: progress(job, index, label, share)):
            pass
        frames = write_result(run.rollout, run.plan, output)
        if kept is not None and under_way is not None:
            _replace_folder(under_way, kept)
    except BaseException:
        if under_way is not None:
            shutil.rmtree(under_way, ignore_errors=True)
        raise
    return Record(
        id=job.id,
        output=output.name,
        bytes=output.stat().st_size,
        frames=frames,
        chunks=len(run.rollout.chunks),
        seconds=round(sum(sum(chunk.timings.values()) for chunk in run.rollout.chunks), 2),
        digest=run.rollout.digest(),
        request_digest=job.digest,
        request={name: _plain(value) for name, value in job.stated.items()},
    )


def _replace_folder(new: Path, place: Path) -> None:
    if place.exists():
        shutil.rmtree(place)
    new.rename(place)


def _remove_leftovers(folder: Path) -> None:
    """What a killed run left half-written; nobody else writes here now."""
    for path in folder.iterdir():
        if is_partial(path):
            path.unlink(missing_ok=True)
    for path in (folder / ROLLOUTS).glob(f".*{UNFINISHED}"):
        shutil.rmtree(path, ignore_errors=True)


def _result(
    job: BatchJob, record: Record, status: Literal["made", "kept"], folder: Path
) -> BatchResult:
    return BatchResult(
        job.id,
        status,
        folder / record.output,
        record.frames,
        record.chunks,
        record.seconds,
        record.digest,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _ignored(job: BatchJob, index: int, label: str, share: float) -> None:
    del job, index, label, share
