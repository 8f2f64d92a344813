"""``flythrough bench``: what this machine can do, and how far the models get."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from flythrough.cli.output import emit, note

if TYPE_CHECKING:
    from flythrough.bench.rows import Figures


def bench(
    name: Annotated[
        Literal["helios", "wah", "warp", "vae", "nano", "worldwarp"],
        Parameter(
            help="Denoiser; camera-led chunks; their conditioning; codecs; the bundled model;"
            " ST-Diff, TTT3R and the Gaussian cache."
        ),
    ],
    /,
    *,
    config: Annotated[
        Literal["published", "nano", "tiny"] | None,
        Parameter(help="Sizes of the networks; default: published on a GPU, else nano."),
    ] = None,
    device: Annotated[str, Parameter(help="auto, cpu, cuda or cuda:N.")] = "auto",
    runs: Annotated[int, Parameter(help="Timed calls of a row; their median counts.")] = 5,
    chunks: Annotated[int, Parameter(help="Timed chunks of a row, after one to warm up.")] = 3,
    output: Annotated[
        Path | None,
        Parameter(name=["--output", "-o"], help="Default: a dated .json in bench/results."),
    ] = None,
) -> None:
    """Measure speed and memory with random weights: ceilings first, then rows.

    At the published size the 14B denoiser is drawn on the GPU (29 GB), no weights are read.

    Example: flythrough bench helios
    """
    from flythrough.bench.command import BenchRequest, check_bench, run_bench

    request = BenchRequest(
        suite=name, size=config, device=device, runs=runs, chunks=chunks, output=output
    )
    check_bench(request)

    def on_row(row: str, figures: Figures) -> None:
        from flythrough.bench.rows import line

        note(line(row, figures))

    target, found = run_bench(request, on_row)
    emit({"output": str(target), **found}, f"{target}: {len(found['rows'])} rows")
