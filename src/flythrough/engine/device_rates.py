"""How fast a device is, tried for a moment. Imports torch only then."""

from __future__ import annotations

import time
from typing import Any


def bus_rate(device: Any) -> float:
    """Bytes a second from page-locked host memory to a GPU; takes a moment."""
    import torch

    size = 1 << 28
    source = torch.empty(size, dtype=torch.uint8, pin_memory=True)
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        source.to(device)
        torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return size / best


def matrix_rate(device: Any) -> float:
    """Floating-point operations a second in matrix products, bfloat16 on a GPU, float32 on a CPU;
    takes a moment."""
    import torch

    on_gpu = device.type == "cuda"
    side = 8192 if on_gpu else 1024
    a = torch.randn(side, side, device=device).to(torch.bfloat16 if on_gpu else torch.float32)

    def timed(repeats: int) -> float:
        started = time.perf_counter()
        for _ in range(repeats):
            a @ a
        if on_gpu:
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    timed(3)
    best = min(timed(10 if on_gpu else 2) / (10 if on_gpu else 2) for _ in range(3))
    return 2.0 * side**3 / best
