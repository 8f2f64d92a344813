"""What a renderer has to give, and how its package is found."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np

from flythrough.errors import InputError

EXTRA = 'pip install "flythrough[renderers]"'


@dataclass(frozen=True, eq=False)
class Views:
    """A scene from T cameras.

    Attributes:
        rgb: uint8 [T,H,W,3].
        depth: float32 [T,H,W] z-depth in the scene's unit, 0 for sky.
        world_from_camera: float64 [T,4,4], OpenCV axes, relative to the scene's own first camera:
            where the cameras really stood, which a game may not let one choose exactly.
        known: bool [T,H,W], where depth can be trusted; everywhere if None.
    """

    rgb: np.ndarray
    depth: np.ndarray
    world_from_camera: np.ndarray
    known: np.ndarray | None = None


class Renderer(Protocol):
    """Scenes of one package."""

    def views(
        self,
        scene: str,
        seed: int,
        world_from_camera: np.ndarray,
        intrinsics: np.ndarray,
        size: tuple[int, int],
    ) -> Views:
        """Render a scene from cameras [T,4,4] relative to its first one (the identity).

        Args:
            scene: one of the renderer's names; ``seed`` varies it.
            intrinsics: [3,3] in pixels of ``size`` (height, width), centred, square pixels.

        Raises:
            InputError: an unknown scene, or cameras that the renderer cannot take up.
        """
        ...


def package(name: str, title: str, distribution: str | None = None) -> Any:
    """The Python package of a renderer; ``distribution`` is what to install where the names differ.

    Raises:
        InputError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError:
        raise InputError(
            f"The renderer {title} is not installed; run: {EXTRA} (or pip install "
            f"{distribution or name})."
        ) from None


def vertical_angle(intrinsics: np.ndarray, height: int) -> float:
    """Vertical field of view in degrees."""
    return 2 * math.degrees(math.atan(height / 2 / float(intrinsics[1, 1])))


def chosen_scene(scene: str, scenes: dict[str, Any] | tuple[str, ...], title: str) -> None:
    """Refuse a scene that there is not.

    Raises:
        InputError: unknown.
    """
    if scene not in scenes:
        raise InputError(
            f"{title} has no scene {scene!r}; choose among {', '.join(sorted(scenes))}."
        )


def best_heading(shown: Callable[[int], tuple[np.ndarray, np.ndarray]], headings: int = 8) -> int:
    """Of some headings the one with most to see: far, and with much fine structure.

    ``shown`` gives picture uint8 [H,W,3] and depth [H,W] of a heading by its number.
    """
    worth = []
    for number in range(headings):
        picture, depth = shown(number)
        steps = np.abs(np.diff(picture.mean(-1), axis=1))
        worth.append(float((steps > 4).mean()) * float(np.median(depth)) ** 0.5)
    return int(np.argmax(worth))
