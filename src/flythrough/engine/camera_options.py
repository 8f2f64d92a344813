"""Options of the camera method: checked, completed by a preset, and turned into the settings that
a rollout keeps. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from flythrough.engine.files import is_network
from flythrough.engine.geometry_source import estimates_anything, streaming_folder
from flythrough.engine.presets import FAST_CODEC, PRESETS, Preset, PresetName, WarpBand
from flythrough.engine.warp_options import chosen_warp_settings
from flythrough.errors import InputError
from flythrough.models.adapter_origin import adapter_origin
from flythrough.scene.settings import SceneKind, WarpSettings

if TYPE_CHECKING:
    from flythrough.engine.request import GenerateRequest
    from flythrough.models.catalog import ModelFolder
    from flythrough.rollout.spec import Method


@dataclass(frozen=True)
class CameraRecipe:
    """The request as a preset completed it, settings to keep with the rollout, and notes."""

    request: GenerateRequest
    settings: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def camera_recipe(request: GenerateRequest, method: Method, model: ModelFolder) -> CameraRecipe:
    """What the switches of the camera method amount to.

    Raises:
        InputError: a value out of range, or a switch without effect.
        WeightsError: the adapter was trained for a model of another size or for another band.
    """
    _check_values(request)
    if request.scene == "none" and method != "worldwarp":
        raise InputError(
            f"--scene none has no effect with method {method}, whose camera is told by what is "
            "rendered; drop it or use --method worldwarp."
        )
    given = [name for name, _ in _given(request)]
    if method == "worldwarp":
        if given:
            raise InputError(
                f"{given[0]} has no effect with method worldwarp; drop it or use --method "
                "warp-as-history."
            )
        return CameraRecipe(request, _scene_settings(request, model))
    if method != "warp-as-history":
        given += [name for name, _ in _given_for_warps(request)]
        if given:
            raise InputError(
                f"{given[0]} has no effect without a camera (method {method}); drop it or give "
                "--camera."
            )
        return CameraRecipe(request)
    if request.visible_threshold is not None and not request.select:
        raise InputError(
            f"--visible-threshold {request.visible_threshold:g} has no effect with --no-select, "
            "which keeps all tokens; drop one of the two."
        )
    for option, _ in _given_for_warps(request) if request.warp is not None else ():
        raise InputError(f"{option} has no effect on a pre-rendered --warp; drop it.")
    scene = _scene_settings(request, model)
    preset = None if request.preset is None else PRESETS[request.preset]
    settings: dict[str, Any] = {"align": request.align, "select": request.select}
    notes: list[str] = []
    if preset is not None:
        request, more, note = _completed(request, preset, model, scene)
        settings |= more
        notes.append(note)
    settings |= scene
    band: WarpBand = request.warp_band or "short"
    settings["warp_band"] = mode = band.replace("-", "_")
    if request.visible_threshold is not None:
        settings["visible_threshold"] = request.visible_threshold
    check_adapter(request.lora, model, mode)
    return CameraRecipe(request, settings, tuple(notes))


def _scene_settings(request: GenerateRequest, model: ModelFolder) -> dict[str, Any]:
    """What the user said of the scene memory and its warps, as settings of the rollout."""
    photo_only = not estimates_anything(request.geometry)
    own = model.defaults.warp
    chosen = chosen_warp_settings(
        request.fill, request.scene, request.warp_settings, own, photo_only
    )
    return {f"warp.{name}": value for name, value in chosen.items()}


def _given(request: GenerateRequest) -> Iterator[tuple[str, object]]:
    """Switches of the camera method that differ from the default, as on the command line."""
    if request.preset is not None:
        yield f"--preset {request.preset}", request.preset
    if request.warp_band is not None:
        yield f"--warp-band {request.warp_band}", request.warp_band
    if request.visible_threshold is not None:
        yield f"--visible-threshold {request.visible_threshold:g}", request.visible_threshold
    if not request.align:
        yield "--no-align", False
    if not request.select:
        yield "--no-select", False


def _given_for_warps(request: GenerateRequest) -> Iterator[tuple[str, object]]:
    if request.scene is not None:
        yield f"--scene {request.scene}", request.scene
    if request.fill is not None:
        yield f"--fill {request.fill}", request.fill
    if request.warp_settings is not None:
        yield f"--warp-settings {request.warp_settings}", request.warp_settings


def _check_values(request: GenerateRequest) -> None:
    threshold = request.visible_threshold
    if threshold is not None and not (math.isfinite(threshold) and 0 <= threshold <= 1):
        raise InputError(
            f"--visible-threshold {threshold:g} is out of range; give 0 to 1, the share of a "
            "token's area that must have been seen."
        )
    words = (
        ("--preset", request.preset, PresetName),
        ("--warp-band", request.warp_band, WarpBand),
        ("--scene", request.scene, SceneKind),
    )
    for option, value, choices in words:
        if value is not None and value not in get_args(choices):
            raise InputError(
                f"{option} {value} is unknown; choose {' or '.join(get_args(choices))}."
            )


def _completed(
    request: GenerateRequest, preset: Preset, model: ModelFolder, scene: dict[str, Any]
) -> tuple[GenerateRequest, dict[str, Any], str]:
    """The preset where nothing was given, its settings, and what to tell the user."""
    if not model.distilled or len(model.defaults.steps) != len(preset.steps):
        raise InputError(
            f"--preset {request.preset} is made for distilled models of {len(preset.steps)} "
            f"pyramid stages, which {model.name} is not; drop it or choose another --model."
        )
    settings: dict[str, Any] = {"amplify_first_chunk": preset.amplify_first_chunk}
    said, kept = [], []
    if request.steps is None:
        request = replace(request, steps=preset.steps)
        said.append(f"--steps {','.join(map(str, preset.steps))}")
    else:
        kept.append("--steps")
    if not preset.amplify_first_chunk:
        said.append("no extra steps in the first chunk")
    if request.warp_band is not None:
        kept.append("--warp-band")
    else:
        request, words = _with_band(request, preset.warp_band, model)
        said.append(words)
    if request.visible_threshold is not None:
        kept.append("--visible-threshold")
    elif not request.select:
        kept.append("--no-select")
    else:
        request = replace(request, visible_threshold=preset.visible_threshold)
        said.append(f"--visible-threshold {preset.visible_threshold:g}")
    if "warp.samples_per_axis" in scene:
        kept.append("samples_per_axis")
    if request.warp is None:
        rendering, more = _quick_warps(request, preset, model, scene)
        settings |= rendering
        said += more
    if preset.fast_codec:
        said.append(_codec_words(model, settings))
    note = f"preset {request.preset}: {', '.join(said)}"
    return request, settings, f"{note}; as given: {', '.join(kept)}." if kept else f"{note}."


def _quick_warps(
    request: GenerateRequest, preset: Preset, model: ModelFolder, scene: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Settings of the preset for rendering warps where ``scene`` has none, and words for each."""
    settings: dict[str, Any] = {}
    words = []
    own = {f"warp.{name}": value for name, value in model.defaults.warp.items()} | scene
    if own.get("warp.memory", "mesh") == "mesh" and "warp.samples_per_axis" not in scene:
        usual = int(own.get("warp.samples_per_axis", WarpSettings().samples_per_axis))
        samples = min(usual, preset.samples_per_axis)
        settings["warp.samples_per_axis"] = samples
        words.append(f"{samples} mesh samples per axis")
    if is_network(request.geometry) and streaming_folder(request.geometry, model) is None:
        settings["geometry_pixel_limit"] = preset.pixel_limit
        words.append(f"geometry from at most {preset.pixel_limit} pixels")
    return settings, words


