"""A progress bar that is also seen where nothing can move: in a log file, through a pipe.

Import it only where a bar is shown: rich takes its time, and ``--help`` must not.
"""

from __future__ import annotations

import time
from typing import Any

from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from flythrough.cli.output import stderr_console

SILENCE = 30.0
"""Seconds between two lines where there is no terminal."""


class Bar(Progress):
    """rich's bar on stderr; without a terminal, a line every half minute about what goes on."""

    def __init__(self, *columns: ProgressColumn, **settings: Any) -> None:
        super().__init__(*columns, console=stderr_console(), **settings)
        self._said = time.monotonic()

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """As rich's."""
        super().update(task_id, **changes)
        now = time.monotonic()
        if self.console.is_terminal or now - self._said < SILENCE:
            return
        self._said = now
        under_way = [task for task in self.tasks if task.visible and not task.finished]
        if under_way:
            self.console.print(self.make_tasks_table(under_way))


def timed_bar(*counts: str, **settings: Any) -> Bar:
    """A bar with what is going on, ``counts`` (of rich's tasks), the time taken and that left."""
    return Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        *(TextColumn(count, markup=False) for count in counts),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        **settings,
    )
