"""``flythrough train lora``: a camera adapter from one clip."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from flythrough.cli.output import emit, note

if TYPE_CHECKING:
    from rich.progress import TaskID

    from flythrough.training.loop import Record
    from flythrough.training.lora.run import Trained


def lora(  # noqa: PLR0913 - every knob of a training run
    data: Annotated[
        Path, Parameter(help="A video, a folder of `world` or of pictures, or a .csv/.jsonl list.")
    ],
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="Run folder; resumed.")],
    model: Annotated[str, Parameter(help="'nano', a pulled model, or a model folder.")] = "nano",
    prompt: Annotated[str | None, Parameter(help="Caption of the clip.")] = None,
    camera: Annotated[
        Path | None, Parameter(help="Camera file as for generate, one a frame; else estimated.")
    ] = None,
    depth: Annotated[
        Path | None, Parameter(help=".npz with the clip's depth [T,H,W]; else estimated.")
    ] = None,
    poses: Annotated[
        Literal["network", "features"] | None,
        Parameter(help="How cameras are estimated: features for nano, else the network."),
    ] = None,
    video_column: Annotated[str | None, Parameter(help="List: column of videos.")] = None,
    prompt_column: Annotated[str | None, Parameter(help="List: column of captions.")] = None,
    limit: Annotated[int | None, Parameter(help="List: only its first rows.")] = None,
    frame_stride: Annotated[int, Parameter(help="Take every n-th frame.")] = 1,
    max_frames: Annotated[int | None, Parameter(help="Take at most so many frames.")] = None,
    size: Annotated[str | None, Parameter(help="HEIGHTxWIDTH; the model's own if absent.")] = None,
    band: Annotated[
        Literal["short", "patch-mid"], Parameter(help="History band that takes the warp.")
    ] = "short",
    threshold: Annotated[
        float | None, Parameter(help="Share of a token that must be seen; the model's own.")
    ] = None,
    reverse: Annotated[bool, Parameter(help="Play half of the windows backwards.")] = True,
    reference: Annotated[
        bool, Parameter(help="The published trainer with its defects (docs/training.md).")
    ] = False,
    steps: Annotated[int | None, Parameter(help="Optimiser steps; 1000, nano 160.")] = None,
    items: Annotated[int | None, Parameter(help="Different windows; one a step, nano 40.")] = None,
    rank: Annotated[int, Parameter(help="Inner width of the adapter.")] = 32,
    alpha: Annotated[float | None, Parameter(help="Its scale is alpha / rank; the rank.")] = None,
    learning_rate: Annotated[float | None, Parameter(help="1e-4, nano 5e-4.")] = None,
    seed: int = 42,
    gradient_checkpointing: Annotated[
        bool | None, Parameter(help="Recompute activations to save memory; on for large models.")
    ] = None,
    sample_every: Annotated[int, Parameter(help="Steps between sampled chunks; 0: none.")] = 0,
    save_every: Annotated[int, Parameter(help="Steps between checkpoints.")] = 50,
    dry_run: Annotated[bool, Parameter(help="Draw the previews and end.")] = False,
    device: Annotated[str, Parameter(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Train a camera adapter (Warp-as-History) from one clip; the same command resumes it.

    Writes previews/batch-*.png before the first step, log.jsonl, loss.svg, report.html, and
    lora/camera.safetensors, which --lora of generate takes. Runs under torchrun and accelerate.

    Example: flythrough train lora clip.mp4 --prompt "a street" -o run
    """
    from flythrough.engine.words import parse_size
    from flythrough.training.lora.settings import LoraRequest

    request = LoraRequest(
        data=data,
        folder=output,
        model=model,
        prompt=prompt,
        camera=camera,
        depth=depth,
        poses=poses,
        video_column=video_column,
        prompt_column=prompt_column,
        limit=limit,
        frame_stride=frame_stride,
        max_frames=max_frames,
        size=parse_size(size),
        band=band,
        threshold=threshold,
        reverse=reverse,
        reference=reference,
        steps=steps,
        items=items,
        rank=rank,
        alpha=alpha,
        learning_rate=learning_rate,
        seed=seed,
        gradient_checkpointing=gradient_checkpointing,
        sample_every=sample_every,
        save_every=save_every,
        dry_run=dry_run,
        device=device,
    )
    from flythrough.training.loop import rank_and_world
    from flythrough.training.lora.run import train_lora

    with _shown() as bars, _goes_on(output):
        done = train_lora(request, note, bars.prepared, bars.trained)
    if rank_and_world()[0] == 0:
        _answer(done)


def _answer(done: Trained) -> None:
    data = {
        "folder": str(done.folder),
        "adapter": None if done.adapter is None else str(done.adapter),
        "previews": [str(path) for path in done.previews],
        **done.figures,
    }
    if done.adapter is None:
        shown = ", ".join(str(path) for path in done.previews)
        emit(data, f"drawn, nothing trained: {shown}")
        return
    figures = done.figures
    quality = ""
    if figures["psnr_before"] is not None:
        quality = f", {figures['psnr_before']:.2f} -> {figures['psnr_after']:.2f} dB on seen pixels"
    emit(
        data,
        f"{done.adapter}: held-out loss {figures['loss_before']:.4f} -> "
        f"{figures['loss_after']:.4f}{quality}; see {done.folder / 'report.html'}",
    )


class _Bars:
    """Progress on stderr: preparation by what is done, then steps with rate, loss and time left."""

    def __init__(self) -> None:
        from flythrough.cli.bar import timed_bar

        self.bar = timed_bar("{task.completed:.0f}/{task.total:.0f}", "{task.fields[said]}")
        self._tasks: dict[str, TaskID] = {}

    def prepared(self, label: str, done: int, total: int) -> None:
        """Show ``done`` of ``total`` of one kind of preparation."""
        if label not in self._tasks:
            self._tasks[label] = self.bar.add_task(label, total=total, said="")
        self.bar.update(self._tasks[label], completed=done, total=total)

    def trained(self, record: Record, steps: int) -> None:
        """Show one step."""
        if "steps" not in self._tasks:
            self._tasks["steps"] = self.bar.add_task(
                "training", total=steps, completed=record.step - 1, said=""
            )
        said = f"{record.seconds:.2f} s/step, loss {record.losses['total']:.4f}"
        self.bar.update(self._tasks["steps"], completed=record.step, said=said)


@contextmanager
def _shown() -> Iterator[_Bars]:
    bars = _Bars()
    with bars.bar:
        yield bars


@contextmanager
def _goes_on(folder: Path) -> Iterator[None]:
    """A stop says that the same command goes on."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if (folder / "train.json").is_file():
            words = shlex.join(["flythrough", *sys.argv[1:]])
            stop.add_note(f"`{words}` goes on from the last checkpoint")
        raise
