"""Settings that a rollout keeps, checked when it is read back. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, get_args

from flythrough.engine.presets import FAST_CODEC
from flythrough.engine.words import NoiseField
from flythrough.errors import InputError, RolloutError
from flythrough.models.adapter_origin import BANDS
from flythrough.rollout.spec import Anchor, RolloutSpec, Seams
from flythrough.scene.settings import WarpSettings

_WARP = "warp."
Rule = Callable[[Any], bool]


def warp_settings(spec: RolloutSpec) -> WarpSettings:
    """How the warps of a rollout are rendered: its settings ``warp.*``.

    Raises:
        RolloutError: an unknown name, or a value of the wrong kind or out of range.
    """
    stored = spec.settings
    chosen = {name.removeprefix(_WARP): stored[name] for name in stored if name.startswith(_WARP)}
    defaults = {field.name: field.default for field in fields(WarpSettings)}
    for name, value in chosen.items():
        if name not in defaults:
            raise _unusable(_WARP + name, value, "is unknown")
        if not _alike(value, defaults[name]):
            raise _unusable(_WARP + name, value, "is of the wrong kind")
    try:
        return WarpSettings(**chosen)
    except InputError as error:
        sentence = str(error).partition(";")[0]
        raise RolloutError(
            f"The rollout's settings cannot be used: {sentence[:1].lower()}{sentence[1:]}; restore "
            "rollout.json from a copy or start a new rollout."
        ) from error


def check_settings(spec: RolloutSpec) -> None:
    """Refuse stored settings that no Flythrough of this version wrote.

    Raises:
        RolloutError: which one, and what is wrong with it.
    """
    if spec.method == "worldwarp":
        known = _WORLDWARP
        _check(spec.settings, known, needed=tuple(k for k in known if k not in _OPTIONAL))
        if "captioner" in spec.settings and spec.settings["blend_chunks"]:
            raise RolloutError(
                f"The rollout's setting blend_chunks = {spec.settings['blend_chunks']} does not go "
                "with its captioner, whose words change with every chunk; start a new rollout "
                "without --caption or without --blend-chunks."
            )
        warp_settings(spec)
    else:
        _check(spec.settings, _ANY, needed=("steps", "guidance", "anchor"))
        known = _ANY
    if spec.method == "warp-as-history":
        _check(spec.settings, _CAMERA, needed=("visible_threshold", "warp_stages"))
        warp_settings(spec)
        known = _ANY | _CAMERA
    for name, value in spec.settings.items():
        if name not in known and not name.startswith(_WARP):
            raise _unusable(name, value, "is unknown")


def _check(settings: Mapping[str, Any], rules: Mapping[str, Rule], needed: tuple[str, ...]) -> None:
    for name in needed:
        if name not in settings:
            raise RolloutError(
                f"The rollout's settings lack {name}; restore rollout.json from a copy or start a "
                "new rollout."
            )
    for name, fits in rules.items():
        if name in settings and not fits(settings[name]):
            raise _unusable(name, settings[name], "is of the wrong kind or out of range")


def _unusable(name: str, value: Any, fault: str) -> RolloutError:
    return RolloutError(
        f"The rollout's setting {name} = {value!r} {fault}; restore rollout.json from a copy or "
        "start a new rollout."
    )


def _alike(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    return isinstance(value, type(default))


def _number(low: float, high: float) -> Rule:
    def fits(value: Any) -> bool:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and math.isfinite(value) and low <= value <= high

    return fits


def _whole(low: int, high: int) -> Rule:
    return lambda value: isinstance(value, int) and _number(low, high)(value)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _steps(value: Any) -> bool:
    return isinstance(value, tuple) and bool(value) and all(_whole(1, 1000)(n) for n in value)


_ANY: dict[str, Rule] = {
    "steps": _steps,
    "guidance": _number(0, 100),
    "anchor": lambda value: value in get_args(Anchor),
    "seams": lambda value: value in get_args(Seams),
    "blend_chunks": _whole(0, 100),
    "lora_scale": _number(-4, 4),
    "amplify_first_chunk": _flag,
    "condition_noise": _flag,
    "zero_star": _flag,
    "zero_steps": _whole(0, 1000),
    "geometry_digest": lambda value: isinstance(value, str),
    "lora_digest": lambda value: isinstance(value, str),
}
_CAMERA: dict[str, Rule] = {
    "visible_threshold": _number(0, 1),
    "warp_stages": _whole(0, 100),
    "align": _flag,
    "select": _flag,
    "warp_band": lambda value: value in BANDS,
    "codec": lambda value: value == FAST_CODEC,
    "style_lora": lambda value: isinstance(value, str),
    "style_lora_digest": lambda value: isinstance(value, str),
    "style_scale": _number(-4, 4),
    "geometry_pixel_limit": lambda value: value is None or _whole(1, 1 << 40)(value),
}
_WORLDWARP: dict[str, Rule] = {
    "steps": lambda value: _steps(value) and len(value) == 1,
    "guidance": _number(1, 100),
    "blend_chunks": _whole(0, 100),
    "chunk_frames": _whole(5, 1001),
    "overlap": _whole(1, 1001),
    "strength": _number(0, 1),
    "erosion": lambda value: _whole(1, 255)(value) and value % 2 == 1,
    "shift": _number(0.01, 100),
    "geometry_digest": lambda value: isinstance(value, str),
    "noise_field": lambda value: value in get_args(NoiseField),
    "captioner": lambda value: isinstance(value, str),
}
_OPTIONAL = ("geometry_digest", "noise_field", "captioner")
