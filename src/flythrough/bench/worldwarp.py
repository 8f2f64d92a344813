"""WorldWarp's parts at true size with random weights: ST-Diff, codec, TTT3R, the Gaussian cache.

What was published for 49 frames (arXiv 2512.19678, table 4), and what is aimed at, stand beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flythrough.bench.clock import median_seconds, peaks, reset_peak, seconds
from flythrough.bench.forwards import relative_gap
from flythrough.bench.random_model import random_codec
from flythrough.bench.rows import Figures, Rows
from flythrough.bench.sizes import SIZES, WORLDWARP_SIZES, SizeName, WorldWarpSize
from flythrough.bench.suites import eight_bit_settings
from flythrough.conditioning.noise_field import FieldSettings, start_steps
from flythrough.models.fast.attention import preferred_backends
from flythrough.models.fast.fp8 import quantise_blocks
from flythrough.models.fast.settings import FastSettings
from flythrough.models.fast.st_diff import FastStDiff
from flythrough.models.st_diff import PUBLISHED_CONFIG, StDiff
from flythrough.sampling.asynchronous import TRAIN_LEVELS, noise_levels, sample_asynchronous

PUBLISHED_SECONDS = {"ttt3r": 5.8, "gaussian_fit": 2.5, "render": 0.2, "denoise": 42.5}
"""Of one chunk of 49 frames; the captioner took 3.5 more, all together 54.5."""
GOAL_SECONDS = {"gaussian_fit": 1.0, "denoise": 12.0}

Velocity = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(eq=False)
class WorldWarpBench:
    """Where and how rows are measured; ``found`` gathers seconds of a chunk's parts."""

    rows: Rows
    name: SizeName
    device: torch.device
    dtype: torch.dtype
    runs: int = 5

    def __post_init__(self) -> None:
        self.found: dict[str, float] = {}
        self.net: StDiff | None = None

    @property
    def size(self) -> WorldWarpSize:
        return WORLDWARP_SIZES[self.name]

    def st_diff(self) -> StDiff:
        """The network, drawn once."""
        if self.net is None:
            self.net = random_st_diff(self.size, self.device, self.dtype)
        return self.net


def random_st_diff(
    size: WorldWarpSize, device: torch.device, dtype: torch.dtype, layers: int | None = None
) -> StDiff:
    """A network of random weights; what loading keeps in float32 is so."""
    config = {**PUBLISHED_CONFIG, **size.st_diff}
    if layers is not None:
        config["num_layers"] = layers
    torch.manual_seed(0)
    with torch.device(device):
        net = StDiff(**config)
    wide = net._keep_in_fp32_modules or []
    for name, module in net.named_modules():
        for key, given in module._parameters.items():
            if given is None:
                continue
            kept = any(word in f"{name}.{key}".split(".") for word in wide)
            values = given.detach().to(torch.float32 if kept else dtype)
            module._parameters[key] = nn.Parameter(values, requires_grad=False)
    return net.eval()


def network_flops(size: WorldWarpSize) -> dict[str, float]:
    """Operations of one call by kind: products with weights, attention among tokens, and to the
    prompt. Keys and values of the prompt are made once and left out."""
    config = {**PUBLISHED_CONFIG, **size.st_diff}
    width = config["num_attention_heads"] * config["attention_head_dim"]
    tokens, layers = size.tokens, config["num_layers"]
    linear = 2 * tokens * (6 * width**2 + 2 * width * config["ffn_dim"])
    return {
        "linear": float(layers * linear),
        "attention": float(layers * 4 * tokens**2 * width),
        "prompt": float(layers * 4 * tokens * size.text_tokens * width),
    }


