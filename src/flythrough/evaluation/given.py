"""Videos that other tools made of the same photos and paths, in the place of a model's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
from PIL import Image

from flythrough.errors import InputError
from flythrough.evaluation.rows import Row
from flythrough.evaluation.truth import Case, Truth
from flythrough.media.video import SUFFIXES, read_video

Notify = Callable[[str], None]
_SHAPE = 0.02  # by which the ratio of the sides may differ


class GivenVideos:
    """A folder with one video for each clip, named after it.

    Raises:
        InputError: it is no folder, or a clip's video is missing.
    """

    def __init__(self, folder: Path, cases: Sequence[Case], notify: Notify) -> None:
        if not folder.is_dir():
            raise InputError(
                f"--videos {folder} is no folder; give one with a video for each clip."
            )
        found = {
            case.name: folder / f"{case.name}{suffix}"
            for case in cases
            for suffix in SUFFIXES
            if (folder / f"{case.name}{suffix}").is_file()
        }
        missing = [case.name for case in cases if case.name not in found]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise InputError(
                f"--videos {folder} has no {missing[0]}.mp4{more}; `flythrough evaluate inputs` "
                "writes the photos and camera paths to make them from."
            )
        self._files, self._notify = found, notify

    def video(self, row: Row, truth: Truth, report: Callable[[float], None]) -> np.ndarray:
        """The clip's frames uint8 [T,H,W,3]; scaled to the clip's size, a longer video cut.

        Raises:
            InputError: too few frames, or sides of another ratio.
        """
        del row, report
        file = self._files[truth.case.name]
        frames = read_video(file).frames
        count, (height, width) = len(truth), truth.size
        if len(frames) < count:
            raise InputError(
                f"The video {file} has {len(frames)} frames, but the clip has {count}; make it as "
                "long as its camera path."
            )
        if len(frames) > count:
            self._notify(f"{file.name} has {len(frames)} frames: only the first {count} count.")
        frames = frames[:count]
        if frames.shape[1:3] == (height, width):
            return frames
        ratio = frames.shape[2] / frames.shape[1] * height / width
        if abs(ratio - 1) > _SHAPE:
            raise InputError(
                f"The video {file} is {frames.shape[1]}x{frames.shape[2]}, which is no multiple of "
                f"the clip's {height}x{width}; scale it without cropping."
            )
        self._notify(f"{file.name} is scaled to {height}x{width}.")
        box = Image.Resampling.BOX if frames.shape[1] > height else Image.Resampling.BICUBIC
        return np.stack(
            [np.array(Image.fromarray(one).resize((width, height), box)) for one in frames]
        )

    def digest(self, row: Row, case: Case) -> str:
        """Of the video's file."""
        del row
        return blake2b(self._files[case.name].read_bytes(), digest_size=16).hexdigest()
