"""What the device can do at best: matrix products and attention on random values."""

from __future__ import annotations

from typing import Any

import torch

from flythrough.bench.clock import median_seconds
from flythrough.models.fast.attention import attention, has_flash3, preferred_backends, sdpa
from flythrough.models.fast.fp8 import quantise_rows, scaled_product

ATTENTION_TOKENS = (2940, 4560, 11040)


def product_ceiling(
    device: torch.device, dtype: torch.dtype, side: int, runs: int
) -> dict[str, Any]:
    """TFLOP/s of a square product in ``dtype``, or in e4m3 with row scales."""
    x, w = (torch.randn(side, side, device=device) for _ in range(2))
    if dtype == torch.float8_e4m3fn:
        pairs = [quantise_rows(part) for part in (x, w)]
        (a, a_scale), (b, b_scale) = pairs

        def work() -> object:
            return scaled_product(a, a_scale, b, b_scale, None, torch.bfloat16)
    else:
        x, w = x.to(dtype), w.to(dtype)

        def work() -> object:
            return x @ w.t()

    median, _, _ = median_seconds(work, device, runs, 3)
    return {"side": side, "tflops": _tflops(2 * side**3, median)}


def attention_ceiling(
    device: torch.device, dtype: torch.dtype, tokens: int, heads: int, width: int, runs: int
) -> dict[str, Any]:
    """TFLOP/s of self attention through each way that is there."""
    q, k, v = (torch.randn(1, tokens, heads, width, device=device, dtype=dtype) for _ in range(3))
    found: dict[str, Any] = {"tokens": tokens}
    flops = 4 * tokens**2 * heads * width
    with preferred_backends(device):
        median, _, _ = median_seconds(lambda: sdpa(q, k, v, None), device, runs, 3)
    found["preferred_tflops"] = _tflops(flops, median)
    joint = torch.randn(1, tokens, 3, heads, width, device=device, dtype=dtype)
    q, k, v = joint.unbind(2)  # as the denoiser's joint product leaves them
    with preferred_backends(device):
        median, _, _ = median_seconds(lambda: sdpa(q, k, v, None), device, runs, 3)
    found["joint_tflops"] = _tflops(flops, median)
    median, _, _ = median_seconds(lambda: sdpa(q, k, v, None), device, runs, 3)
    found["default_tflops"] = _tflops(flops, median)
    if has_flash3(device):
        ways = {"flash": attention("flash", device), "flash_8_bits": attention("flash8", device)}
        for name, attend in ways.items():  # 8 bits: with the passes that make them
            median, _, _ = median_seconds(lambda a=attend: a(q, k, v, None), device, runs, 3)  # type: ignore[misc]
            found[f"{name}_tflops"] = _tflops(flops, median)
    return found


def _tflops(operations: int, seconds: float) -> float:
    """Four digits, however slow the device: others divide by it."""
    return float(f"{operations / seconds / 1e12:.4g}")