def inputs(bench: WorldWarpBench, net: StDiff) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, timesteps of three levels as the sampler has them, and a prompt."""
    size, device = bench.size, bench.device
    torch.manual_seed(3)
    shape = (1, 16, size.latents, size.height // 8, size.width // 8)
    latents = torch.randn(shape, device=device)
    start = _starts(size, device)
    levels = noise_levels(size.steps).to(device)
    timesteps = TRAIN_LEVELS * levels[start.clamp(min=1)][..., ::2, ::2]
    text = torch.randn(1, size.text_tokens, int(net.config["text_dim"]), device=device)
    return latents, timesteps, text


def _starts(size: WorldWarpSize, device: torch.device) -> Tensor:
    """A fifth of the picture is new; two latent frames are known."""
    valid = torch.ones(1, size.latents, size.height // 8, size.width // 8, dtype=torch.bool)
    valid[..., : 2 * (size.width // 80)] = False
    return start_steps(valid, size.steps, FieldSettings(), size.context).to(device)


def correctness(bench: WorldWarpBench) -> None:
    """Fast against plain against float32 on a few layers at true width; Gaussians drawn on the
    device against the CPU."""

    def network() -> Figures:
        net = random_st_diff(bench.size, bench.device, bench.dtype, layers=3)
        exact = random_st_diff(bench.size, bench.device, torch.float32, layers=3)
        exact.load_state_dict({k: v.float() for k, v in net.state_dict().items()})
        given = inputs(bench, net)
        with torch.inference_mode():
            wanted = exact(*given)
            plain = _as_generated(net)(*given)
            fast = _as_generated(FastStDiff(net))(*given)
            plain_off, fast_off = (relative_gap(one.float(), wanted) for one in (plain, fast))
            quantise_blocks(net.blocks)
            eight = _as_generated(FastStDiff(net))(*given)
        return {
            "plain_to_float32": plain_off,
            "fast_to_float32": fast_off,
            "fast_to_plain": relative_gap(fast.float(), plain.float()),
            "fp8_to_float32": relative_gap(eight.float(), wanted),
            "good": fast_off <= max(1.25 * plain_off, 1e-5),
        }

    from flythrough.bench.gaussians import device_against_cpu

    bench.rows.measure("correct st_diff", network)
    bench.rows.measure("correct gaussians", lambda: device_against_cpu(bench.device))


def predicted(bench: WorldWarpBench) -> None:
    """What a call must take by the ceilings that were measured for these shapes, floor alone."""
    from flythrough.bench.ceilings import attention_ceiling, product_ceiling

    def work() -> Figures:
        flops, size = network_flops(bench.size), bench.size
        config = {**PUBLISHED_CONFIG, **size.st_diff}
        side = 256 if bench.name == "tiny" else 1024 if bench.device.type == "cpu" else 8192
        products = product_ceiling(bench.device, bench.dtype, side, bench.runs)["tflops"]
        heads, width = config["num_attention_heads"], config["attention_head_dim"]
        attention = attention_ceiling(
            bench.device, bench.dtype, size.tokens, heads, width, bench.runs
        )["preferred_tflops"]
        call = flops["linear"] / products + (flops["attention"] + flops["prompt"]) / attention
        call /= 1e12
        return {
            **{f"{name}_tflop": round(value / 1e12, 2) for name, value in flops.items()},
            "product_tflops": products,
            "attention_tflops": attention,
            "floor_call_ms": round(1000 * call, 1),
            "floor_steps_s": round(2 * size.steps * call, 2),
        }

    bench.rows.measure("floor", work)


def denoiser(bench: WorldWarpBench) -> None:
    """One call of each path, then all steps with guidance through the sampler."""
    net = bench.st_diff()
    cudnn = _with_preferred(net, bench.device)
    _call_row(bench, "call plain", net)
    _call_row(bench, "call plain, attention preferred", cudnn)
    fast = FastStDiff(net)
    _call_row(bench, "call fast", fast)
    if bench.device.type == "cuda":
        _call_row(
            bench, "call fast, compiled norms", FastStDiff(net, FastSettings(kernels="compiled"))
        )
    _steps_row(bench, "steps fast", fast, net, "denoise")
    _steps_row(bench, "steps fast, no guidance", fast, net, None, guidance=False)
    _steps_row(bench, "steps plain", net, net, None)
    quantise_blocks(net.blocks)
    for word, settings in eight_bit_settings(bench.device).items():
        eight = FastStDiff(net, settings)
        _call_row(bench, f"call fast {word}", eight)
        _steps_row(bench, f"steps fast {word}", eight, net, None)
    bench.net = None


def codec(bench: WorldWarpBench) -> None:
    """Encoding hints and decoding a chunk."""
    size = bench.size
    made = random_codec(SIZES[bench.name], bench.device)
    video = torch.rand(1, 3, size.frames, size.height, size.width, device=bench.device)
    z = torch.randn(1, 16, size.latents, size.height // 8, size.width // 8, device=bench.device)
    for verb, call, given in (("encode", made.encode, video), ("decode", made.decode, z)):

        def work(verb: str = verb, call: Any = call, given: Any = given) -> Figures:
            reset_peak(bench.device)
            with torch.inference_mode():
                median, _, first = median_seconds(lambda: call(given), bench.device, 2)
            bench.found[verb] = median
            return {"s": round(median, 3), "first_s": round(first, 3), **peaks(bench.device)}

        bench.rows.measure(f"codec {verb}", work)


def ttt3r(bench: WorldWarpBench) -> None:
    """The streaming geometry network over a chunk, and over the last frame alone."""
    from flythrough.models.ttt3r import TTT3R
    from flythrough.models.ttt3r_config import TTT3RConfig
    from flythrough.models.ttt3r_stream import stream

    size = bench.size

    def work() -> Figures:
        torch.manual_seed(4)
        with torch.device(bench.device):
            net = TTT3R(TTT3RConfig(**size.ttt3r)).eval()
        images = torch.rand(size.frames, 3, *size.geometry, device=bench.device)
        reset_peak(bench.device)
        with torch.inference_mode():
            one, _, first = median_seconds(
                lambda: stream(net, images[:1], reset_every=None), bench.device, bench.runs
            )
            every = seconds(lambda: stream(net, images, reset_every=None), bench.device)
        bench.found["ttt3r"] = every
        return {
            "parameters": sum(p.numel() for p in net.parameters()),
            "frames": size.frames,
            "chunk_s": round(every, 3),
            "fps": round(size.frames / every, 1),
            "one_frame_ms": round(1000 * one, 1),
            "first_ms": round(1000 * first, 1),
            **peaks(bench.device),
        }

    bench.rows.measure("ttt3r", work)


def gaussians(bench: WorldWarpBench) -> None:
    """A fit to one view of a world as long as published, shorter ones, and drawing a chunk."""
    from flythrough.bench.gaussians import fit_row

    size = bench.size
    shape = (size.height, size.width)
    for steps in dict.fromkeys((min(100, size.gaussian_steps), size.gaussian_steps)):

        def work(steps: int = steps) -> Figures:
            found = fit_row(shape, steps, size.frames, size.per_source, bench.device)
            bench.found["gaussian_fit"], bench.found["render"] = found["fit_s"], found["render_s"]
            return {**found, **peaks(bench.device)}

        bench.rows.measure(f"gaussians {steps} steps", work)


def summary(bench: WorldWarpBench) -> None:
    """Seconds of a chunk's parts beside the published ones and the aims."""

    def work() -> Figures:
        names = dict.fromkeys((*PUBLISHED_SECONDS, *bench.found))
        table: dict[str, Any] = {
            name: {
                "ours_s": None if name not in bench.found else round(bench.found[name], 3),
                "published_s": PUBLISHED_SECONDS.get(name),
                "goal_s": GOAL_SECONDS.get(name),
            }
            for name in names
        }
        total = round(sum(bench.found.values()), 2)
        return {"chunk_frames": bench.size.frames, "sum_s": total, **table}

    bench.rows.measure("beside the published", work)


