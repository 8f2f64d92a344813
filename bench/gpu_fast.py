"""Everything about the fast denoiser on one GPU: correctness first, then speed, then profiles.

    python bench/gpu_fast.py FOLDER [--only NAMES] [--seconds 520]

Rows go to FOLDER/fast.json as soon as each is known; a section that fails is a row with its
traceback. Profiles are text files beside it. No weights are read: all are random, drawn on the
device. Sections that would begin after --seconds are left out and named.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from unittest.mock import patch

import kernel_rows
import torch
from torch import Tensor, nn

from flythrough.bench import suites
from flythrough.bench.chunks import ChunkWork, make_chunks
from flythrough.bench.clock import median_seconds, seconds
from flythrough.bench.forwards import (
    packed,
    psnr,
    relative_gap,
    stage_inputs,
    stock_call,
    stock_denoiser,
)
from flythrough.bench.profiles import Profile
from flythrough.bench.random_model import (
    add_random_adapter,
    random_codec,
    random_denoiser,
    random_model,
)
from flythrough.bench.rows import Figures
from flythrough.bench.sections import SectionRun, start
from flythrough.bench.sizes import Size
from flythrough.models.adapters import detach_lora, set_lora_active
from flythrough.models.fast import denoiser
from flythrough.models.fast.denoiser import FastDenoiser
from flythrough.models.fast.fp8 import quantise_blocks
from flythrough.models.fast.settings import FastSettings
from flythrough.models.helios import HeliosTransformer
from flythrough.models.loading import LoadedModel

KINDS = ("text", "native", "warp", "patch-mid")


@dataclass
class Run(SectionRun):
    """The measurement under way."""

    net: HeliosTransformer | None = None


def correctness(run: Run) -> None:
    """A few layers at true width: fast and plain against float32, for every kind of history."""
    bench = run.bench
    config = {**bench.size.transformer, "num_layers": 3}
    net = random_denoiser(config, bench.device, bench.dtype)
    exact = random_denoiser(config, bench.device, torch.float32)
    exact.load_state_dict(net.state_dict())
    for one in (net, exact):
        add_random_adapter(one)
    paths = {
        "fast": FastDenoiser(net),
        "cudnn": FastDenoiser(net, FastSettings(attention="sdpa")),
        "merged": FastDenoiser(net, FastSettings(adapter="merged")),
        "torch": FastDenoiser(net, FastSettings(kernels="torch")),
    }

    def compared(kind: str, stage: int, active: bool) -> Figures:
        for one in (net, exact):
            set_lora_active(one, suites.CAMERA, active)
        given = stage_inputs(net, bench.size, stage, bench.device, kind, 0.6)
        wide = {
            name: value.float() if isinstance(value, Tensor) and value.dtype == net.dtype else value
            for name, value in given.items()
        }
        with torch.inference_mode():
            wanted, plain = exact(**wide), net(**given)
            found = {name: path(**given) for name, path in paths.items()}
        figures: dict[str, Any] = {"plain_to_float32": relative_gap(plain, wanted)}
        for name, value in found.items():
            figures[f"{name}_to_float32"] = relative_gap(value, wanted)
            figures[f"{name}_to_plain"] = relative_gap(value, plain)
        limit = max(1.25 * figures["plain_to_float32"], 1e-5)
        figures["good"] = all(figures[f"{name}_to_float32"] <= limit for name in paths)
        return figures

    for kind in KINDS:
        stages = (0, 2) if kind == "native" else (0,)
        for stage in stages:
            for active in (False, True):
                label = f"correct {kind} stage {stage} {'with' if active else 'without'} adapter"
                run.row(label, partial(compared, kind, stage, active))
    quantise_blocks(net.blocks)

    def eight() -> Figures:
        set_lora_active(net, suites.CAMERA, True)
        set_lora_active(exact, suites.CAMERA, True)
        given = stage_inputs(net, bench.size, 0, bench.device, "warp", 0.6)
        wide = {
            name: value.float() if isinstance(value, Tensor) and value.dtype == net.dtype else value
            for name, value in given.items()
        }
        with torch.inference_mode():
            wanted, plain = exact(**wide), net(**given)
            found = FastDenoiser(net)(**given)
            all_eight = FastDenoiser(net, FastSettings(attention="flash8"))(**given)
        return {
            "plain_to_float32": relative_gap(plain, wanted),
            "fast_to_float32": relative_gap(found, wanted),
            "fast_to_plain": relative_gap(found, plain),
            "attention_too_to_float32": relative_gap(all_eight, wanted),
        }

    run.row("correct fp8 warp with adapter", eight)


def whole_model(run: Run) -> HeliosTransformer:
    if run.net is None:
        run.net = run.bench.denoiser()
    return run.net


def forwards(run: Run) -> None:
    """Full depth: gap to plain and to diffusers, then times of a call."""
    net, bench = whole_model(run), run.bench
    fast = FastDenoiser(net)

    def gaps() -> Figures:
        given = stage_inputs(net, bench.size, 2, bench.device)
        with torch.inference_mode():
            plain, found = net(**given), fast(**given)
            stock = stock_call(stock_denoiser(net), given)
        return {
            "fast_to_plain": relative_gap(found, plain),
            "plain_to_diffusers": relative_gap(plain, stock),
            "fast_to_diffusers": relative_gap(found, stock),
        }

    run.row("full depth", gaps)
    suites.forwards(bench, "forward fast", fast, net)
    cudnn = FastDenoiser(net, FastSettings(attention="sdpa"))
    suites.forwards(bench, "forward fast, torch's attention", cudnn, net)
    torch_only = FastDenoiser(net, FastSettings(kernels="torch"))
    suites.forwards(bench, "forward fast, torch kernels", torch_only, net)
    suites.forwards(bench, "forward plain", net, net)
    stock = [stock_denoiser(net)]
    suites.forwards(
        bench,
        "forward diffusers",
        lambda **given: stock_call(stock[0], given),
        net,
        embedded=False,
    )


def profile(run: Run, name: str, stage: int, kind: str = "native") -> None:
    """Kernels of one call, longest first; how long they, the host and the whole call take."""
    net, bench = whole_model(run), run.bench
    fast = FastDenoiser(net)
    given = packed(net, stage_inputs(net, bench.size, stage, bench.device, kind))
    seen = Profile(lambda: fast(**given), bench.device)
    (run.folder / f"profile-{name}.txt").write_text(seen.table(30))
    with torch.inference_mode():
        begun = time.perf_counter()
        fast(**given)
        launched = time.perf_counter() - begun
        median, _, _ = median_seconds(lambda: fast(**given), bench.device, bench.runs, 1)
    kernels = sum(seen.kernels().values())
    figures = {"host_ms": 1e3 * launched, "ms": 1e3 * median, "kernels_ms": kernels}
    run.row(f"call {name}", lambda: {key: round(value, 1) for key, value in figures.items()})


def chunk_figures(model: LoadedModel, size: Size, work: ChunkWork) -> Figures:
    """Time of a chunk and of its parts."""
    return make_chunks(model, size, work)[0]


def helios_chunks(run: Run) -> None:
    net, bench = whole_model(run), run.bench
    model = replace(random_model(net, bench.size, bench.device), fast=FastDenoiser(net))
    for steps in ((2, 2, 2), (1, 1, 1)):
        work = ChunkWork(steps, chunks=bench.chunks)
        run.row(f"helios {list(steps)}", partial(chunk_figures, model, bench.size, work))


def compiled(run: Run) -> None:
    """The compiled variant: time of its calls, and that visibility never compiles anew."""
    suites.recompilations(
        replace(run.bench, size=replace(run.bench.size, transformer=_shallow(run))), 20
    )
    net = whole_model(run)
    path = FastDenoiser(net, FastSettings(kernels="compiled"))
    suites.forwards(run.bench, "forward fast, compiled kernels", path, net)


def lengths(run: Run) -> None:
    """What a token count costs when it is new, with torch's attention: first call against the
    second, two layers."""
    bench = run.bench
    net = random_denoiser(_shallow(run), bench.device, bench.dtype)

    def work(preferred: bool) -> Figures:
        fast = FastDenoiser(net, FastSettings(attention="sdpa"))
        found: dict[str, Any] = {"new_ms": [], "again_ms": [], "tokens": []}
        for number in range(8):
            share = 0.31 + 0.08 * number
            given = stage_inputs(net, bench.size, 0, bench.device, "warp", share)
            given = packed(net, given)
            found["tokens"].append(int(given["history"].tokens.shape[1]))
            with torch.inference_mode(), _kernels(preferred):
                for name in ("new_ms", "again_ms"):
                    taken = seconds(partial(fast, **given), bench.device)
                    found[name].append(round(1e3 * taken, 2))
        extra = sorted(a - b for a, b in zip(found["new_ms"], found["again_ms"], strict=True))
        return {**found, "median_extra_ms": round(extra[len(extra) // 2], 2)}

    run.row("new token counts, cuDNN preferred", lambda: work(True))
    run.row("new token counts, torch's choice", lambda: work(False))


def _kernels(preferred: bool) -> AbstractContextManager[Any]:
    """Our order of torch's kernels for attention, or torch's own."""
    if preferred:
        return nullcontext()
    return patch.object(denoiser, "preferred_backends", lambda *_: nullcontext())


def _shallow(run: Run) -> dict[str, Any]:
    return {**run.bench.size.transformer, "num_layers": 2}


def wah(run: Run, *, fp8: bool = False) -> None:
    """Camera-led chunks, in full precision or in every 8-bit one that the device has; the adapter
    is taken off again."""
    net = whole_model(run)
    kinds = {"": FastSettings()}
    if fp8:
        quantise_blocks(net.blocks)
        eight = suites.eight_bit_settings(run.bench.device)
        kinds = {f" {word}": settings for word, settings in eight.items()}
    add_random_adapter(net)
    try:
        for suffix, settings in kinds.items():
            suites.wah_rows(run.bench, net, suffix, settings)
    finally:
        detach_lora(net, suites.CAMERA)


def eight_bits(run: Run) -> None:
    """The same weights in 8 bits: rows, PSNR of latents, profile, camera."""
    net, bench = whole_model(run), run.bench
    model = replace(random_model(net, bench.size, bench.device), fast=FastDenoiser(net))
    suites.eight_bits(bench, net, model)


def codecs(run: Run) -> None:
    """Decoding a chunk: as it is, and what other types and layouts would give."""
    suites.vae(run.bench)
    if not run.bench.size.wan:
        return
    size, device = run.bench.size, run.bench.device
    z = torch.randn(1, 16, 9, size.height // 8, size.width // 8, device=device)
    codec: Any = random_codec(size, device, dtype=torch.float32)
    with torch.inference_mode():
        wanted = codec.decode(z)

    def variant(change: Callable[[], None]) -> Figures:
        change()
        with torch.inference_mode():
            median, _, first = median_seconds(lambda: codec.decode(z), device, 3, 2)
            db = psnr(codec.decode(z), wanted)
        figures = {"ms": round(1e3 * median, 1), "first_ms": round(1e3 * first)}
        return {**figures, "psnr_db": round(db, 1)}  # infinite if nothing changed

    def benchmark() -> None:
        torch.backends.cudnn.benchmark = True

    def last() -> None:
        for part in codec.net.modules():
            if isinstance(part, nn.Conv3d):  # other parameters have other ranks
                weight = part.weight.data
                part.weight.data = weight.contiguous(memory_format=torch.channels_last_3d)

    def half() -> None:
        codec.net.to(torch.bfloat16)

    for name, change in (("cudnn.benchmark", benchmark), ("+ bf16", half), ("+ last", last)):
        run.row(f"codec decode, {name}", partial(variant, change))
    torch.backends.cudnn.benchmark = False


def main() -> None:
    run = start(Run, __doc__ or "", "fast.json")
    bench = run.bench
    run.section("ceilings", lambda: suites.ceilings(bench))
    run.section("kernels", lambda: kernel_rows.kernels(run))
    run.section("8-bit attention", lambda: kernel_rows.eight_bit_attention(run))
    run.section("products", lambda: kernel_rows.products(run))
    run.section("correctness", lambda: correctness(run))
    run.section("forwards", lambda: forwards(run))
    run.section("profile full", lambda: profile(run, "full", 2))
    run.section("profile quarter", lambda: profile(run, "quarter", 0))
    run.section("helios chunks", lambda: helios_chunks(run))
    run.section("lengths", lambda: lengths(run))
    run.section("wah", lambda: wah(run))
    run.section("compiled", lambda: compiled(run))
    run.section("fp8", lambda: eight_bits(run))
    run.section("profile fp8", lambda: profile(run, "full-fp8", 2))
    run.section("wah fp8", lambda: wah(run, fp8=True))
    run.section("codecs", lambda: codecs(run))
    run.end()


if __name__ == "__main__":
    main()
