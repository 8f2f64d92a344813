"""Which paths denoiser and codec take: plain, or the fast ones over the same weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from flythrough.engine.options import check_codec_precision, check_compute
from flythrough.engine.words import EIGHT_BITS, CodecPrecision, Compute
from flythrough.errors import InputError
from flythrough.models.fast import st_diff
from flythrough.models.fast.attention import has_flash3
from flythrough.models.fast.denoiser import FastDenoiser, why_not
from flythrough.models.fast.fp8 import quantise_blocks
from flythrough.models.fast.settings import FastSettings
from flythrough.models.fast.wan_codec import FastWanCodec
from flythrough.models.fast.wan_network import why_not_codec
from flythrough.models.helios import HeliosTransformer
from flythrough.models.loading import LoadedModel, LoadedStDiff
from flythrough.models.placing import ElsewhereCodec, VisitingCodec
from flythrough.models.st_diff import StDiff
from flythrough.models.wan_codec import Codec, WanCodec

Notify = Callable[[str], None]
MakeFast = Callable[[HeliosTransformer, FastSettings], FastDenoiser]

_FP8_CAPABILITY = (8, 9)


def accelerated(
    model: LoadedModel,
    compute: Compute,
    notify: Notify,
    make: MakeFast = FastDenoiser,
) -> LoadedModel:
    """``model`` with the denoiser that ``compute`` asks for; call it once adapters are attached.

    ``auto`` is the fast path on CUDA GPUs and the plain one elsewhere. ``fp8`` and ``fp8-all`` give
    the large weights up in place. ``make`` builds the fast path, and where it shares its work with
    other GPUs nothing else will do.

    Raises:
        InputError: the choice cannot be had with this model, placement or device.
    """
    check_compute(compute, model.device.type)
    alone = make is FastDenoiser
    if compute == "plain" or (alone and compute == "auto" and model.device.type != "cuda"):
        return replace(model, fast=None)
    reason = why_not(model.transformer)
    if model.streamed:
        reason = "its layers are streamed from host memory"
    if reason is not None:
        if not alone:
            raise InputError(
                f"--gpus needs the fast path, which cannot run this denoiser because {reason}; "
                "drop --gpus."
            )
        _take_plain(compute, reason, notify)
        return replace(model, fast=None)
    fast = fast_denoiser(
        model.transformer, compute, model.device, notify, make, graphs=model.records
    )
    return replace(model, fast=fast)


def fast_denoiser(
    transformer: HeliosTransformer,
    compute: Compute,
    device: torch.device,
    notify: Notify,
    make: MakeFast = FastDenoiser,
    *,
    graphs: bool = False,
) -> FastDenoiser:
    """The fast path over ``transformer``, in 8 bits if asked for: it then comes to ``device``
    without ever lying there in full precision. ``graphs``: with recorded calls.

    Raises:
        InputError: a GPU without 8-bit products, or without 8-bit attention.
    """
    if compute in EIGHT_BITS:
        _make_eight_bits(transformer, compute, device, notify)
    return make(transformer, _settings(compute, graphs=graphs))


def codec_dtype(asked: CodecPrecision, compute: Compute, device: torch.device) -> torch.dtype:
    """What the video codec computes in on ``device``; the plain path has the plain codec.

    Raises:
        InputError: half precision where there is no CUDA GPU.
    """
    check_codec_precision(asked, device.type)
    if asked == "auto":
        asked = "fp16" if device.type == "cuda" and compute != "plain" else "fp32"
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[asked]


def announce_plain_codec(codec: Codec, notify: Notify) -> None:
    """Say where a codec in half precision runs diffusers' layers after all."""
    inner = codec.codec if isinstance(codec, ElsewhereCodec | VisitingCodec) else codec
    if not isinstance(inner, WanCodec) or isinstance(inner, FastWanCodec):
        return
    if inner.dtype != torch.float32:
        notify(f"the video codec takes the plain path, because {why_not_codec(inner.net)}.")


def accelerated_st_diff(model: LoadedStDiff, compute: Compute, notify: Notify) -> LoadedStDiff:
    """:func:`accelerated` for a WorldWarp model.

    Raises:
        InputError: the choice cannot be had with this model, placement or device.
    """
    check_compute(compute, model.device.type)
    if compute == "plain" or (compute == "auto" and model.device.type != "cuda"):
        return replace(model, fast=None)
    reason = st_diff.why_not(model.transformer)
    if model.streamed:
        reason = "its layers are streamed from host memory"
    if reason is not None:
        _take_plain(compute, reason, notify)
        return replace(model, fast=None)
    if compute in EIGHT_BITS:
        _make_eight_bits(model.transformer, compute, model.device, notify)
    return replace(model, fast=st_diff.FastStDiff(model.transformer, _settings(compute)))


def _settings(compute: Compute, *, graphs: bool = False) -> FastSettings:
    return FastSettings(
        graphs=graphs,
        kernels="compiled" if compute == "compiled" else "auto",
        attention="flash8" if compute == "fp8-all" else "auto",
    )


def _take_plain(compute: Compute, reason: str, notify: Notify) -> None:
    """Say why the plain path is taken, unless a fast one was asked for by name."""
    if compute != "auto":
        raise InputError(
            f"The fast path ({compute}) cannot run this denoiser because {reason}; use --no-fast."
        )
    notify(f"the denoiser takes the plain path, because {reason}.")


def _make_eight_bits(
    net: HeliosTransformer | StDiff, compute: Compute, device: torch.device, notify: Notify
) -> None:
    """Quantise ``net`` on its way to ``device``; nothing changes where that was done before."""
    check_eight_bits(compute, device)
    if device.type != "cuda":
        notify(f"{device} has no 8-bit products: they are imitated, slower than full precision.")
    quantise_blocks(net.blocks, device)
    torch.nn.Module.to(net, device)


def check_eight_bits(compute: Compute, device: torch.device) -> None:
    """Refuse 8 bits that ``device`` does not have; one that is no CUDA GPU imitates them.

    Raises:
        InputError: a GPU without 8-bit products, or without 8-bit attention.
    """
    if compute not in EIGHT_BITS or device.type != "cuda":
        return
    found = torch.cuda.get_device_capability(device)
    if found < _FP8_CAPABILITY:
        raise InputError(
            f"--precision {compute} needs a GPU of compute capability 8.9 or more, and this one "
            f"has {found[0]}.{found[1]}; drop it."
        )
    if compute == "fp8-all" and not has_flash3(device):
        raise InputError(
            "--precision fp8-all needs a Hopper GPU (compute capability 9.x) and FlashAttention 3 "
            "for attention in 8 bits; install it with pip install 'flythrough[hopper]', or use "
            "--precision fp8."
        )
