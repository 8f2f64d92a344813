"""A progress bar on stderr: frames done, rate, time left, and what is happening now."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flythrough.cli.output import stderr_console

if TYPE_CHECKING:
    from flythrough.engine.run import Progress
    from flythrough.rollout.window import Window

_LABELS = {
    "warp": "rendering the camera path",
    "encode": "encoding",
    "denoise": "denoising",
    "decode": "decoding",
    "done": "chunk finished",
}


@contextmanager
def frame_progress(
    first_chunk: int, chunks: int, frames: int, window: Window
) -> Iterator[Progress]:
    """Yields the callback the engine reports to. ``frames`` caps the count that is shown."""
    from flythrough.cli.bar import timed_bar

    start = min(frames, window.first(first_chunk))
    counts = ("{task.fields[shown]}/{task.total:.0f} frames", "{task.fields[rate]}", "elapsed")
    with timed_bar(*counts) as bar:
        task = bar.add_task(
            "starting", total=frames, completed=start, shown=start, rate=f"chunk 1/{chunks}"
        )

        def update(index: int, label: str, share: float) -> None:
            made = window.first(index) + share * window.shown(index)
            late = made < bar.tasks[0].completed  # frames that came while the next was denoised
            done = min(float(frames), max(made, bar.tasks[0].completed))
            elapsed = bar.tasks[0].elapsed or 0.0
            rate = f"{(done - start) / elapsed:.2f} fps" if elapsed and done > start else ""
            bar.update(
                task,
                completed=done,
                shown=min(frames, window.first(index + int(share >= 1))),
                description=f"chunk {index + 1}/{chunks}: {_LABELS.get(label, label)}"
                if not late
                else None,
                rate=rate,
            )

        yield update


@contextmanager
def working(text: str) -> Iterator[None]:
    """A spinner on stderr while something without a known length runs."""
    with stderr_console().status(text):
        yield
