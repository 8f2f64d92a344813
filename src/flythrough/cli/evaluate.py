"""``flythrough evaluate``: figures of a model on worlds it never saw."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from flythrough.cli.output import emit, note

if TYPE_CHECKING:
    from flythrough.evaluation.ablation import CheckedAblation
    from flythrough.evaluation.measures import ClipResult

app = App(name="evaluate", help="Measure a model on held-out worlds.")


@app.command
def ablation(
    *,
    output: Annotated[
        Path, Parameter(name=["--output", "-o"], help="The folder to fill; resumed.")
    ],
    clips: Annotated[int, Parameter(help="Held-out clips, 1 to 8.")] = 4,
    chunks: Annotated[int, Parameter(help="Chunks of 33 frames a clip.")] = 1,
    rows: Annotated[str | None, Parameter(help="Rows by name, like full,zero-shot.")] = None,
    model: Annotated[str, Parameter(help="'nano', a pulled model, or a model folder.")] = "nano",
    lora: Annotated[str, Parameter(help="The adapter of the rows that use one.")] = "default",
    geometry: Annotated[
        str, Parameter(help="'exact' depth of the photo, or as --geometry of generate.")
    ] = "exact",
    device: Annotated[str, Parameter(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Table of the camera method: each part switched off, references, and controls that must fail.

    Poses of the frames are measured against the path, pixels against the world's exact render.
    Writes results.json, table.md, contact sheets and index.html. Needs OpenCV: pip install
    "flythrough[evaluate]".

    Example: flythrough evaluate ablation -o ablation
    """
    from flythrough.evaluation.ablation import AblationRequest, check_ablation

    names = None if rows is None else tuple(name.strip() for name in rows.split(","))
    request = AblationRequest(
        folder=output,
        clips=clips,
        chunks=chunks,
        rows=names,
        model=model,
        lora=lora,
        geometry=geometry,
        device=device,
    )
    checked = check_ablation(request)
    results, kept = _run(checked)
    from flythrough.evaluation.report import write_report
    from flythrough.evaluation.table import markdown_table

    report = write_report(checked, results)
    if report.passed_controls:
        note(
            f"not told from the path by the pose errors: {', '.join(report.passed_controls)}; do "
            "not trust this table where they matter."
        )
    emit(
        {
            "folder": str(output),
            "made": len(results) - kept,
            "kept": kept,
            "results": str(report.results),
            "page": str(report.page),
            "means": list(report.lines),
        },
        markdown_table(report.lines) + f"{report.page}: {len(results)} videos, {kept} kept",
    )


def _run(checked: CheckedAblation) -> tuple[list[ClipResult], int]:
    """All videos under one progress bar; their figures, and how many were there before."""
    from flythrough.cli.video_progress import video_progress
    from flythrough.evaluation.ablation import run_ablation

    results, kept = [], 0
    with video_progress(checked.videos) as progress:
        for result, old in run_ablation(checked, note, progress):
            results.append(result)
            kept += old
    return results, kept
