"""Progress over a known number of videos on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def video_progress(videos: int) -> Iterator[Callable[[int, str, float], None]]:
    """Yields what is told the finished videos, the one at work and its finished share."""
    from flythrough.cli.bar import timed_bar

    with timed_bar("{task.fields[shown]}/{task.total:.0f} videos") as bar:
        task = bar.add_task("starting", total=videos, shown=0)

        def update(done: int, label: str, share: float) -> None:
            bar.update(task, completed=done + share, shown=done, description=label)

        yield update
