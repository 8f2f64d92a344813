"""``flythrough train helios``: Helios' training stages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from flythrough.cli.output import emit
from flythrough.cli.records import record_printer


def helios(  # noqa: PLR0913 - every knob of a training run
    stage: Literal["1", "2", "3a", "3b"],
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="Run folder; resumed.")],
    recipe: Annotated[str, Parameter(help="nano, published*, or a .toml file.")] = "nano",
    base: Annotated[str | None, Parameter(help="Model whose weights are trained.")] = None,
    score: Annotated[str | None, Parameter(help="3b: stage 1 model that judges.")] = None,
    data: Annotated[Path | None, Parameter(help="Folder of videos or latents.")] = None,
    photos: Annotated[Path | None, Parameter(help="Folder of photographs beside worlds.")] = None,
    trajectories: Annotated[Path | None, Parameter(help="3a: folder of trajectories.")] = None,
    steps: Annotated[int | None, Parameter(help="Optimiser steps.")] = None,
    batch: Annotated[int | None, Parameter(help="Clips a process and micro-batch.")] = None,
    seed: int | None = None,
    parallel: Annotated[Literal["ddp", "fsdp"], Parameter(help="Replicas or shards.")] = "ddp",
    deterministic: Annotated[bool, Parameter(help="Repeatable on a GPU, too.")] = False,
    device: str = "auto",
) -> None:
    """Train one of Helios' stages; an unfinished run in the output folder is continued."""
    from flythrough.training.helios.plan import HeliosRun, check_run

    asked = HeliosRun(
        stage=stage,
        folder=output,
        recipe=recipe,
        base=base,
        data=data,
        score=score,
        trajectories=trajectories,
        photos=photos,
        steps=steps,
        batch=batch,
        seed=seed,
        device=device,
        parallel=parallel,
        deterministic=deterministic,
    )
    check_run(asked)  # before anything slow is imported
    from flythrough.training.helios.run import run
    from flythrough.training.loop import rank_and_world

    result = run(asked, record_printer())
    if rank_and_world()[0] == 0:
        emit(result, f"{result['model']}: step {result['step']}")
