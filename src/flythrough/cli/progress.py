"""Progress on stderr: frames of a video, stages of a job, and what has no known length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer
from typing import TYPE_CHECKING

from flythrough.cli.output import stderr_console

if TYPE_CHECKING:
    from rich.progress import TaskID

    from flythrough.engine.chunk_time import ChunkTime
    from flythrough.engine.run import Progress
    from flythrough.rollout.window import Window

_TELLS = 0.1
"""Part of a chunk after which a rate is worth showing."""
_LONG = 10.0
"""Seconds after which a log should say what is going on."""
_LABELS = {
    "caption": "describing",
    "warp": "rendering",
    "encode": "encoding",
    "denoise": "denoising",
    "decode": "decoding",
}


@contextmanager
def frame_progress(
    first_chunk: int, chunks: int, frames: int, window: Window, time: ChunkTime
) -> Iterator[Progress]:
    """Yields the callback the engine reports to.

    The bar counts chunks by the part of their time that has passed (``time``), and the frames that
    are shown are as many as belong to that part, ``frames`` at the most.
    """
    from flythrough.cli.bar import timed_bar

    start = min(frames, window.first(first_chunk))
    counts = ("{task.fields[shown]}/{task.fields[frames]} frames", "{task.fields[rate]}")
    with timed_bar(*counts) as bar:
        task = bar.add_task(
            f"chunk {first_chunk + 1}/{chunks}: starting",
            total=chunks,
            completed=first_chunk,
            first=time.first,
            shown=start,
            frames=frames,
            rate="",
        )

        def update(index: int, label: str, share: float) -> None:
            made = index + time.part(index, share)
            if made < bar.tasks[0].completed:  # frames that came while the next was denoised
                return
            first = min(frames, window.first(index))
            until = min(frames, first + window.shown(index))
            shown = first + (made - index) * (until - first)
            elapsed = bar.tasks[0].elapsed or 1e-3
            bar.update(
                task,
                completed=made,
                shown=int(shown),
                description=f"chunk {index + 1}/{chunks}: {_LABELS.get(label, label)}",
                rate=f"{(shown - start) / elapsed:.2f} fps" if made > first_chunk + _TELLS else "",
            )

        yield update


@contextmanager
def stage_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Yields what is told the name of a stage, how much of it is done, and of how much: one bar a
    stage. Without a terminal the name is printed as the stage begins."""
    from flythrough.cli.bar import timed_bar

    stages: dict[str, TaskID] = {}
    with timed_bar("{task.completed:.0f}/{task.total:.0f}") as bar:

        def report(stage: str, done: int, total: int) -> None:
            if stage not in stages:
                stages[stage] = bar.add_task(stage, total=total)
                if not bar.console.is_terminal:
                    bar.console.print(stage)
            bar.update(stages[stage], completed=done, total=total)

        yield report


@contextmanager
def working(text: str) -> Iterator[None]:
    """A spinner on stderr while something without a known length runs; without a terminal a line
    once it has taken long."""
    console = stderr_console()
    if console.is_terminal:
        with console.status(text):
            yield
        return
    late = Timer(_LONG, console.print, (text,))
    late.daemon = True
    late.start()
    try:
        yield
    finally:
        late.cancel()
