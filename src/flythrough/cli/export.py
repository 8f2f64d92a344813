"""``flythrough export``: a stored rollout for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from flythrough.cli.output import emit, note
from flythrough.cli.progress import stage_progress


def export(
    folder: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="A new folder.")],
    formats: Annotated[
        str | None,
        Parameter(
            help="With commas: cameras, points, glb, colmap, colmap-text, blender, gaussians "
            "(default: cameras,points,colmap,blender)."
        ),
    ] = None,
    device: Annotated[str, Parameter(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Write cameras, points, a COLMAP model, a Blender script or Gaussians of a rollout.

    Example: flythrough export runs/garden -o garden-export --formats cameras,colmap
    """
    from flythrough.engine.export import ExportRequest, check_export
    from flythrough.engine.export import export as write

    wanted = () if formats is None else tuple(word.strip() for word in formats.split(","))
    checked = check_export(ExportRequest(folder, output, wanted, device))
    with stage_progress() as progress:
        written = write(checked, note, progress)
    names = [name for some in written.values() for name in some]
    emit(
        {"output": str(output), "frames": checked.frames, "files": written},
        f"{output}: {checked.frames} frames, {', '.join(names)}",
    )
