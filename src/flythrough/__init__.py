"""Flythrough: one photo and a camera path become a long, stable video that follows the path.

Names below are loaded on first use, so importing the package (or asking the command line for help)
loads neither torch nor any model code.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC: dict[str, str] = {
    "Clip": "flythrough.engine.pipeline",
    "FlythroughError": "flythrough.errors",
    "InputError": "flythrough.errors",
    "LengthUnit": "flythrough.cameras.trajectory",
    "Pipeline": "flythrough.engine.pipeline",
    "Rollout": "flythrough.rollout.rollout",
    "Trajectory": "flythrough.cameras.trajectory",
    "load": "flythrough.engine.pipeline",
    "path": "flythrough.engine.pipeline",
    "run_batch": "flythrough.engine.batch",
}

__all__ = ["__version__", *_PUBLIC]  # noqa: PLE0604 - all keys are strings


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'flythrough' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
