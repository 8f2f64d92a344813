"""``flythrough batch``: every video of a list, each model loaded once, finished ones kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flythrough.cli.compute import CodecType, Compiled, Fast, PrecisionOption, chosen_compute
from flythrough.cli.hardware import Gpus, Graphs
from flythrough.cli.output import emit, note
from flythrough.engine.words import MemoryChoice, parse_size, parse_steps

if TYPE_CHECKING:
    from flythrough.engine.batch import BatchResult
    from flythrough.engine.batch_check import CheckedBatch


def batch(  # noqa: PLR0913 - the command-line contract
    manifest: Annotated[
        Path,
        Parameter(
            help="A .csv or .jsonl list with one row a video. Columns are the options of "
            "generate (image, camera, prompt, seed, ...) and id; a|b makes both."
        ),
    ],
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="The folder to fill.")],
    model: Annotated[str | None, Parameter(help="Model of rows that state none.")] = None,
    frames: Annotated[int | None, Parameter(help="Frames of rows that state none.")] = None,
    size: Annotated[str | None, Parameter(help="HEIGHTxWIDTH of rows that state none.")] = None,
    seed: Annotated[int | None, Parameter(help="Seed of rows that state none.")] = None,
    steps: Annotated[str | None, Parameter(help="Steps per stage of rows that state none.")] = None,
    keep_rollouts: Annotated[
        bool, Parameter(negative="", help="Keep every chunk in FOLDER/rollouts/ID.")
    ] = False,
    device: Annotated[str, Parameter(help="auto, cpu, cuda or cuda:N.")] = "auto",
    memory: Annotated[
        MemoryChoice,
        Parameter(help="Where weights lie; see `flythrough doctor --model`."),
    ] = "auto",
    fast: Fast = None,
    compiled: Compiled = False,
    precision: PrecisionOption = "full",
    gpus: Gpus = 1,
    graphs: Graphs = None,
    codec_precision: CodecType = "auto",
) -> None:
    """Make every video of MANIFEST, a .csv or .jsonl list with one row a video.

    Columns are the options of `generate` (image, camera, prompt, seed, ...) and `id`. Several
    values of image, camera, prompt or seed (a JSON array, or a|b in CSV) make all combinations.
    Run it again to go on where it stopped.

    Example: flythrough batch shots.csv -o shots
    """
    from flythrough.engine.batch import write_contact_sheet
    from flythrough.engine.batch_check import BatchRequest, check_batch
    from flythrough.engine.hardware import Hardware
    from flythrough.errors import FaultError

    given = {
        "model": model,
        "frames": frames,
        "size": parse_size(size),
        "seed": seed,
        "steps": parse_steps(steps),
    }
    request = BatchRequest(
        source=manifest,
        folder=output,
        given=given,
        device=device,
        memory=memory,
        compute=chosen_compute(fast, compiled, precision),
        hardware=Hardware(gpus, graphs=graphs),
        codec_precision=codec_precision,
        keep_rollouts=keep_rollouts,
    )
    checked = check_batch(request)
    for text in checked.notes:
        note(text)
    results = _run(checked)
    failed = [result for result in results if result.status == "failed"]
    sheet = write_contact_sheet(checked, results)
    made = sum(result.status == "made" for result in results)
    kept = len(results) - made - len(failed)
    emit(
        {
            "folder": str(output),
            "made": made,
            "kept": kept,
            "failed": len(failed),
            "contact": None if sheet is None else str(sheet),
        },
        f"{output}: {made} made, {kept} kept, {len(failed)} failed"
        + ("" if sheet is None else f"; see {sheet}"),
    )
    if failed:
        raise FaultError(
            f"{len(failed)} of {len(results)} videos could not be made (see above); correct their "
            "rows and run the batch again."
        )


def _run(checked: CheckedBatch) -> list[BatchResult]:
    """All jobs under one progress bar; each result is printed when it is there."""
    from flythrough.cli.batch_progress import batch_progress
    from flythrough.engine.batch import run_jobs

    results = []
    with batch_progress(checked.pending) as (progress, finished):
        for result in run_jobs(checked, note, progress):
            _show(result)
            if result.status != "kept":
                finished()
            results.append(result)
    return results


def _show(result: BatchResult) -> None:
    data = {
        "id": result.id,
        "status": result.status,
        "output": None if result.output is None else str(result.output),
        "frames": result.frames,
        "chunks": result.chunks,
        "seconds": result.seconds,
        "digest": result.digest,
        "error": result.error,
    }
    texts: dict[str, Callable[[], str]] = {
        "made": lambda: f"{result.output}: {result.frames} frames, {result.seconds:.1f} s",
        "kept": lambda: f"{result.output}: made before",
        "failed": lambda: f"{result.id}: failed: {result.error}",
    }
    emit(data, texts[result.status]())
