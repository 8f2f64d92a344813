"""What a data set's folder holds for one clip, and the parts that all layouts share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from flythrough.errors import InputError
from flythrough.media.fitting import centre_crop

PICTURES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True, eq=False)
class Scene:
    """One clip as its data set has it.

    Attributes:
        pictures: files of its frames in order; one for a photo to start from.
        intrinsics: [3,3] in shares of width and height (centres at half-integers of a pixel); None
            if the data set does not know.
        world_from_camera: [T,4,4], OpenCV axes, one for each picture; None if unknown.
        path: a path in the path language instead of cameras.
        masks: files of pictures that are not 0 where something moves by itself.
        caption: what it shows, if the data set says.
    """

    pictures: tuple[Path, ...]
    intrinsics: np.ndarray | None = None
    world_from_camera: np.ndarray | None = None
    path: str | None = None
    masks: tuple[Path, ...] = ()
    caption: str = ""


class Layout(Protocol):
    """Reads the folder layout of one data set."""

    def names(self, data: Path, split: str) -> list[str]:
        """The clips of a split, in order.

        Raises:
            InputError: the folder is not laid out as published.
        """
        ...

    def scene(self, data: Path, split: str, name: str) -> Scene:
        """One clip.

        Raises:
            InputError: unknown, or its files are missing or damaged.
        """
        ...


def pictures_in(folder: Path) -> tuple[Path, ...]:
    """Its picture files in the order of their names."""
    if not folder.is_dir():
        return ()
    return tuple(sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURES))


def first_folder(candidates: Sequence[Path], what: str, remedy: str) -> Path:
    """The first of some folders that exists.

    Raises:
        InputError: none does.
    """
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise InputError(f"There is no {what} at {candidates[0]}; {remedy}.")


def json_of(file: Path) -> Any:
    """What a JSON file holds.

    Raises:
        InputError: it cannot be read, or is no JSON.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"The file {file} cannot be read as JSON ({error}); download it again."
        ) from error


def fitted(file: Path, size: tuple[int, int], nearest: bool = False) -> np.ndarray:
    """A picture cut to the middle and scaled to ``size`` (height, width): uint8 [H,W,3], or [H,W]
    without smoothing for masks.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        with Image.open(file) as opened:
            picture = opened if nearest else opened.convert("RGB")
            crop = centre_crop((picture.height, picture.width), size)
            way = Image.Resampling.NEAREST if nearest else Image.Resampling.LANCZOS
            return np.array(picture.resize((size[1], size[0]), way, box=crop.edges))
    except OSError as error:
        raise InputError(f"The picture {file} cannot be read; download it again.") from error


def fitted_intrinsics(shares: np.ndarray, file: Path, size: tuple[int, int]) -> np.ndarray:
    """Intrinsics [3,3] in pixels of :func:`fitted`, from those in shares of width and height."""
    with Image.open(file) as opened:
        width, height = opened.size
    crop = centre_crop((height, width), size)
    return crop.intrinsics(np.diag([width, height, 1.0]) @ shares)
