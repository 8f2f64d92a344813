"""Names in published LoRA files: which layouts there are and how they map to our layers.

Read are PEFT (``base_model.model.LAYER.lora_A.weight`` beside ``adapter_config.json``), diffusers
(``transformer.`` before the layer), and kohya (``lora_down``, ``lora_up``, ``alpha``; layers with
dots, or after ``lora_unet_`` with underscores). Layers may have their diffusers names or those of
Wan, from which Helios descends. Imports no torch.
"""

from __future__ import annotations

import re
from pathlib import Path

from flythrough.errors import WeightsError

PEFT_CONFIG = "adapter_config.json"
_PEFT_WEIGHTS = "adapter_model.safetensors"
_DIFFUSERS_WEIGHTS = "pytorch_lora_weights.safetensors"

_PREFIX = re.compile(r"(base_model\.model\.|transformer\.|diffusion_model\.|lora_unet_)*")
_MATRIX = re.compile(r"(?P<layer>.+)\.lora[._](?P<side>A|B|down|up)(\.[^.]+)?\.weight")
_SIDES = {"A": "A", "B": "B", "down": "A", "up": "B"}
_WAN_ATTENTION = re.compile(r"(self|cross)_attn([._])([qkvo])$")
_WAN_FEED_FORWARD = re.compile(r"(ffn)([._])([02])$")


def adapter_files(path: Path) -> tuple[Path, Path | None]:
    """The weights of an adapter and, in the PEFT layout, the configuration that holds its alpha.

    ``path`` is the weights file, or a folder as PEFT or diffusers write it or with one
    .safetensors file.

    Raises:
        WeightsError: a folder without such files.
    """
    if not path.is_dir():
        config = path.with_name(PEFT_CONFIG)
        return path, config if path.name == _PEFT_WEIGHTS and config.is_file() else None
    if (path / _PEFT_WEIGHTS).is_file() and (path / PEFT_CONFIG).is_file():
        return path / _PEFT_WEIGHTS, path / PEFT_CONFIG
    if (path / _DIFFUSERS_WEIGHTS).is_file():
        return path / _DIFFUSERS_WEIGHTS, None
    others = sorted(path.glob("*.safetensors"))
    if len(others) == 1:  # as `flythrough train lora` leaves it
        return others[0], None
    raise WeightsError(
        f"The folder {path} holds no adapter; give one with {PEFT_CONFIG} and {_PEFT_WEIGHTS}, or "
        "a .safetensors file."
    )


def matrix_name(key: str) -> tuple[str, str] | None:
    """(layer, "A" or "B") of the tensor ``key``; None if it is no LoRA matrix."""
    match = _MATRIX.fullmatch(_bare(key))
    return None if match is None else (_our_layer(match["layer"]), _SIDES[match["side"]])


def alpha_name(key: str) -> str | None:
    """The layer whose alpha ``key`` holds; None if it holds none."""
    bare = _bare(key)
    return _our_layer(bare.removesuffix(".alpha")) if bare.endswith(".alpha") else None


def underscored(layer: str) -> str:
    """The form in which layer names of all layouts can be compared."""
    return layer.replace(".", "_")


def _bare(key: str) -> str:
    return _PREFIX.sub("", key, count=1)


def _our_layer(layer: str) -> str:
    """Wan's name of a layer in the form of diffusers', with the separator that it came with."""
    if found := _WAN_ATTENTION.search(layer):
        kind, dot, part = found.groups()
        ours = f"to_out{dot}0" if part == "o" else f"to_{part}"
        return f"{layer[: found.start()]}attn{1 if kind == 'self' else 2}{dot}{ours}"
    if found := _WAN_FEED_FORWARD.search(layer):
        name, dot, part = found.groups()
        return f"{layer[: found.start()]}{dot.join([name, 'net', part, *['proj'][: part == '0']])}"
    return layer
