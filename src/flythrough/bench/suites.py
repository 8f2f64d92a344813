"""The measurements that have a name: ceilings, helios, wah, vae, nano."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from flythrough.bench.ceilings import ATTENTION_TOKENS, attention_ceiling, product_ceiling
from flythrough.bench.chunks import ChunkWork, compilations, make_chunks
from flythrough.bench.clock import median_seconds, peaks, reset_peak
from flythrough.bench.forwards import (
    STAGES,
    latents,
    packed,
    psnr,
    stage_inputs,
    stock_call,
    stock_denoiser,
)
from flythrough.bench.random_model import (
    add_random_adapter,
    random_codec,
    random_denoiser,
    random_model,
    random_wan,
)
from flythrough.bench.rows import Figures, Rows
from flythrough.bench.sizes import Size
from flythrough.models.adapters import set_lora_active
from flythrough.models.fast.attention import has_flash3
from flythrough.models.fast.denoiser import FastDenoiser
from flythrough.models.fast.fp8 import quantise_blocks
from flythrough.models.fast.settings import FastSettings
from flythrough.models.fast.wan_codec import FastWanCodec
from flythrough.models.helios import HeliosTransformer
from flythrough.models.loading import LoadedModel
from flythrough.models.wan_codec import Codec, WanCodec

CAMERA = "camera"
SHARE = 0.86
"""Visible share of the published measurement."""


@dataclass(frozen=True)
class Bench:
    """Where and how rows are measured."""

    rows: Rows
    size: Size
    device: torch.device
    dtype: torch.dtype
    runs: int = 5
    chunks: int = 3

    @property
    def small(self) -> bool:
        return bool(self.size.transformer)

    def denoiser(self) -> HeliosTransformer:
        return random_denoiser(self.size.transformer, self.device, self.dtype)


def ceilings(bench: Bench) -> None:
    """Products and attention at best."""
    side = 256 if bench.small else 8192
    kinds = {str(bench.dtype).removeprefix("torch."): bench.dtype}
    if bench.device.type == "cuda":
        kinds["fp8"] = torch.float8_e4m3fn
    for name, dtype in kinds.items():
        bench.rows.measure(
            f"ceiling product {name}",
            lambda dtype=dtype: product_ceiling(bench.device, dtype, side, 4 * bench.runs),  # type: ignore[misc]
        )
    for tokens in (64,) if bench.small else ATTENTION_TOKENS:
        bench.rows.measure(
            f"ceiling attention {tokens}",
            lambda tokens=tokens: attention_ceiling(  # type: ignore[misc]
                bench.device, bench.dtype, tokens, 40, 128, 2 * bench.runs
            ),
        )


def forwards(
    bench: Bench,
    name: str,
    call: Callable[..., Any],
    net: HeliosTransformer,
    kind: str = "native",
    stages: tuple[int, ...] = (0, 1, 2),
    *,
    embedded: bool = True,
) -> None:
    """A row with the time of one call in each stage, and peak memory."""

    def work() -> Figures:
        found: dict[str, Any] = {}
        reset_peak(bench.device)
        for stage in stages:
            given = stage_inputs(net, bench.size, stage, bench.device, kind)
            if embedded:
                given = packed(net, given)
            with torch.inference_mode():
                median, _, first = median_seconds(
                    lambda given=given: call(**given),  # type: ignore[misc]
                    bench.device,
                    bench.runs,
                    2,
                )
            found[f"{STAGES[stage]}_ms"] = round(1000 * median, 2)
            found[f"{STAGES[stage]}_first_ms"] = round(1000 * first, 1)
        if len(stages) == len(STAGES):
            total = sum(found[f"{stage}_ms"] for stage in STAGES) / 1000
            found["fps_222_without_decode"] = round(33 / (2 * total), 2)
            found["fps_111_without_decode"] = round(33 / total, 2)
        return {**found, **peaks(bench.device)}

    bench.rows.measure(name, work)


def helios(bench: Bench, *, fp8: bool = True) -> None:
    """Forwards of diffusers' transformer, ours plain and fast; whole chunks; then in 8 bits, with
    attention in 8 bits too where the device has it."""
    net = bench.denoiser()
    if find_spec("diffusers") is not None:
        stock: list[Any] = [stock_denoiser(net)]
        forwards(
            bench,
            "forward diffusers",
            lambda **given: stock_call(stock[0], given),
            net,
            embedded=False,
        )
        stock.clear()
    forwards(bench, "forward plain", net, net)
    fast = FastDenoiser(net)
    forwards(bench, "forward fast", fast, net)
    model = replace(random_model(net, bench.size, bench.device), fast=fast)
    for steps in ((2, 2, 2), (1, 1, 1)):
        _chunk_row(bench, f"helios {list(steps)}", model, ChunkWork(steps, chunks=bench.chunks))
    if fp8:
        eight_bits(bench, net, model)


def eight_bits(bench: Bench, net: HeliosTransformer, model: LoadedModel) -> None:
    """Latents of two chunks in full precision, then everything again in 8 bits, and their PSNR."""
    work = ChunkWork((2, 2, 2), chunks=1)
    wanted = torch.from_numpy(make_chunks(model, bench.size, work)[1].latents())
    if model.fast is not None:
        model.fast.forget()  # it holds the weights that are given up now
    quantise_blocks(net.blocks)
    for word, settings in eight_bit_settings(bench.device).items():
        fast = FastDenoiser(net, settings)
        model = replace(model, fast=fast)
        forwards(bench, f"forward fast {word}", fast, net)

        def quality(model: LoadedModel = model) -> Figures:
            found = torch.from_numpy(make_chunks(model, bench.size, work)[1].latents())
            first, both = psnr(found[:, :9], wanted[:, :9]), psnr(found, wanted)
            return {"latent_psnr_db": round(first, 2), "second_chunk_db": round(both, 2)}

        bench.rows.measure(f"{word} against full precision, random weights", quality)
        for steps in ((2, 2, 2), (1, 1, 1)):
            one = ChunkWork(steps, chunks=bench.chunks)
            _chunk_row(bench, f"helios {list(steps)} {word}", model, one)
        fast.forget()


def eight_bit_settings(device: torch.device) -> dict[str, FastSettings]:
    """The 8-bit precisions that ``device`` has, by the word of ``--precision``."""
    found = {"fp8": FastSettings()}
    if has_flash3(device):
        found["fp8-all"] = FastSettings(attention="flash8")
    return found


def wah(bench: Bench, *, fp8: bool = True) -> None:
    """Camera-led chunks from a given warp: the full recipe and the realtime preset, the adapter in
    the first stage; its cost in one call, beside and merged."""
    net = bench.denoiser()
    add_random_adapter(net)
    wah_rows(bench, net, "", FastSettings())
    if fp8:
        quantise_blocks(net.blocks)
        for word, settings in eight_bit_settings(bench.device).items():
            wah_rows(bench, net, f" {word}", settings)


def wah_rows(bench: Bench, net: HeliosTransformer, suffix: str, settings: FastSettings) -> None:
    """The rows of :func:`wah` for a denoiser that carries the adapter."""
    fast = FastDenoiser(net, settings)
    merged = FastDenoiser(net, replace(settings, adapter="merged"))
    for name, path, active in (
        ("no adapter", fast, False),
        ("adapter beside", fast, True),
        ("adapter merged", merged, True),
    ):
        set_lora_active(net, CAMERA, active)
        forwards(bench, f"forward warp, {name}{suffix}", path, net, "warp", (0,))
    merged.forget()
    model = replace(random_model(net, bench.size, bench.device), fast=fast)
    work = ChunkWork((2, 2, 2), SHARE, chunks=bench.chunks)
    _chunk_row(bench, f"wah [2, 2, 2]{suffix}", model, work)
    live = replace(random_model(net, bench.size, bench.device, fast_codec=True), fast=fast)
    work = ChunkWork((1, 1, 1), SHARE, realtime=True, chunks=bench.chunks)
    _chunk_row(bench, f"wah realtime{suffix}", live, work)
    fast.forget()


def recompilations(bench: Bench, chunks: int = 20) -> None:
    """Graphs compiled before and after chunks of changing visibility, in the compiled variant."""

    def work() -> Figures:
        net = bench.denoiser()
        fast = FastDenoiser(net, FastSettings(kernels="compiled"))
        counts, tokens = [], []
        with torch.inference_mode():
            for number in range(chunks):
                share = 0.2 + 0.7 * ((7 * number) % chunks) / chunks
                for stage in range(3):
                    kind = "warp" if stage == 0 else "native"
                    given = stage_inputs(net, bench.size, stage, bench.device, kind, share)
                    given = packed(net, given)
                    tokens.append(int(given["history"].tokens.shape[1]))
                    fast(**given)
                counts.append(compilations())
        return {
            "graphs_after_first_chunk": counts[0],
            "graphs_after_last_chunk": counts[-1],
            "token_counts": len(set(tokens)),
        }

    bench.rows.measure(f"compilations over {chunks} chunks", work)


def vae(bench: Bench) -> None:
    """Encoding and decoding a chunk: the model's codec and the fast one as a run has them, then the
    Wan codec plain and fast in every precision."""
    for name, quick in (("codec", False), ("fast codec", True)):
        codec = random_codec(bench.size, bench.device, fast=quick)
        for verb in ("encode", "decode"):
            codec_row(bench, f"{name} {verb}", codec, verb)
    wan_rows(bench)


def wan_rows(bench: Bench) -> None:
    """The Wan codec in every precision, with its distance from float32: PSNR of pixels decoded and,
    by the range of the wanted ones, of latents encoded."""
    if find_spec("diffusers") is None:
        return
    net = random_wan(bench.size, bench.device)
    exact = WanCodec(net)
    video, z = codec_inputs(bench)
    with torch.inference_mode():
        wanted = {"encode": exact.encode(video), "decode": exact.decode(z)}
    kinds: list[tuple[str, Callable[[], Codec]]] = [
        ("plain fp32", lambda: exact),
        ("plain bf16", lambda: WanCodec(deepcopy(net).to(torch.bfloat16))),
        ("fast bf16", lambda: FastWanCodec(net, torch.bfloat16)),
    ]
    if bench.device.type == "cuda":  # a CPU takes minutes
        kinds.append(("fast fp16", lambda: FastWanCodec(net, torch.float16)))
    for name, make in kinds:
        codec = make()
        for verb in ("encode", "decode"):
            codec_row(bench, f"wan {name} {verb}", codec, verb, wanted[verb])


def codec_inputs(bench: Bench) -> tuple[Tensor, Tensor]:
    """A chunk of random pixels [1,3,33,H,W] and of random latents [1,16,9,h,w]."""
    torch.manual_seed(4)
    video = torch.rand(1, 3, 33, bench.size.height, bench.size.width, device=bench.device)
    return video, latents(bench.size, 9, bench.device)


def codec_row(
    bench: Bench, name: str, codec: Codec, verb: str, wanted: Tensor | None = None
) -> Figures | None:
    """Time and peak memory of one direction, and how near its result is to ``wanted``."""
    call, given = (
        (codec.encode, codec_inputs(bench)[0])
        if verb == "encode"
        else (codec.decode, codec_inputs(bench)[1])
    )

    def work() -> Figures:
        reset_peak(bench.device)
        with torch.inference_mode():
            median, runs, first = median_seconds(lambda: call(given), bench.device, bench.runs, 2)
            near = {} if wanted is None else {"psnr_db": round(psnr(call(given), wanted), 1)}
        return {
            "ms": round(1000 * median, 1),
            "first_ms": round(1000 * first, 1),
            "runs_ms": [round(1000 * value, 1) for value in runs],
            **near,
            **peaks(bench.device),
        }

    return bench.rows.measure(name, work)


def _chunk_row(bench: Bench, name: str, model: LoadedModel, work: ChunkWork) -> None:
    """A chunk decoded before the next begins, and beside it."""
    bench.rows.measure(name, lambda: make_chunks(model, bench.size, work)[0])
    beside = replace(work, beside=True)
    bench.rows.measure(f"{name}, decoded beside", lambda: make_chunks(model, bench.size, beside)[0])
