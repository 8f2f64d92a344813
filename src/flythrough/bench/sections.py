"""What the measuring scripts of ``bench/`` share: sections one after the other within a time limit,
every row kept as soon as it is known."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch

from flythrough.bench import suites
from flythrough.bench.clock import machine, seconds
from flythrough.bench.rows import Figures, Rows, line
from flythrough.bench.sizes import SIZES
from flythrough.errors import InputError


@dataclass
class SectionRun:
    """The measurement under way: ``until`` is a time of ``time.monotonic``, ``only`` the sections
    that were asked for (all if empty)."""

    bench: suites.Bench
    folder: Path
    until: float
    only: tuple[str, ...] = ()
    known: set[str] = field(default_factory=set)

    def row(self, name: str, work: Callable[[], Figures]) -> Figures | None:
        return self.bench.rows.measure(name, work)

    def section(self, name: str, work: Callable[[], None]) -> None:
        """Run one section if it was asked for and there is time; its own fault ends it alone."""
        self.known.add(name)
        if self.only and name not in self.only:
            return
        if time.monotonic() > self.until:
            self.row(f"section {name}", lambda: {"left_out": "time is up"})
            return

        def timed() -> Figures:
            return {"section_s": round(seconds(work, self.bench.device), 1)}

        self.row(f"section {name}", timed)

    def end(self) -> None:
        """Call it behind the last section.

        Raises:
            InputError: a section was asked for that there is not.
        """
        unknown = [name for name in self.only if name not in self.known]
        if unknown:
            raise InputError(
                f"There is no section {unknown[0]!r}; choose among {', '.join(sorted(self.known))}."
            )


R = TypeVar("R", bound="SectionRun")


def start(
    kind: type[R], description: str, result: str, arguments: Sequence[str] | None = None
) -> R:
    """A run of ``kind`` as the command line asks for it, its rows in FOLDER/``result``."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--config", default="published", choices=list(SIZES))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=520)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--chunks", type=int, default=3)
    parser.add_argument("--only", default="", help="sections by name, with commas between")
    given = parser.parse_args(arguments)
    started = time.monotonic()
    given.folder.mkdir(parents=True, exist_ok=True)
    device = torch.device(given.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32

    def shown(name: str, figures: Figures) -> None:
        sys.stdout.write(f"[{time.monotonic() - started:6.1f}] {line(name, figures)}\n")
        sys.stdout.flush()

    header = {"config": {**vars(given), "folder": given.folder.name}, "machine": machine(device)}
    rows = Rows(header, given.folder / result, shown, forgive=True)
    bench = suites.Bench(rows, SIZES[given.config], device, dtype, given.runs, given.chunks)
    only = tuple(word.strip() for word in given.only.split(",") if word.strip())
    return kind(bench, given.folder, started + given.seconds, only)
