"""The Wan codec's kernels equal their plain twins; without a GPU they are interpreted."""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor

from flythrough.models.fast.kernels import has_triton
from flythrough.models.fast.wan_passes import TorchPasses, choose_passes

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
pytestmark = pytest.mark.skipif(
    not has_triton() or not (CUDA or os.environ.get("TRITON_INTERPRET") == "1"),
    reason="needs Triton and a GPU, or TRITON_INTERPRET=1",
)
BATCH, FRAMES, HEIGHT, WIDTH, CHANNELS = 2, 3, 4, 6, 24


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=source).to(DEVICE, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("kind", ["plain", "doubled", "folded", "bare", "kept"])
def test_kernel_equals_its_twin(kind: str, dtype: torch.dtype) -> None:
    """With and without bias, stream, norm, SiLU and doubling; into parts of larger buffers."""
    shape = (BATCH, FRAMES, HEIGHT, WIDTH, CHANNELS)
    given = shape
    if kind == "doubled":
        given = (BATCH, FRAMES, HEIGHT // 2 + 1, WIDTH // 2 + 1, 4 * CHANNELS)
    found = []
    for passes in (TorchPasses(), choose_passes("triton", DEVICE)):
        update = draw(*given, seed=1, dtype=dtype)
        stream = draw(*shape, seed=2, dtype=dtype) if kind in ("plain", "folded") else None
        bias = None if kind == "bare" else draw(CHANNELS, seed=3)
        gain = None if kind == "kept" else 3 * draw(CHANNELS, seed=4)
        buffer = draw(BATCH, FRAMES + 2, HEIGHT, WIDTH, CHANNELS, seed=5, dtype=dtype)
        place = buffer[:, 2:]
        if kind == "folded":
            buffer = place = draw(*shape[:-1], 3 * CHANNELS, seed=5, dtype=dtype)
        target = stream
        if kind in ("doubled", "kept"):
            target = torch.zeros(shape, device=DEVICE, dtype=dtype)
        out = None if gain is None else place
        silu, doubled = kind != "bare", kind == "doubled"
        passes.join(update, bias, stream, gain, out, target=target, silu=silu, doubled=doubled)
        found.append([buffer] if target is None else [buffer, target])
    limit = 2e-6 if dtype == torch.float32 else 2e-3
    for twin, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, twin, rtol=limit, atol=limit)


def test_float16_saturates() -> None:
    """A sum beyond 65504 is cut there by both."""
    for passes in (TorchPasses(), choose_passes("triton", DEVICE)):
        update = torch.full((1, 1, 2, 2, 16), 6e4, device=DEVICE, dtype=torch.float16)
        passes.join(update, None, update.clone(), None, None, target=update)
        assert (update == 65504).all()