PARTS: dict[str, Callable[[WorldWarpBench], None]] = {
    "correctness": correctness,
    "floor": predicted,
    "gaussians": gaussians,
    "ttt3r": ttt3r,
    "denoiser": denoiser,
    "codec": codec,
    "summary": summary,
}
"""In the order in which they are measured."""


def _call_row(bench: WorldWarpBench, name: str, net: Any) -> None:
    def work() -> Figures:
        given = inputs(bench, bench.st_diff())
        flops = sum(network_flops(bench.size).values())
        call = _as_generated(net)
        reset_peak(bench.device)
        with torch.inference_mode():
            median, _, first = median_seconds(lambda: call(*given), bench.device, bench.runs, 2)
        return {
            "ms": round(1000 * median, 2),
            "first_ms": round(1000 * first, 1),
            "tflops": round(flops / median / 1e12, 1),
            **peaks(bench.device),
        }

    bench.rows.measure(name, work)


def _steps_row(
    bench: WorldWarpBench,
    name: str,
    net: Any,
    shape_of: StDiff,
    part: str | None,
    *,
    guidance: bool = True,
) -> None:
    def work() -> Figures:
        latents, _, text = inputs(bench, shape_of)
        plain, call = torch.zeros_like(text), _as_generated(net)

        def velocity(z: Tensor, timesteps: Tensor) -> Tensor:
            found = call(z, timesteps, text)
            if not guidance:
                return found
            without = call(z, timesteps, plain)
            return without + 5.0 * (found - without)

        def run() -> Tensor:
            noise = torch.randn_like(latents)
            start = _starts(bench.size, bench.device)
            levels = noise_levels(bench.size.steps)
            return sample_asynchronous(velocity, latents, noise, start, levels)

        with torch.inference_mode():
            velocity(latents, inputs(bench, shape_of)[1])  # warm
            taken = seconds(run, bench.device)
        if part is not None:
            bench.found[part] = taken
        calls = bench.size.steps * (2 if guidance else 1)
        return {
            "s": round(taken, 3),
            "steps": bench.size.steps,
            "calls": calls,
            "step_ms": round(1000 * taken / bench.size.steps, 1),
        }

    bench.rows.measure(name, work)


def _as_generated(net: Any) -> Velocity:
    """Types as the generator gives and takes them."""

    def call(latents: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        found: Tensor = net(latents.to(net.dtype), timesteps, text.to(net.dtype))
        return found.float()

    return call


def _with_preferred(net: StDiff, device: torch.device) -> Any:
    class Preferred:
        dtype = net.dtype

        def __call__(self, *given: Tensor) -> Tensor:
            with preferred_backends(device):
                found: Tensor = net(*given)
            return found

    return Preferred()