def _codec_words(model: ModelFolder, settings: dict[str, Any]) -> str:
    """Choose the fast codec if there is one."""
    if model.fast_codec is not None:
        settings["codec"] = FAST_CODEC
        return "the TAEHV codec"
    if model.codec_is_fast:
        return "the model's own codec, which is a TAEHV"
    return f"the model's own codec (its folder has no {FAST_CODEC})"


def _with_band(
    request: GenerateRequest, band: WarpBand, model: ModelFolder
) -> tuple[GenerateRequest, str]:
    """The preset's band, unless the adapter in use says that it was trained for another one:
    without an adapter that reads the band, the camera is hardly followed."""
    mode = band.replace("-", "_")
    path = model.camera_adapter(mode) if request.lora == "default" else Path(request.lora)
    if request.lora == "off" or path is None or adapter_origin(path).suits(mode):
        return replace(request, warp_band=band), f"--warp-band {band}"
    return request, f"no adapter for --warp-band {band}, so the warp stays in short"


def has_adapter(request: GenerateRequest, method: Method, model: ModelFolder, mode: str) -> bool:
    """Whether an adapter will be active: one that was named, or the camera's own for the band."""
    if request.lora != "default":
        return request.lora != "off"
    path = model.camera_adapter(mode) if method == "warp-as-history" else None
    return path is not None and adapter_origin(path).suits(mode)


def check_adapter(lora: str, model: ModelFolder, mode: str) -> None:
    """Hold the camera's adapter against the model and the band. A shipped adapter for another band
    is left out later, and announced; one that was asked for is refused.

    Raises:
        InputError: it was trained for something else.
    """
    if lora == "off":
        return
    path = model.camera_adapter(mode) if lora == "default" else Path(lora)
    if path is None:
        return
    origin = adapter_origin(path)
    origin.check_base(model)
    if lora != "default":
        origin.check_band(mode)
