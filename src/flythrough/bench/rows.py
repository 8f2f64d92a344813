"""A result that grows row by row: each is kept as soon as it is measured, and a fault is a row."""

from __future__ import annotations

import gc
import json
import traceback
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

Figures = Mapping[str, Any]


class Rows:
    """Rows of one measurement, in a file where one is given.

    Args:
        header: machine and configuration, for the record.
        target: JSON file, written anew after every row.
        on_row: told of every row.
        forgive: a row that fails is noted with its traceback and the next one is measured;
            otherwise the fault is raised.
    """

    def __init__(
        self,
        header: Figures,
        target: Path | None = None,
        on_row: Callable[[str, Figures], None] | None = None,
        *,
        forgive: bool = False,
    ) -> None:
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")  # noqa: UP017
        self.header = {"measured": now, **header}
        self.found: dict[str, Figures] = {}
        self._target, self._on_row, self._forgive = target, on_row, forgive

    def measure(self, name: str, work: Callable[[], Figures]) -> Figures | None:
        """Run ``work`` and keep its figures under ``name``; None if it failed."""
        try:
            figures = work()
        except Exception:
            if not self._forgive:
                raise
            figures = {"failed": traceback.format_exc(limit=-6)}
        self.found[name] = figures
        self._write()
        if self._on_row is not None:
            self._on_row(name, figures)
        if torch.cuda.is_available():
            gc.collect()
            torch.cuda.empty_cache()
        return None if "failed" in figures else figures

    def data(self) -> dict[str, Any]:
        """Header and rows as plain values."""
        return {**self.header, "rows": dict(self.found)}

    def _write(self) -> None:
        if self._target is not None:
            temporary = self._target.with_suffix(".part")
            temporary.write_text(json.dumps(self.data(), indent=1, default=str) + "\n")
            temporary.replace(self._target)


def line(name: str, figures: Figures) -> str:
    """One row as text."""
    if "failed" in figures:
        return f"{name}: FAILED {str(figures['failed']).strip().splitlines()[-1]}"
    shown = [f"{key} {value}" for key, value in figures.items() if not isinstance(value, list)]
    return f"{name}: {', '.join(shown)}"
