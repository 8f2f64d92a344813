"""``flythrough train worldwarp``: the denoiser of WorldWarp."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from flythrough.cli.output import emit
from flythrough.cli.records import record_printer
from flythrough.engine.words import parse_size


def worldwarp(  # noqa: PLR0913 - every knob of a training run
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="Run folder; resumed.")],
    base: Annotated[Path, Parameter(help="Folder of Wan 2.1 or an ST-Diff (nano: of Helios).")],
    config: Annotated[
        Literal["published", "nano"], Parameter(help="nano: as `train nano stdiff`.")
    ] = "published",
    photos: Annotated[Path | None, Parameter(help="Folder of photographs beside worlds.")] = None,
    steps: Annotated[int | None, Parameter(help="Optimiser steps; 10000 published.")] = None,
    minutes: Annotated[float | None, Parameter(help="Wall-clock budget.")] = None,
    batch: Annotated[int | None, Parameter(help="Clips a step and process; 8 published.")] = None,
    learning_rate: Annotated[float | None, Parameter(help="Peak rate; 5e-5 published.")] = None,
    warmup: Annotated[int | None, Parameter(help="Steps of it; 1000 published.")] = None,
    frames: Annotated[int | None, Parameter(help="Frames a clip; 49 published.")] = None,
    size: Annotated[str | None, Parameter(help="HEIGHTxWIDTH; 480x720 published.")] = None,
    seed: int = 0,
    precision: Annotated[
        Literal["bf16", "fp32"] | None, Parameter(help="bf16 published; fp32 for nano.")
    ] = None,
    compile: Annotated[bool, Parameter(help="Compile the network's blocks.")] = False,  # noqa: A002
    preview_every: Annotated[int, Parameter(help="Steps between previews; 0: at the end.")] = 0,
    device: str = "auto",
) -> None:
    """Train ST-Diff, all weights, as published or as nano has it; a run is continued.

    Several GPUs: torchrun --nproc-per-node 8 --no-python flythrough train worldwarp ...

    Example: flythrough train worldwarp --base Wan2.1-T2V-1.3B-Diffusers -o run
    """
    from flythrough.training.worldwarp import WorldWarpRun, check_run, run

    asked = WorldWarpRun(
        folder=output,
        base=base,
        recipe=config,
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
        warmup=warmup,
        frames=frames,
        size=parse_size(size),
        minutes=minutes,
        seed=seed,
        photos=photos,
        device=device,
        compile=compile,
        preview_every=preview_every,
        precision=precision,
    )
    check_run(asked)
    figures = run(asked, record_printer())
    text = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
    emit({"folder": str(output), **figures}, f"{output}: {text}")
