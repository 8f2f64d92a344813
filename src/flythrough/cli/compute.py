"""The switches ``--fast``, ``--compile`` and ``--precision`` as one word of the engine, and the
codec's precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flythrough.cli.groups import HARDWARE
from flythrough.engine.words import CodecPrecision, Precision
from flythrough.errors import InputError

if TYPE_CHECKING:
    from flythrough.engine.words import Compute

Fast = Annotated[
    bool | None,
    Parameter(
        group=HARDWARE, help="The denoiser's fast path; default: on CUDA GPUs, not elsewhere."
    ),
]
Compiled = Annotated[
    bool,
    Parameter(
        group=HARDWARE, name="--compile", negative="", help="Its kernels from torch.compile."
    ),
]
PrecisionOption = Annotated[
    Precision,
    Parameter(
        group=HARDWARE,
        help="fp8: 8-bit products, faster, less memory, less exact; fp8-all: attention too "
        "(Hopper GPUs with the extra 'hopper').",
    ),
]

CodecType = Annotated[
    CodecPrecision,
    Parameter(
        group=HARDWARE,
        help="Of the video codec; auto: fp16 on CUDA GPUs (fp32 with --no-fast), else fp32.",
    ),
]


def chosen_compute(fast: bool | None, compiled: bool, precision: Precision) -> Compute:
    """The engine's word for three switches.

    Raises:
        InputError: switches that rule each other out.
    """
    if fast is False and (compiled or precision != "full"):
        given = "--compile" if compiled else f"--precision {precision}"
        raise InputError(f"{given} has no effect with --no-fast; drop one of them.")
    if compiled and precision != "full":
        raise InputError(f"--compile has no effect with --precision {precision}; drop one of them.")
    if precision != "full":
        return precision
    if compiled:
        return "compiled"
    return "auto" if fast is None else "fast" if fast else "plain"
