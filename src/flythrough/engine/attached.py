"""The adapters of a rollout: which files, under which name, with which weight."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flythrough.generators.warp_as_history import CAMERA_ADAPTER
from flythrough.models.adapter_origin import adapter_origin
from flythrough.models.adapters import attach_lora, attached_loras, detach_lora
from flythrough.models.catalog import ModelFolder
from flythrough.models.helios import HeliosTransformer
from flythrough.models.lora_files import read_lora
from flythrough.rollout.spec import RolloutSpec

STYLE_ADAPTER = "style"
"""Name of the adapter that counts in every stage: the one that method helios is given, or the style
beside a camera's."""


def attach_adapters(
    spec: RolloutSpec,
    folder: ModelFolder,
    transformer: HeliosTransformer,
    notify: Callable[[str], None],
) -> bool:
    """Attach what ``spec`` names to a denoiser that has none; whether there is one for the camera
    (method helios: for the style).

    Raises:
        WeightsError: an adapter that cannot be read or does not fit.
    """
    found = _attach_first(spec, folder, transformer, notify)
    if (style := spec.settings.get("style_lora")) is not None:
        scale = float(spec.settings.get("style_scale", 1.0))
        attach_lora(transformer, read_lora(Path(style)), STYLE_ADAPTER, scale)
    return found


def detach_adapters(transformer: HeliosTransformer) -> None:
    """Remove all adapters."""
    for name in attached_loras(transformer):
        detach_lora(transformer, name)


def _attach_first(
    spec: RolloutSpec,
    folder: ModelFolder,
    transformer: HeliosTransformer,
    notify: Callable[[str], None],
) -> bool:
    """The adapter of the camera, or of style for method helios."""
    styled = spec.method == "helios"
    if spec.lora == "off" or (styled and spec.lora == "default"):
        return False
    band = str(spec.settings.get("warp_band", "short"))
    if spec.lora == "default":
        path = folder.camera_adapter(band)
        if path is None:
            notify(f"the model {folder.name} ships no camera adapter: running zero-shot.")
            return False
    else:
        path = Path(spec.lora)
    if not styled:
        origin = adapter_origin(path)
        origin.check_base(folder)
        if spec.lora == "default" and not origin.suits(band):
            notify(
                f"the camera adapter of {folder.name} was not trained for --warp-band "
                f"{band.replace('_', '-')} and is left out: the camera is followed less."
            )
            return False
    scale = float(spec.settings.get("lora_scale", 1.0))
    name = STYLE_ADAPTER if styled else CAMERA_ADAPTER
    attach_lora(transformer, read_lora(path), name, scale)
    return True
