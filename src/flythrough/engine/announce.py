"""Notes of the engine as Python warnings, for those who call it from a program."""

from __future__ import annotations

import sys
import warnings


def announce(text: str) -> None:
    """Warn at the line outside this package that called the pipeline."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals["__name__"].startswith("flythrough."):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, stacklevel=level)
