"""An estimator by name or depth file (the model's own network is chosen by the engine)."""

from __future__ import annotations

from pathlib import Path

from flythrough.errors import GeometryError
from flythrough.geometry.estimator import Estimator
from flythrough.geometry.estimators.flat import FlatDepth
from flythrough.geometry.estimators.given import read_depth

_SUFFIXES = {".npy", ".npz", ".png"}


def check_geometry_choice(name_or_file: str) -> None:
    """Refuse a name that is neither known nor a depth file, before anything is loaded."""
    if name_or_file in ("default", "flat"):
        return
    if Path(name_or_file).suffix not in _SUFFIXES:
        raise GeometryError(
            f"--geometry {name_or_file!r} is unknown; use default, flat or a depth file "
            "(.npy, .npz, .png)."
        )
    read_depth(Path(name_or_file))


def load_estimator(name_or_file: str) -> Estimator:
    """``flat`` or a depth file."""
    check_geometry_choice(name_or_file)
    return FlatDepth() if name_or_file == "flat" else read_depth(Path(name_or_file))
