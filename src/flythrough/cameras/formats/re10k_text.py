"""Camera texts of RealEstate10K (Zhou et al. 2018) and of data sets in its layout.

A line with the video's address, then one line a camera: microseconds, fx fy cx cy in shares of the
picture's sides, two numbers of distortion, and world-to-camera 3x4 with OpenCV axes, row by row.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from flythrough.cameras import pose as se3
from flythrough.cameras.formats.fixed import FixedCameras, Lens, fixed_cameras
from flythrough.errors import CameraError

KIND = "RealEstate10K camera text"
COLUMNS = 19
_HEIGHT = 720


class CameraLines(NamedTuple):
    """T cameras as they stand in a text, every number finite and nothing else checked.

    Attributes:
        times: [T] microseconds, whole numbers.
        lenses: [T,4] fx, fy, cx, cy in shares of the picture's sides.
        distortion: [T,2].
        camera_from_world: [T,4,4], OpenCV axes.
    """

    times: np.ndarray
    lenses: np.ndarray
    distortion: np.ndarray
    camera_from_world: np.ndarray


def read(path: Path) -> FixedCameras:
    """The cameras in a text.

    Texts have no picture size: it is the one of square pixels for the first camera.

    Raises:
        CameraError: unreadable, another number of columns, no cameras, times that do not increase,
            or a matrix that is not rigid.
    """
    try:
        return _cameras(camera_lines(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise CameraError(
            f"In {path}: the text cannot be read ({error}); write it again."
        ) from None
    except CameraError as error:
        raise CameraError(f"In {path}: {error}") from None


def _cameras(lines: CameraLines) -> FixedCameras:
    times, lenses = lines.times, lines.lenses
    late = np.diff(times) <= 0
    if late.any():
        row = int(np.argmax(late)) + 1
        raise CameraError(
            f"the time of camera {row} ({times[row]:.0f}) does not come after the one before; "
            "sort the lines by time."
        )
    se3.check_rigid(lines.camera_from_world, "the world-to-camera matrix")
    if lenses[:, :2].min() <= 0:
        row = int(np.argmax(lenses[:, :2].min(1) <= 0))
        raise CameraError(f"camera {row} has a focal length that is not above 0; correct it.")
    notes = []
    if np.any(lines.distortion):
        notes.append("its lens distortion is left out: focal length and centre alone count")
    width = max(1, round(_HEIGHT * lenses[0, 1] / lenses[0, 0]))
    inside = [
        Lens(fx * width, fy * _HEIGHT, cx * width, cy * _HEIGHT, width, _HEIGHT)
        for fx, fy, cx, cy in lenses.tolist()
    ]
    seconds = (times - times[0]) * 1e-6
    poses = se3.inverse(lines.camera_from_world)
    return fixed_cameras(poses, inside, KIND, times=seconds, notes=notes)


def camera_lines(text: str) -> CameraLines:
    """What the lines of a text say.

    Raises:
        CameraError: another number of columns, no cameras, or a number that is not finite; the
            message is the end of a sentence that names the file.
    """
    rows = []
    for place, line in enumerate(text.split("\n")):
        words = line.split()
        try:
            values = [float(word) for word in words]
        except ValueError:
            values = []
        if len(values) == COLUMNS:
            rows.append(values)
        elif words and place:  # the first line may be the address of the video
            raise CameraError(
                f"line {place + 1} does not have {COLUMNS} numbers, as camera texts of "
                "RealEstate10K do; the .txt that are read are those, and cameras.txt and "
                "images.txt of COLMAP."
            )
    if not rows:
        raise CameraError(
            f"it has no line of {COLUMNS} numbers, as camera texts of RealEstate10K do; write one "
            "for each camera."
        )
    table = np.array(rows)
    if not np.isfinite(table).all():
        row = int(np.argmax(~np.isfinite(table).all(1)))
        raise CameraError(f"camera {row} has a number that is not finite; correct it.")
    matrices = np.tile(np.eye(4), (len(table), 1, 1))
    matrices[:, :3] = table[:, 7:].reshape(-1, 3, 4)
    return CameraLines(table[:, 0], table[:, 1:5], table[:, 5:7], matrices)
