"""A run that ``flythrough doctor`` foretells, and what it finds. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from flythrough.engine.hardware import ONE_DEVICE, Hardware
from flythrough.engine.words import Compute, MemoryChoice, Precision
from flythrough.rollout.spec import Method


@dataclass(frozen=True)
class Row:
    """One finding: what was looked at, what was found, whether it is good enough; ``data`` holds
    the numbers behind the words."""

    name: str
    found: str
    good: bool = True
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """All findings, and the names that ``models pull`` has to fetch before the run."""

    rows: tuple[Row, ...]
    to_fetch: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        return all(row.good for row in self.rows)


@dataclass(frozen=True)
class Intent:
    """The run that memory and time are foretold for; None is the model's own size and the method
    that it is for with a camera. ``card``: memory in GB (10^9 bytes) of each GPU of another machine
    that it is planned for. The others are options of ``generate``."""

    model: str = "nano"
    size: tuple[int, int] | None = None
    frames: int = 66
    method: Method | None = None
    device: str = "auto"
    memory: MemoryChoice = "auto"
    caption: str | None = None
    precision: Precision = "full"
    hardware: Hardware = ONE_DEVICE
    card: float | None = None
    geometry: str = "default"
    lora: str = "default"

    @property
    def compute(self) -> Compute:
        """The engine's word for the precision."""
        return "auto" if self.precision == "full" else self.precision
