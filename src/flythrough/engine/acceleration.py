"""Which path the denoiser takes: plain, or the fast one over the same weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from flythrough.engine.options import check_compute
from flythrough.engine.words import Compute
from flythrough.errors import InputError
from flythrough.models.fast import st_diff
from flythrough.models.fast.denoiser import FastDenoiser, is_fp8, why_not
from flythrough.models.fast.fp8 import quantise_blocks
from flythrough.models.fast.settings import FastSettings
from flythrough.models.loading import LoadedModel, LoadedStDiff

_FP8_CAPABILITY = (8, 9)


def accelerated(model: LoadedModel, compute: Compute, notify: Callable[[str], None]) -> LoadedModel:
    """``model`` with the denoiser that ``compute`` asks for; call it once adapters are attached.

    ``auto`` is the fast path on CUDA GPUs and the plain one elsewhere. ``fp8`` gives the large
    weights up in place.

    Raises:
        InputError: the choice cannot be had with this model, placement or device.
    """
    check_compute(compute, model.device.type)
    if compute == "plain" or (compute == "auto" and model.device.type != "cuda"):
        return replace(model, fast=None)
    reason = why_not(model.transformer)
    if model.streamed:
        reason = "its layers are streamed from host memory"
    if reason is not None:
        if compute != "auto":
            raise InputError(
                f"The fast path ({compute}) cannot run this denoiser because {reason}; use "
                "--no-fast."
            )
        notify(f"the denoiser takes the plain path, because {reason}.")
        return replace(model, fast=None)
    if compute == "fp8":
        _check_fp8(model.device, notify)
        if not is_fp8(model.transformer):
            quantise_blocks(model.transformer.blocks)
            if model.device.type == "cuda":
                torch.cuda.empty_cache()
    kernels = FastSettings(kernels="compiled" if compute == "compiled" else "auto")
    return replace(model, fast=FastDenoiser(model.transformer, kernels))


def accelerated_st_diff(
    model: LoadedStDiff, compute: Compute, notify: Callable[[str], None]
) -> LoadedStDiff:
    """:func:`accelerated` for a WorldWarp model, whose ``auto`` is the plain path everywhere.

    Raises:
        InputError: the choice cannot be had with this model, placement or device.
    """
    check_compute(compute, model.device.type)
    if compute in ("auto", "plain"):
        return replace(model, fast=None)
    reason = st_diff.why_not(model.transformer)
    if model.streamed:
        reason = "its layers are streamed from host memory"
    if reason is not None:
        raise InputError(
            f"The fast path ({compute}) cannot run this denoiser because {reason}; use --no-fast."
        )
    if compute == "fp8":
        _check_fp8(model.device, notify)
        quantise_blocks(model.transformer.blocks)
    kernels = FastSettings(kernels="compiled" if compute == "compiled" else "auto")
    return replace(model, fast=st_diff.FastStDiff(model.transformer, kernels))


def _check_fp8(device: torch.device, notify: Callable[[str], None]) -> None:
    if device.type != "cuda":
        notify(f"{device} has no 8-bit products: they are imitated, slower than full precision.")
        return
    found = torch.cuda.get_device_capability(device)
    if found < _FP8_CAPABILITY:
        raise InputError(
            f"--precision fp8 needs a GPU of compute capability 8.9 or more, and this one has "
            f"{found[0]}.{found[1]}; drop it."
        )
