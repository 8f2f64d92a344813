"""``--fill``, ``--scene`` and ``--warp-settings``: how warps are rendered, beside what the model
says of itself.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal

from flythrough.engine.words import NO, YES
from flythrough.errors import InputError
from flythrough.scene.settings import SceneKind, WarpSettings

Fill = Literal["mean", "black"]
"""What unseen pixels of a warp show: the photo's mean colour, or black."""

_FILLS = {"mean": "mean_first_frame", "black": "black"}
_OF_DRAWN_MESHES = (
    *("render_mode", "fill_radius", "fill_min_neighbors"),
    *("samples_per_axis", "older_samples_per_axis", "keyframes"),
)
_IDLE: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("mesh_break", "none", ("depth_rtol", "normal_tol_deg")),
    ("render_mode", "splat", ("fill_radius", "fill_min_neighbors")),
    ("fill_radius", "0", ("fill_min_neighbors",)),
    ("memory", "mesh", ("gaussian_steps",)),
    ("memory", "gaussian", _OF_DRAWN_MESHES),
    ("memory", "points", (*_OF_DRAWN_MESHES, "gaussian_steps")),
    (
        "memory",
        "none",
        (
            *(*_OF_DRAWN_MESHES, "gaussian_steps", "mesh_break", "depth_rtol", "normal_tol_deg"),
            *("top_fill", "older_keyframes", "estimation"),
        ),
    ),
)
"""Settings without effect while another one has a certain value."""
_OF_LATER_KEYFRAMES = ("older_samples_per_axis", "keyframes", "older_keyframes", "estimation")


def chosen_warp_settings(
    fill: Fill | None,
    scene: SceneKind | None,
    text: str | None,
    own: Mapping[str, Any],
    photo_only: bool,
) -> dict[str, Any]:
    """Settings of the warp by name, as the user gave them.

    Args:
        text: ``NAME=VALUE,...`` with names of :class:`WarpSettings`.
        own: what the model sets.
        photo_only: no frame but the photo is remembered.

    Raises:
        InputError: an unknown name, a value of the wrong kind or out of range, a name given twice,
            or a setting without effect.
    """
    if fill is not None and fill not in _FILLS:
        raise InputError(f"--fill {fill} is unknown; choose {' or '.join(_FILLS)}.")
    chosen = {} if text is None else _parsed(text)
    if fill is not None:
        if "fill" in chosen:
            raise InputError(
                f"--fill {fill} and fill in --warp-settings were both given; keep one of them."
            )
        chosen["fill"] = _FILLS[fill]
    if scene is not None:
        if "memory" in chosen:
            raise InputError(
                f"--scene {scene} and memory in --warp-settings were both given; keep one."
            )
        chosen["memory"] = scene
    settings = WarpSettings(**{**own, **chosen})
    for name, value, idle in _IDLE:
        for other in idle:
            if other in chosen and str(getattr(settings, name)) == value:
                raise _without_effect(other, f"while {name} is {value}")
    for name in _OF_LATER_KEYFRAMES:
        if photo_only and name in chosen:
            raise _without_effect(name, "since depth of the photo alone was given")
    return chosen


def _parsed(text: str) -> dict[str, Any]:
    defaults = {field.name: field.default for field in fields(WarpSettings)}
    found: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        name = name.replace("-", "_")
        if not equals or name not in defaults:
            raise InputError(
                f"--warp-settings {part.strip()!r} is no NAME=VALUE with a known name; the names "
                f"are {', '.join(defaults)}."
            )
        if name in found:
            raise InputError(f"--warp-settings gives {name} twice; keep one of them.")
        found[name] = _value(name, value, defaults[name])
    return found


def _value(name: str, text: str, default: Any) -> Any:
    if isinstance(default, bool):
        if text.lower() not in YES + NO:
            raise InputError(f"--warp-settings {name}={text} must be yes or no; correct it.")
        return text.lower() in YES
    if isinstance(default, str):
        return text.replace("-", "_")
    kind = type(default)
    try:
        return kind(text)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise InputError(f"--warp-settings {name}={text} must be {wanted}; correct it.") from None


def _without_effect(name: str, why: str) -> InputError:
    return InputError(f"--warp-settings {name} has no effect {why}; drop it.")
