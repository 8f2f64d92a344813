"""Everything about the Wan codec on one GPU: correctness first, then speed, then whole chunks.

    python bench/gpu_codec.py FOLDER [--only NAMES] [--seconds 520]

Rows go to FOLDER/codec.json as soon as each is known; a section that fails is a row with its
traceback. Profiles are text files beside it. No weights are read: all are random, drawn on the
device. Sections that would begin after --seconds are left out and named.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import kernel_rows
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from flythrough.bench import suites
from flythrough.bench.chunks import ChunkWork, make_chunks
from flythrough.bench.clock import median_seconds, peaks, reset_peak
from flythrough.bench.forwards import psnr
from flythrough.bench.profiles import Profile
from flythrough.bench.random_model import (
    add_random_adapter,
    random_codec,
    random_model,
    random_wan,
)
from flythrough.bench.rows import Figures
from flythrough.bench.sections import SectionRun, start
from flythrough.bench.sizes import Size
from flythrough.models.fast.attention import has_flash3
from flythrough.models.fast.denoiser import FastDenoiser
from flythrough.models.fast.fp8 import quantise_blocks
from flythrough.models.fast.settings import CodecSettings, FastSettings
from flythrough.models.fast.wan_codec import FastWanCodec
from flythrough.models.helios import HeliosTransformer
from flythrough.models.loading import LoadedModel
from flythrough.models.wan_codec import Codec, WanCodec

FOLDED = (0, 96, 192, 384)
"""Settings of ``CodecSettings.folded`` that are tried at the published width."""


@dataclass
class Run(SectionRun):
    """The measurement under way."""

    wan: Any = None
    net: HeliosTransformer | None = None
    best: CodecSettings = CodecSettings()  # noqa: RUF009

    def denoiser(self, *, fp8: bool = False) -> HeliosTransformer:
        """The denoiser of every section, drawn when the first needs it; once asked for in 8 bits it
        stays so."""
        if self.net is None:
            self.net = self.bench.denoiser()
        if fp8:
            quantise_blocks(self.net.blocks)
        return self.net

    @property
    def half(self) -> torch.dtype:
        """float16; bfloat16 on a CPU, which takes minutes for the other."""
        return torch.float16 if self.bench.device.type == "cuda" else torch.bfloat16

    @property
    def folds(self) -> tuple[int, ...]:
        """Least, two and four times the codec's channels."""
        width = self.bench.size.wan_width
        return tuple(n * width // 96 for n in FOLDED)


@contextmanager
def exact_float32() -> Iterator[None]:
    """Convolutions and products in float32 as the type says, not in TF32."""
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = convolutions
        torch.backends.cuda.matmul.allow_tf32 = products


@contextmanager
def trying_algorithms(on: bool) -> Iterator[None]:
    """With ``torch.backends.cudnn.benchmark``."""
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, on
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def largest(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max())


def correctness(run: Run) -> None:
    """Fast against diffusers at true size, in float32 without TF32 and in half precision; passes
    of every length, kernels of every kind."""
    net, bench = run.wan, run.bench
    video, z = suites.codec_inputs(bench)
    plain = WanCodec(net)
    with torch.inference_mode(), exact_float32():
        wanted = plain.encode(video), plain.decode(z)
        first = plain.encode(video[:, :, :1]), plain.decode(z[:, :, :1])

    def gaps(dtype: torch.dtype, settings: CodecSettings) -> Figures:
        codec = FastWanCodec(net, dtype, settings)
        with torch.inference_mode(), exact_float32():
            found = codec.encode(video), codec.decode(z)
            still = codec.encode(video[:, :, :1]), codec.decode(z[:, :, :1])
        figures: dict[str, Any] = {
            "latents_gap": largest(found[0], wanted[0]),
            "pixels_gap": largest(found[1], wanted[1]),
            "one_latent_gap": largest(still[0], first[0]),
            "one_frame_gap": largest(still[1], first[1]),
            "latents_psnr_db": round(psnr(found[0], wanted[0]), 1),
            "pixels_psnr_db": round(psnr(found[1], wanted[1]), 1),
            "finite": bool(found[0].isfinite().all() and found[1].isfinite().all()),
        }
        if dtype == torch.float32:
            figures["good"] = figures["latents_gap"] < 1e-3 and figures["pixels_gap"] < 1e-3
        return figures

    cases: list[tuple[str, torch.dtype, CodecSettings]] = [
        ("fp32", torch.float32, CodecSettings()),
        ("fp32, torch kernels", torch.float32, CodecSettings(kernels="torch")),
        ("fp32, 2 latents a pass", torch.float32, CodecSettings(latents_per_pass=2)),
        ("half", run.half, CodecSettings()),
        ("half, torch kernels", run.half, CodecSettings(kernels="torch")),
        ("half, 4 latents a pass", run.half, CodecSettings(latents_per_pass=4)),
        ("bf16", torch.bfloat16, CodecSettings()),
        *((f"half, folded to {n}", run.half, CodecSettings(folded=n)) for n in run.folds),
    ]
    for name, dtype, settings in cases:
        run.row(f"correct {name}", partial(gaps, dtype, settings))


def convolutions(run: Run) -> None:
    """A causal 3x3x3 convolution in three forms, at the codec's shapes, and what else it has."""
    bench, device = run.bench, run.bench.device
    dtype = run.half
    height, width, least = bench.size.height, bench.size.width, bench.size.wan_width
    stages = [(least, 33, 1), (2 * least, 33, 2), (4 * least, 17, 4), (4 * least, 9, 8)]

    def one(channels: int, frames: int, scale: int, try_all: bool) -> Figures:
        h, w = height // scale, width // scale
        pixels = frames * h * w
        flops = 54 * pixels * channels**2
        found: dict[str, Any] = {}

        def note(name: str, work: Callable[[], object]) -> None:
            with trying_algorithms(try_all):
                median, _, _ = median_seconds(work, device, 5, 2)
            found[f"{name}_ms"] = round(1000 * median, 2)
            found[f"{name}_tflops"] = round(flops / median / 1e12)
            if device.type == "cuda":
                gc.collect()

        def draw(*shape: int, last: torch.memory_format) -> Tensor:
            drawn = torch.randn(shape, device=device, dtype=dtype)
            return drawn.contiguous(memory_format=last)

        last3, last2 = torch.channels_last_3d, torch.channels_last
        x = draw(1, channels, frames + 2, h, w, last=last3)
        k = draw(channels, channels, 3, 3, 3, last=last3)
        note("space_time", partial(functional.conv3d, x, k, padding=(0, 1, 1)))
        made = functional.conv3d(x, k, padding=(0, 1, 1))
        found["channels_stay_last"] = made.is_contiguous(memory_format=last3)
        del made
        flat = x[0].transpose(0, 1).contiguous(memory_format=last2)
        spread = k.permute(2, 0, 1, 3, 4).flatten(0, 1).contiguous(memory_format=last2)
        note("spread", partial(functional.conv2d, flat, spread, padding=1))
        del x, flat
        side = draw(frames, 3 * channels, h, w, last=last2)
        folded = k.permute(0, 2, 1, 3, 4).flatten(1, 2).contiguous(memory_format=last2)
        note("folded", lambda: functional.conv2d(side, folded, padding=1))
        return found

    for channels, frames, scale in stages:
        for try_all in (False, True):
            name = f"convolution {channels} channels, {frames} frames, 1/{scale}"
            name += ", algorithms tried" if try_all else ""
            run.row(name, partial(one, channels, frames, scale, try_all))


def precisions(run: Run) -> None:
    """Plain and fast in every precision, then settings of the fast one; the best is kept."""
    suites.wan_rows(run.bench)
    half = run.half
    video, z = suites.codec_inputs(run.bench)
    exact = WanCodec(run.wan)
    with torch.inference_mode():
        wanted = {"encode": exact.encode(video), "decode": exact.decode(z)}
    tried = {f"folded to {fold}": CodecSettings(folded=fold) for fold in run.folds}
    taken: dict[str, float] = {}
    for name, settings in tried.items():
        codec = FastWanCodec(run.wan, half, settings)
        found = [
            suites.codec_row(run.bench, f"wan fast half, {name}, {verb}", codec, verb, wanted[verb])
            for verb in ("encode", "decode")
        ]
        rows = [row for row in found if row is not None and row["psnr_db"] > 35]
        if len(rows) == 2:
            taken[name] = sum(row["ms"] for row in rows)
    if taken:
        best = min(taken, key=lambda name: taken[name])
        run.best = tried[best]
        run.row("best", lambda: {"settings": best, "encode_and_decode_ms": taken[best]})
    for count in (1, 3, 9):
        settings = replace(run.best, latents_per_pass=count)
        codec = FastWanCodec(run.wan, half, settings)
        for verb in ("encode", "decode"):
            name = f"wan fast half, {count} latents a pass, {verb}"
            suites.codec_row(run.bench, name, codec, verb)
    codec = FastWanCodec(run.wan, half, run.best)
    with trying_algorithms(True):
        for verb in ("encode", "decode"):
            name = f"wan fast half, algorithms tried, {verb}"
            suites.codec_row(run.bench, name, codec, verb)


def profile(run: Run, verb: str) -> None:
    """Kernels of one call, longest first."""
    bench = run.bench
    half = run.half
    codec = FastWanCodec(run.wan, half, run.best)
    video, z = suites.codec_inputs(bench)

    def call() -> Tensor:
        return codec.decode(z) if verb == "decode" else codec.encode(video)

    seen = Profile(call, bench.device, shapes=True)
    table = seen.table() + "\n" + seen.table(shapes=True)
    (run.folder / f"profile-{verb}.txt").write_text(table)


def small_codec(run: Run) -> None:
    """The realtime codec in float32 and float16."""
    bench = run.bench
    _, z = suites.codec_inputs(bench)
    exact = random_codec(bench.size, bench.device, fast=True, dtype=torch.float32)
    with torch.inference_mode():
        wanted = exact.decode(z)
    for name, dtype in (("fp32", torch.float32), ("fp16", torch.float16)):
        codec = random_codec(bench.size, bench.device, fast=True, dtype=dtype)
        suites.codec_row(bench, f"taehv {name} encode", codec, "encode")
        suites.codec_row(bench, f"taehv {name} decode", codec, "decode", wanted)


def chunk_codec(run: Run) -> Codec:
    """The codec of chunk rows, with the best settings found."""
    if not run.bench.size.wan:
        return random_codec(run.bench.size, run.bench.device)
    return FastWanCodec(run.wan, run.half, run.best)


def settings(suffix: str) -> FastSettings:
    """Of the denoiser, by the end of a row's name."""
    return FastSettings(attention="flash8" if suffix.endswith("fp8-all") else "auto")


def helios(run: Run, suffix: str = "") -> None:
    """Chunks decoded before and beside the next; the frames must be the same."""
    bench, net = run.bench, run.denoiser(fp8=bool(suffix))
    model = replace(
        random_model(net, bench.size, bench.device, codec=chunk_codec(run)),
        fast=FastDenoiser(net, settings(suffix)),
    )
    for steps in ((2, 2, 2), (1, 1, 1)):
        made = {}
        for beside in (False, True):
            work = ChunkWork(steps, chunks=bench.chunks, beside=beside)
            name = f"helios {list(steps)}{suffix}{', decoded beside' if beside else ''}"

            def measured(work: ChunkWork = work, beside: bool = beside) -> Figures:
                figures, made[beside] = make_chunks(model, bench.size, work)  # noqa: B023
                return figures

            run.row(name, measured)

        def same() -> Figures:
            pairs = list(zip(made[False].chunks, made[True].chunks, strict=True))  # noqa: B023
            return {
                "latents_equal": all(np.array_equal(a.latents, b.latents) for a, b in pairs),
                "frames_equal": all(np.array_equal(a.frames, b.frames) for a, b in pairs),
            }

        run.row(f"helios {list(steps)}{suffix}, beside against before", same)
    if model.fast is not None:
        model.fast.forget()


def chunk_figures(model: LoadedModel, size: Size, work: ChunkWork) -> Figures:
    """Time of a chunk and of its parts."""
    return make_chunks(model, size, work)[0]


def camera(run: Run, suffix: str = "") -> None:
    """Camera-led chunks from a given warp, 86 % in view: the full recipe, and the realtime preset
    with the small codec. The adapter stays attached."""
    bench, net = run.bench, run.denoiser()
    fast = FastDenoiser(net, settings(suffix))
    full = replace(random_model(net, bench.size, bench.device, codec=chunk_codec(run)), fast=fast)
    live = replace(random_model(net, bench.size, bench.device, fast_codec=True), fast=fast)
    rows = (
        ("wah [2, 2, 2]", full, ChunkWork((2, 2, 2), suites.SHARE, chunks=bench.chunks)),
        ("wah realtime", live, ChunkWork((1, 1, 1), suites.SHARE, True, bench.chunks)),
    )
    for name, model, work in rows:
        for beside in (False, True):
            label = f"{name}{suffix}{', decoded beside' if beside else ''}"
            once = replace(work, beside=beside)
            run.row(label, partial(chunk_figures, model, bench.size, once))
    fast.forget()


def with_adapter(run: Run, suffix: str) -> None:
    """:func:`camera` with a random adapter, which is taken off again."""
    from flythrough.models.adapters import detach_lora

    net = run.denoiser(fp8=bool(suffix))
    add_random_adapter(net)
    try:
        camera(run, suffix)
    finally:
        detach_lora(net, suites.CAMERA)


def eight_bits(run: Run) -> None:
    """From here on the denoiser's large weights have 8 bits."""
    run.denoiser(fp8=True)
    reset_peak(run.bench.device)
    run.row("weights in 8 bits", lambda: peaks(run.bench.device))


def main() -> None:
    run = start(Run, __doc__ or "", "codec.json")
    run.wan = random_wan(run.bench.size, run.bench.device)
    run.section("correctness", lambda: correctness(run))
    run.section("kernels", lambda: kernel_rows.codec_passes(run))
    run.section("precisions", lambda: precisions(run))
    run.section("profile decode", lambda: profile(run, "decode"))
    run.section("profile encode", lambda: profile(run, "encode"))
    run.section("convolutions", lambda: convolutions(run))
    run.section("small codec", lambda: small_codec(run))
    run.section("helios", lambda: helios(run))
    run.section("camera", lambda: with_adapter(run, ""))
    run.section("8 bits", lambda: eight_bits(run))
    run.section("helios fp8", lambda: helios(run, " fp8"))
    run.section("camera fp8", lambda: with_adapter(run, " fp8"))
    if has_flash3(run.bench.device):
        run.section("helios fp8-all", lambda: helios(run, " fp8-all"))
        run.section("camera fp8-all", lambda: with_adapter(run, " fp8-all"))
    run.end()


if __name__ == "__main__":
    main()
