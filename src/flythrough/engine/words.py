"""Options whose value is a small notation or a word of a list; every entrance reads them the same
way. Imports neither torch nor numpy."""

from __future__ import annotations

import re
from typing import Literal

from flythrough.errors import InputError

Compute = Literal["auto", "plain", "fast", "compiled", "fp8", "fp8-all"]
"""The denoiser's path (``engine.acceleration``); auto is fast on CUDA GPUs, plain elsewhere;
fp8 has products in 8 bits, fp8-all self attention too."""
EIGHT_BITS: tuple[Compute, ...] = ("fp8", "fp8-all")
Precision = Literal["full", "fp8", "fp8-all"]
"""What the denoiser's products, and self attention, are computed in; full is the model's own."""
CodecPrecision = Literal["auto", "fp32", "bf16", "fp16"]
"""What the video codec computes in; auto is fp16 on CUDA GPUs, fp32 elsewhere and with ``plain``
(``engine.acceleration.codec_dtype``)."""
MemoryChoice = Literal["auto", "resident", "drop-text", "offload"]
"""Where weights lie (``models.loading.Placement``), or ``auto``: the first placement that fits."""
NoiseField = Literal["both", "spatial", "temporal", "uniform"]
"""What noise levels of method worldwarp depend on (``conditioning.noise_field.Variation``)."""


YES, NO = ("yes", "true", "on", "1"), ("no", "false", "off", "0")


def parse_size(text: str | None) -> tuple[int, int] | None:
    """``192x320`` -> (192, 320): height by width, as everywhere in Flythrough.

    Raises:
        InputError: another form.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)\s*[xX×]\s*(\d+)", text.strip())
    if match is None:
        raise InputError(f"--size {text!r} is not HEIGHTxWIDTH; write it like 192x320.")
    return int(match[1]), int(match[2])


def parse_steps(text: str | None) -> tuple[int, ...] | None:
    """``2,2,2`` -> (2, 2, 2): sampling steps per pyramid stage, coarse to fine.

    Raises:
        InputError: another form.
    """
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.replace(",", " ").split())
    except ValueError:
        raise InputError(
            f"--steps {text!r} is not a list of counts; write it like 2,2,2."
        ) from None
