"""Progress of a batch on stderr: videos done and time left, and the video at work."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flythrough.engine.batch import BatchProgress
    from flythrough.engine.batch_check import BatchJob


@contextmanager
def batch_progress(
    jobs: Sequence[BatchJob],
) -> Iterator[tuple[BatchProgress, Callable[[], None]]]:
    """Yields what the engine reports to, and what to call after each of ``jobs``."""
    from flythrough.cli.bar import timed_bar

    total = sum(job.chunks for job in jobs)
    before = {job.id: sum(j.chunks for j in jobs[:n]) for n, job in enumerate(jobs)}
    count = 0
    # Results on stdout must not be led to stderr, where the bar is, unless both are the screen.
    with timed_bar(
        "{task.fields[shown]}/{task.fields[videos]} videos", redirect_stdout=sys.stdout.isatty()
    ) as bar:
        task = bar.add_task("loading", total=total, shown=0, videos=len(jobs), visible=bool(jobs))

        def update(job: BatchJob, index: int, label: str, share: float) -> None:
            done = before[job.id] + index + share
            text = f"{job.id}: chunk {index + 1}/{job.chunks} {label}"
            bar.update(task, completed=done, description=text)

        def finished() -> None:
            nonlocal count
            count += 1
            done = sum(job.chunks for job in jobs[:count])
            bar.update(task, completed=done, shown=count)

        yield update, finished
