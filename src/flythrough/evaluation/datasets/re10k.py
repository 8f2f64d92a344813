"""RealEstate10K: a text file of cameras for each clip (Zhou et al. 2018), and its frames.

The data set publishes cameras alone; frames are cut from videos by everyone themself. Looked for
are ``SPLIT/NAME.txt`` (also below ``RealEstate10K/`` or ``cameras/``) and
``SPLIT/NAME/TIMESTAMP.jpg`` or ``.png`` (also below ``frames/`` or ``images/``), timestamps in
microseconds as in the text.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flythrough.cameras import pose as se3
from flythrough.cameras.formats.re10k_text import COLUMNS, CameraLines, camera_lines
from flythrough.errors import CameraError, InputError
from flythrough.evaluation.datasets.layout import Scene, first_folder, pictures_in


class RE10K:
    """Cameras in OpenCV axes, stored as camera from world; intrinsics in shares of the sides."""

    def names(self, data: Path, split: str) -> list[str]:
        names = sorted(file.stem for file in _cameras(data, split).glob("*.txt"))
        return [name for name in names if _frames(data, split, name) is not None]

    def scene(self, data: Path, split: str, name: str) -> Scene:
        file = _cameras(data, split) / f"{name}.txt"
        lines = _lines(file)
        times = lines.times.tolist()
        folder = _frames(data, split, name)
        there = {int(p.stem): p for p in pictures_in(folder) if p.stem.isdigit()} if folder else {}
        kept = [row for row, time in enumerate(times) if time in there]
        if len(kept) < 2:
            raise InputError(
                f"The clip {name} has {len(kept)} frames named after timestamps of {file}; name "
                "them TIMESTAMP.jpg or .png."
            )
        fx, fy, cx, cy = lines.lenses[kept[0]]
        return Scene(
            pictures=tuple(there[times[row]] for row in kept),
            intrinsics=np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]),
            world_from_camera=se3.inverse(lines.camera_from_world[kept]),
        )


def _cameras(data: Path, split: str) -> Path:
    places = [data / split, data / "RealEstate10K" / split, data / "cameras" / split]
    found = [place for place in places if place.is_dir() and any(place.glob("*.txt"))]
    return first_folder(
        [*found, *places], "folder of camera texts", "unpack RealEstate10K.tar.gz there"
    )


def _frames(data: Path, split: str, name: str) -> Path | None:
    for above in ("", "frames", "images"):
        folder = data / above / split / name
        if folder.is_dir():
            return folder
    return None


def _lines(file: Path) -> CameraLines:
    try:
        return camera_lines(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"The camera text {file} cannot be read ({error}); download it again."
        ) from error
    except CameraError as error:
        raise InputError(
            f"The camera text {file} is not a URL and then {COLUMNS} numbers a line; download it "
            "again."
        ) from error
