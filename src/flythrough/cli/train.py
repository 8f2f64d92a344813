"""``flythrough train``: the parts of the bundled small model, and camera adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from flythrough.cli.output import emit
from flythrough.cli.records import record_printer

app = App(
    name="train", help="Train a camera adapter, a stage of Helios, or a part of the small model."
)
app.command(
    "flythrough.cli.train_lora:lora", name="lora", help="Train a camera adapter from a clip."
)
app.command("flythrough.cli.train_helios:helios", name="helios", help="Train a stage of Helios.")
app.command(
    "flythrough.cli.train_worldwarp:worldwarp", name="worldwarp", help="Train WorldWarp's denoiser."
)


@app.command
def nano(  # noqa: PLR0913 - every knob of a training run
    part: Literal["codec", "geometry", "denoiser", "lora", "stdiff"],
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="Run folder; resumed.")],
    base: Annotated[Path | None, Parameter(help="Model folder the other parts come from.")] = None,
    photos: Annotated[Path | None, Parameter(help="Folder of training photographs.")] = None,
    heldout_photos: Annotated[Path | None, Parameter(help="Folder only measured on.")] = None,
    steps: Annotated[int, Parameter(help="Optimiser steps.")] = 100_000,
    minutes: Annotated[float | None, Parameter(help="Wall-clock budget.")] = None,
    batch: Annotated[int | None, Parameter(help="Clips a step and process.")] = None,
    learning_rate: Annotated[float | None, Parameter(help="Peak rate.")] = None,
    seed: int = 0,
    size: Annotated[str, Parameter(help="HEIGHTxWIDTH.")] = "192x320",
    precision: Literal["bf16", "fp32"] = "fp32",
    compile: Annotated[bool, Parameter(help="Compile the network's blocks.")] = False,  # noqa: A002
    warp_stages: Annotated[int, Parameter(help="lora: stages that see the warp.")] = 1,
    warp_band: Annotated[
        Literal["short", "patch-mid"], Parameter(help="lora: history band that takes the warp.")
    ] = "short",
    detail: Annotated[
        float, Parameter(help="codec: weight of the loss on the amount of fine structure.")
    ] = 0.0,
    keep_encoder: Annotated[bool, Parameter(help="codec: train the decoder alone.")] = False,
    keep_text: Annotated[bool, Parameter(help="denoiser: keep the text encoder as it is.")] = False,
    preview_every: Annotated[int, Parameter(help="Steps between previews; 0: at the end.")] = 0,
    device: str = "auto",
) -> None:
    """Train one part; an unfinished run in the output folder is continued."""
    from flythrough.engine.words import parse_size
    from flythrough.training.nano import NanoRun, run

    parsed = parse_size(size)
    assert parsed is not None
    settings = NanoRun(
        part=part,
        folder=output,
        steps=steps,
        minutes=minutes,
        batch=batch,
        learning_rate=learning_rate,
        seed=seed,
        base=base,
        photos=photos,
        heldout_photos=heldout_photos,
        device=device,
        compile=compile,
        size=parsed,
        preview_every=preview_every,
        precision=precision,
        warp_stages=warp_stages,
        detail=detail,
        keep_encoder=keep_encoder,
        keep_text=keep_text,
        band="short" if warp_band == "short" else "patch_mid",
    )
    figures = run(settings, record_printer())
    text = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
    emit({"folder": str(output), **figures}, f"{output}: {text}")
