"""Rows of one kernel at a time for ``gpu_fast.py`` and ``gpu_codec.py``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from flythrough.bench.clock import median_seconds
from flythrough.bench.forwards import relative_gap
from flythrough.bench.rows import Figures
from flythrough.bench.sections import SectionRun
from flythrough.models.fast import attention
from flythrough.models.fast.activations import Activations
from flythrough.models.fast.eight_bit_attention import (
    dequantised_attention,
    quantise_all,
    quantise_heads,
)
from flythrough.models.fast.elementwise import Elementwise, TorchElementwise
from flythrough.models.fast.fp8 import dequantised_product, quantise_rows, scaled_product
from flythrough.models.fast.kernels import choose_kernels, has_triton
from flythrough.models.fast.wan_passes import TorchPasses, choose_passes
from flythrough.models.rotary import Tables


def kernels(run: SectionRun) -> None:
    """Triton against its twins at true size: largest difference, time, bytes a second."""
    if not has_triton() or run.bench.device.type != "cuda":
        run.row("kernels", lambda: {"left_out": "no Triton or no GPU"})
        return
    twin, ours = TorchElementwise(), choose_kernels("triton", run.bench.device)
    dtype, device = run.bench.dtype, run.bench.device
    tokens, past, width, hidden = 11040, 2400, 5120, 13824

    def draw(*shape: int, to: torch.dtype = dtype) -> Tensor:
        return torch.randn(shape, device=device).to(to)

    rows = [draw(1, 2, width, to=torch.float32) for _ in range(3)]
    x, update = draw(1, tokens, width), draw(1, tokens, width)

    def residual(ops: Elementwise, fp8: bool) -> tuple[Tensor, Activations]:
        copy = x.clone()
        out = Activations.empty(copy, plain=not fp8, fp8=fp8)
        ops.residual_norm(copy, update, rows[0], rows[1], rows[2], past, 1e-6, out)
        return copy, out

    def residual_row() -> Figures:
        (x1, a), (x2, b) = residual(twin, False), residual(ours, False)
        assert a.values is not None
        assert b.values is not None
        q1, q2 = residual(twin, True)[1], residual(ours, True)[1]
        assert q1.quantised is not None
        assert q2.quantised is not None
        assert q1.scales is not None
        assert q2.scales is not None
        back = [q.float() * s for q, s in ((q1.quantised, q1.scales), (q2.quantised, q2.scales))]
        buffer, work = Activations.empty(x, plain=True, fp8=False), x.clone()

        def once() -> None:
            ours.residual_norm(work, update, rows[0], rows[1], rows[2], past, 1e-6, buffer)

        median, _, _ = median_seconds(once, device, 20, 3)
        return {
            "stream_gap": relative_gap(x2, x1),
            "normed_gap": relative_gap(b.values, a.values),
            "fp8_gap": relative_gap(back[1], back[0]),
            "us": round(1e6 * median, 1),
            "gb_s": round(4 * x.numel() * x.element_size() / median / 1e9),
        }

    def rotate_row() -> Figures:
        joint, weight = draw(1, tokens, 3 * width), draw(width)
        angles = draw(1, tokens, 64, to=torch.float32)
        tables = Tables(angles.cos(), angles.sin())
        views = [joint.clone() for _ in range(2)]
        for ops, one in zip((twin, ours), views, strict=True):
            ops.norm_rotate(one[..., width : 2 * width], weight, 1e-6, tables)
        work = joint[..., :width]
        median, _, _ = median_seconds(
            lambda: ours.norm_rotate(work, weight, 1e-6, tables), device, 20, 3
        )
        return {
            "gap": relative_gap(views[1], views[0]),
            "us": round(1e6 * median, 1),
            "gb_s": round(2 * work.numel() * work.element_size() / median / 1e9),
        }

    def quantise_row() -> Figures:
        wide = draw(1, tokens, hidden)
        a, b = twin.quantise(wide, True), ours.quantise(wide, True)
        assert a.quantised is not None
        assert b.quantised is not None
        assert a.scales is not None
        assert b.scales is not None
        median, _, _ = median_seconds(lambda: ours.quantise(wide, True), device, 20, 3)
        return {
            "gap": relative_gap(b.quantised.float() * b.scales, a.quantised.float() * a.scales),
            "us": round(1e6 * median, 1),
            "gb_s": round(3 * wide.numel() / median / 1e9),
        }

    run.row("kernel residual_norm", residual_row)
    run.row("kernel norm_rotate", rotate_row)
    run.row("kernel gelu_quantise", quantise_row)


def products(run: SectionRun) -> None:
    """Products of a block in bf16 and fp8, GELU inside and after."""
    device, dtype = run.bench.device, run.bench.dtype
    tokens = 64 if run.bench.small else 11040
    shapes = {"qkv": (5120, 15360), "out": (5120, 5120), "up": (5120, 13824), "down": (13824, 5120)}
    if run.bench.small:
        shapes = {"qkv": (64, 192), "up": (64, 128)}

    def one(inner: int, outer: int) -> Figures:
        x = torch.randn(tokens, inner, device=device, dtype=dtype)
        w = torch.randn(outer, inner, device=device, dtype=dtype) / inner**0.5
        bias = torch.randn(outer, device=device, dtype=dtype)
        flops = 2 * tokens * inner * outer
        (xq, xs), (wq, ws) = quantise_rows(x), quantise_rows(w)
        found: dict[str, Any] = {}

        def note(name: str, work: Callable[[], object]) -> None:
            median, _, _ = median_seconds(work, device, 10, 3)
            found[f"{name}_tflops"] = round(flops / median / 1e12, 1)

        note("plain", lambda: functional.linear(x, w, bias))
        note("gelu_after", lambda: functional.gelu(functional.linear(x, w, bias)))
        if device.type == "cuda":
            note("gelu_inside", lambda: torch._addmm_activation(bias, x, w.t(), use_gelu=True))
            inside = torch._addmm_activation(bias, x, w.t(), use_gelu=True)
            after = functional.gelu(functional.linear(x, w, bias), approximate="tanh")
            found["gelu_gap"] = relative_gap(inside, after)
        note("fp8", lambda: scaled_product(xq, xs, wq, ws, bias, dtype))
        found["fp8_twin_gap"] = relative_gap(
            scaled_product(xq, xs, wq, ws, bias, dtype),
            dequantised_product(xq, xs, wq, ws, bias, dtype),
        )
        found["fp8_exact_gap"] = relative_gap(
            scaled_product(xq, xs, wq, ws, bias, dtype), functional.linear(x, w, bias)
        )
        return found

    for name, (inner, outer) in shapes.items():
        run.row(f"product {name}", partial(one, inner, outer))


def eight_bit_attention(run: SectionRun) -> None:
    """Heads in 8 bits, in Triton against the twin; attention of both against 16 bits."""
    device, dtype = run.bench.device, run.bench.dtype
    if not attention.has_flash3(device):
        run.row("8-bit attention", lambda: {"left_out": "no FlashAttention 3 or no Hopper GPU"})
        return
    tokens, asking, heads, width = 11040, 8640, 40, 128
    joint = torch.randn(1, tokens, 3, heads, width, device=device, dtype=dtype)
    q, k, v = joint[:, -asking:, 0], 3 * joint[:, :, 1], joint[:, :, 2]

    def work() -> Figures:
        found: dict[str, Any] = {}
        made = quantise_all(q, k, v)
        for name, part, values, scale in zip("qkv", (q, k, v), *made, strict=True):
            twin_values, twin_scale = quantise_heads(part)
            found[f"{name}_scale_gap"] = relative_gap(scale, twin_scale)
            found[f"{name}_other_share"] = float(
                (values.float() != twin_values.float()).float().mean()
            )
        median, _, _ = median_seconds(lambda: quantise_all(q, k, v), device, 20, 3)
        found["us"] = round(1e6 * median, 1)
        kernel, exact = (attention.attention(word, device) for word in ("flash8", "sdpa"))
        few = q[:, :512].contiguous()
        wanted = exact(few, k, v, None)
        found["attention_gap"] = relative_gap(kernel(few, k, v, None), wanted)
        found["twin_gap"] = relative_gap(
            dequantised_attention(quantise_all(few, k, v), dtype), wanted
        )
        return found

    run.row("kernel quantise_heads", work)


def codec_passes(run: SectionRun) -> None:
    """The kernel between convolutions of the codec against its twin, and bytes a second."""
    bench = run.bench
    if not has_triton() or bench.device.type != "cuda":
        run.row("kernels", lambda: {"left_out": "no Triton or no GPU"})
        return
    twin, ours = TorchPasses(), choose_passes("triton", bench.device)
    height, width, least = bench.size.height, bench.size.width, bench.size.wan_width

    def one(kind: str, channels: int, scale: int) -> Figures:
        shape = (1, 8, height // scale, width // scale, channels)
        given = shape
        if kind == "doubled":
            given = (1, 8, shape[2] // 2 + 1, shape[3] // 2 + 1, 4 * channels)

        def draw(*size: int) -> Tensor:
            return torch.randn(size, device=bench.device).half()

        update, stream = draw(*given), draw(*shape)
        bias = torch.randn(channels, device=bench.device)
        gain = torch.randn(channels, device=bench.device)
        wide = 3 * channels if kind == "folded" else channels
        found = []
        for passes in (twin, ours):
            out, target = torch.zeros(*shape[:-1], wide, device=bench.device).half(), stream.clone()
            before = None if kind == "doubled" else target
            passes.join(update, bias, before, gain, out, target=target, doubled=kind == "doubled")
            found.append((target, out))
        pairs = zip(found[1], found[0], strict=True)
        gaps = [float((a.float() - b.float()).abs().max()) for a, b in pairs]
        target, out = found[1]

        def again() -> None:  # writes in place
            before = None if kind == "doubled" else target
            ours.join(update, bias, before, gain, out, target=target, doubled=kind == "doubled")

        moved = update.numel() + out.numel() + target.numel() * (1 if kind == "doubled" else 2)
        median, _, _ = median_seconds(again, bench.device, 20, 3)
        return {
            "stream_gap": gaps[0],
            "normed_gap": gaps[1],
            "us": round(1e6 * median, 1),
            "gb_s": round(2 * moved / median / 1e9),
        }

    for kind in ("plain", "doubled", "folded"):
        for times, scale in ((1, 1), (2, 2), (4, 4)):
            channels = times * least
            name = f"kernel join {kind}, {channels} channels"
            run.row(name, partial(one, kind, channels, scale))
