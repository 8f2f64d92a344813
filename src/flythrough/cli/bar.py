"""A progress bar that is also seen where nothing can move: in a log file, through a pipe.

Import it only where a bar is shown: rich takes its time, and ``--help`` must not.
"""

from __future__ import annotations

import time
from typing import Any

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from flythrough.cli.output import stderr_console
from flythrough.cli.pace import Pace

SILENCE = 30.0
"""Seconds between two lines where there is no terminal."""


class Bar(Progress):
    """rich's bar on stderr, followed by the time it took and the time it still takes; without a
    terminal, a line every half minute about what goes on."""

    def __init__(self, *columns: ProgressColumn, **settings: Any) -> None:
        self._paces: dict[TaskID, Pace] = {}
        times = (_Elapsed(), _Left(self._paces))
        super().__init__(*columns, *times, console=stderr_console(), **settings)
        self._said = time.monotonic()

    def add_task(
        self,
        description: str,
        start: bool = True,
        total: float | None = 100.0,
        completed: float = 0,
        visible: bool = True,
        **fields: Any,
    ) -> TaskID:
        """As rich's; ``first`` says how many times as long portion 0 of the task takes."""
        pace = Pace(completed, fields.pop("first", 1.0))
        done: Any = completed  # rich counts in floats but says int
        task_id = super().add_task(description, start, total, done, visible, **fields)
        self._paces[task_id] = pace
        return task_id

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """As rich's."""
        super().update(task_id, **changes)
        task = self._tasks[task_id]
        self._paces[task_id].report(task.completed, task.total or 0.0)
        now = time.monotonic()
        if self.console.is_terminal or now - self._said < SILENCE:
            return
        self._said = now
        under_way = [task for task in self.tasks if task.visible and not task.finished]
        if under_way:
            self.console.print(self.make_tasks_table(under_way))


def timed_bar(*counts: str, **settings: Any) -> Bar:
    """A bar with what is going on and ``counts`` (of rich's tasks); with those of a video's chunks
    it fits 80 columns."""
    return Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=12),
        *(TextColumn(count, markup=False) for count in counts),
        **settings,
    )


class _Elapsed(ProgressColumn):
    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        seconds = task.finished_time if task.finished else task.elapsed
        return Text(f"elapsed {_spoken(seconds or 0.0)}", style="progress.elapsed")


class _Left(ProgressColumn):
    max_refresh = 0.5

    def __init__(self, paces: dict[TaskID, Pace]) -> None:
        super().__init__()
        self._paces = paces

    def render(self, task: Task) -> Text:
        pace = self._paces.get(task.id)
        left = 0.0 if task.finished or pace is None else pace.left()
        return Text("" if left is None else f"left {_spoken(left)}", style="progress.remaining")


def _spoken(seconds: float) -> str:
    """Like 0:44 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
