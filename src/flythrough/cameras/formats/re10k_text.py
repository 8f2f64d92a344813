"""Camera texts of RealEstate10K (Zhou et al. 2018) and of data sets in its layout.

A line with the video's address, then one line a camera: microseconds, fx fy cx cy in shares of the
picture's sides, two numbers of distortion, and world-to-camera 3x4 with OpenCV axes, row by row.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flythrough.cameras import pose as se3
from flythrough.cameras.formats.fixed import FixedCameras, Lens, fixed_cameras
from flythrough.errors import CameraError

KIND = "RealEstate10K camera text"
_COLUMNS = 19
_HEIGHT = 720


def read(path: Path) -> FixedCameras:
    """The cameras in a text.

    Texts have no picture size: it is the one of square pixels for the first camera.

    Raises:
        CameraError: unreadable, another number of columns, no cameras, times that do not increase,
            or a matrix that is not rigid.
    """
    try:
        return _cameras(*_table(path))
    except CameraError as error:
        raise CameraError(f"In {path}: {error}") from None


def _cameras(times: np.ndarray, table: np.ndarray) -> FixedCameras:
    late = np.diff(times) <= 0
    if late.any():
        row = int(np.argmax(late)) + 1
        raise CameraError(
            f"the time of camera {row} ({times[row]:.0f}) does not come after the one before; "
            "sort the lines by time."
        )
    matrices = np.tile(np.eye(4), (len(table), 1, 1))
    matrices[:, :3] = table[:, 6:].reshape(-1, 3, 4)
    se3.check_rigid(matrices, "the world-to-camera matrix")
    if table[:, :2].min() <= 0:
        row = int(np.argmax(table[:, :2].min(1) <= 0))
        raise CameraError(f"camera {row} has a focal length that is not above 0; correct it.")
    notes = []
    if np.any(table[:, 4:6]):
        notes.append("its lens distortion is left out: focal length and centre alone count")
    width = max(1, round(_HEIGHT * table[0, 1] / table[0, 0]))
    lenses = [
        Lens(fx * width, fy * _HEIGHT, cx * width, cy * _HEIGHT, width, _HEIGHT)
        for fx, fy, cx, cy in table[:, :4].tolist()
    ]
    seconds = (times - times[0]) * 1e-6
    return fixed_cameras(se3.inverse(matrices), lenses, KIND, times=seconds, notes=notes)


def _table(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """[T] microseconds and the 18 numbers [T,18] after them."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CameraError(f"the text cannot be read ({error}); write it again.") from None
    rows = []
    for place, line in enumerate(lines):
        words = line.split()
        try:
            values = [float(word) for word in words]
        except ValueError:
            values = []
        if len(values) == _COLUMNS:
            rows.append(values)
        elif words and place:  # the first line may be the address of the video
            raise CameraError(
                f"line {place + 1} does not have {_COLUMNS} numbers, as camera texts of "
                "RealEstate10K do; the .txt that are read are those, and cameras.txt and "
                "images.txt of COLMAP."
            )
    if not rows:
        raise CameraError(
            f"it has no line of {_COLUMNS} numbers, as camera texts of RealEstate10K do; write one "
            "for each camera."
        )
    table = np.array(rows)
    if not np.isfinite(table).all():
        row = int(np.argmax(~np.isfinite(table).all(1)))
        raise CameraError(f"camera {row} has a number that is not finite; correct it.")
    return table[:, 0], table[:, 1:]
