"""What a number of tokens that was never met costs attention, and ways to meet it."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from flythrough.bench.clock import median_seconds, seconds, synchronise
from flythrough.bench.forwards import packed, stage_inputs
from flythrough.bench.random_model import random_codec, random_denoiser
from flythrough.bench.rows import Figures
from flythrough.bench.suites import Bench
from flythrough.generators.side_thread import with_work_beside
from flythrough.models.fast import attention
from flythrough.models.fast.denoiser import FastDenoiser
from flythrough.models.fast.settings import AttentionBackend, FastSettings


def lengths(bench: Bench) -> None:
    """What a token count costs when it is new: unplanned, planned before, and the flash kernel."""
    net = random_denoiser({**bench.size.transformer, "num_layers": 2}, bench.device, bench.dtype)

    def work(
        kind: str, planned: bool, shares: list[float], backend: AttentionBackend = "sdpa"
    ) -> Figures:
        found: dict[str, Any] = {"tokens": [], "plan_ms": [], "new_ms": [], "again_ms": []}
        fast = FastDenoiser(net, FastSettings(attention=backend))
        for share in shares:
            given = stage_inputs(net, bench.size, 0, bench.device, kind, share)
            with torch.inference_mode():
                chosen = net.choose_tokens(given["history"])
                shape = given["hidden_states"].shape[2:]
                given = packed(net, given)
                found["tokens"].append(chosen.total)
                if planned:
                    begun = time.perf_counter()
                    fast.plan_attention(chosen, (shape[0], shape[1], shape[2]))
                    found["plan_ms"].append(round(1e3 * (time.perf_counter() - begun), 2))
                    synchronise(bench.device)
                for name in ("new_ms", "again_ms"):
                    taken = seconds(partial(fast, **given), bench.device)
                    found[name].append(round(1e3 * taken, 2))
        extra = sorted(a - b for a, b in zip(found["new_ms"], found["again_ms"], strict=True))
        return {**found, "median_extra_ms": round(extra[len(extra) // 2], 2)}

    one, two = ([0.31 + at + 0.09 * n for n in range(7)] for at in (0.0, 0.04))
    bench.rows.measure("new token counts, warp, unplanned", lambda: work("warp", False, one))
    bench.rows.measure("new token counts, warp, planned before", lambda: work("warp", True, two))
    bench.rows.measure(
        "new token counts, patch-mid (flash kernel)", lambda: work("patch-mid", False, one)
    )
    if attention.has_flash3(bench.device):
        bench.rows.measure(
            "new token counts, warp, FlashAttention 3", lambda: work("warp", False, two, "flash")
        )
    rare, attention.RARE_TOKENS = attention.RARE_TOKENS, 0
    try:
        bench.rows.measure(
            "new token counts, patch-mid, cuDNN", lambda: work("patch-mid", False, two)
        )
    finally:
        attention.RARE_TOKENS = rare


def beside_encoding(bench: Bench) -> None:
    """Planning while a chunk is encoded: encoding alone, and with a plan for a new count."""
    if bench.device.type != "cuda":
        bench.rows.measure("planning beside encoding", lambda: {"left_out": "no GPU"})
        return
    codec = random_codec(bench.size, bench.device)
    video = torch.rand(1, 3, 33, bench.size.height, bench.size.width, device=bench.device)
    like = torch.empty(1, 40, 128, device=bench.device, dtype=bench.dtype)

    def work() -> Figures:
        figures: dict[str, Any] = {}
        with torch.inference_mode():
            alone = median_seconds(lambda: codec.encode(video), bench.device, 5, 2)
            figures["encode_ms"] = 1e3 * alone[0]
            begun = time.perf_counter()
            codec.encode(video)
            figures["encode_host_ms"] = 1e3 * (time.perf_counter() - begun)
            synchronise(bench.device)
            beside = []
            for number in range(5):

                def both(tokens: int = 7001 + 131 * number) -> None:
                    with_work_beside(
                        lambda: codec.encode(video),
                        lambda: attention.plan(like, (tokens, 540), tokens),
                        bench.device,
                    )

                beside.append(1e3 * seconds(both, bench.device))
        figures["encode_and_plan_ms"] = sorted(beside)[2]
        return {name: round(value, 1) for name, value in figures.items()}

    bench.rows.measure("planning beside encoding", work)


def variants(bench: Bench) -> None:
    """What other exact ways to meet a new count would cost, one attention call of a given count."""
    if bench.device.type != "cuda":
        bench.rows.measure("attention variants", lambda: {"left_out": "no GPU"})
        return

    def variant(tokens: int, kind: str) -> Figures:
        padded = -(-tokens // 512) * 512
        size = padded if kind == "padded, masked" else tokens
        q, k, v = torch.randn(3, 1, 40, size, 128, device=bench.device, dtype=bench.dtype)
        mask = None
        if kind == "padded, masked":
            mask = torch.arange(size, device=bench.device)[None, None, None] < tokens
        backend = SDPBackend.FLASH_ATTENTION if kind == "flash" else SDPBackend.CUDNN_ATTENTION

        def call() -> Tensor:
            if kind == "ragged":  # lengths lie on the device, plans are for the longest
                ends = torch.tensor([0, tokens], dtype=torch.int32, device=bench.device)
                rows = [x[0].transpose(0, 1).contiguous() for x in (q, k, v)]
                ragged: Any = torch.ops.aten._cudnn_attention_forward
                found: Tensor = ragged(*rows, None, ends, ends, padded, padded, False)[0]
                return found
            with sdpa_kernel(backend):
                return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)

        with torch.inference_mode():
            median, _, first = median_seconds(call, bench.device, 10, 2)
        return {
            "ms": round(1e3 * median, 3),
            "first_ms": round(1e3 * first, 1),
            "tflops": round(4 * tokens**2 * 40 * 128 / median / 1e12),
        }

    for base in (4000, 10400):
        for number, kind in enumerate(("cuDNN", "flash", "padded, masked", "ragged")):
            for step in (1, 2):
                bench.rows.measure(
                    f"attention {kind}, {base + 16 * number + step} tokens",
                    partial(variant, base + 16 * number + step, kind),
                )
