"""Flythrough's own camera file: a trajectory as JSON, exact to the last digit."""

from __future__ import annotations

import json
from pathlib import Path

from flythrough.cameras.formats.reading import json_value
from flythrough.cameras.formats.writing import write_whole
from flythrough.cameras.trajectory import Trajectory
from flythrough.errors import CameraError

FORMAT = "flythrough-trajectory"
VERSION = 1


def read(path: Path) -> Trajectory:
    """The trajectory in a JSON file.

    Raises:
        CameraError: missing, unreadable, not JSON, another format or version, or unusable values.
    """
    data = json_value(path)
    if not isinstance(data, dict) or data.get("format") != FORMAT or data.get("version") != VERSION:
        raise CameraError(
            f"{path} is not a trajectory file of version {VERSION}; it needs "
            f'"format": "{FORMAT}" and "version": {VERSION}, as flythrough camera writes it.'
        )
    fields = {key: value for key, value in data.items() if key not in ("format", "version")}
    try:
        return Trajectory.from_dict(fields)
    except CameraError as error:
        raise CameraError(f"In {path}: {error}") from None


def write(path: Path, trajectory: Trajectory) -> None:
    """Write the trajectory as JSON (shortest digits that give the same float64 back)."""
    data = {"format": FORMAT, "version": VERSION, **trajectory.to_dict()}
    write_whole(path, (json.dumps(data, allow_nan=False) + "\n").encode())
