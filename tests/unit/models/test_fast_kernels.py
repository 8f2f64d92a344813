"""Triton kernels equal their plain twins; without a GPU they are interpreted."""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor

from flythrough.errors import InputError
from flythrough.models.fast.activations import Activations
from flythrough.models.fast.eight_bit_attention import quantise_heads
from flythrough.models.fast.elementwise import Elementwise, TorchElementwise
from flythrough.models.fast.fp8 import aligned, dequantised_product, quantise_rows, scaled_product
from flythrough.models.fast.kernels import choose_kernels, has_triton
from flythrough.models.rotary import Tables

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
needs_triton = pytest.mark.skipif(
    not has_triton() or not (CUDA or os.environ.get("TRITON_INTERPRET") == "1"),
    reason="needs Triton and a GPU, or TRITON_INTERPRET=1",
)
WIDTH, HEADS, TOKENS, PAST = 48, 3, 5, 2

SAME = 0.999 if CUDA else 0.95
"""Share of equal 8-bit values. Triton's interpreter drops the carry where rounding reaches the next
power of two, so that a few values come out half as large."""


def agreeing(ours: Tensor, twin: Tensor) -> float:
    return float(torch.isclose(ours, twin, rtol=0.13, atol=0.01).float().mean())


def pair() -> tuple[Elementwise, Elementwise]:
    return TorchElementwise(), choose_kernels("triton", DEVICE)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


@needs_triton
@pytest.mark.parametrize("past", [0, PAST])
def test_residual_norm(past: int) -> None:
    """With and without update and gate, on views, two samples."""
    rows = [draw(2, 2, WIDTH, seed=n) for n in (1, 2, 3)]
    for update, gate in ((None, None), (draw(2, TOKENS, WIDTH, seed=4), None), (1, rows[0])):
        added = draw(2, TOKENS, WIDTH, seed=5) if isinstance(update, int) else update
        results = []
        for kernels in pair():
            x = draw(2, TOKENS + 1, WIDTH)[:, 1:]
            out = Activations.empty(draw(2, TOKENS + 1, WIDTH), plain=True, fp8=True).since(1)
            kernels.residual_norm(x, added, gate, rows[1], rows[2], past, 1e-6, out)
            assert out.quantised is not None
            assert out.scales is not None
            results.append((x, out.values, out.quantised.float() * out.scales))
        for ours, twin in zip(results[1][:2], results[0][:2], strict=True):
            torch.testing.assert_close(ours, twin, rtol=2e-6, atol=2e-6)
        assert agreeing(results[1][2], results[0][2]) > SAME


@needs_triton
@pytest.mark.parametrize("rotated", [False, True])
def test_norm_rotate(rotated: bool) -> None:
    angles = draw(1, TOKENS, WIDTH // HEADS // 2)
    tables = Tables(angles.cos(), angles.sin()) if rotated else None
    weight = draw(WIDTH, seed=6)
    results = []
    for kernels in pair():
        x = draw(2, TOKENS, 3 * WIDTH)
        kernels.norm_rotate(x[..., WIDTH : 2 * WIDTH], weight, 1e-6, tables)
        results.append(x)
    torch.testing.assert_close(results[1], results[0], rtol=2e-6, atol=2e-6)


@needs_triton
@pytest.mark.parametrize("asking", [3, 70])
def test_quantise_heads(asking: int) -> None:
    """Queries, keys and values as slices of joint products, one head much larger than others."""
    from flythrough.models.fast.heads_triton import quantise_heads as in_triton

    joint = draw(2, 70, 3, HEADS, WIDTH // HEADS)
    joint[:, :, :, 1] *= 100
    q, k, v = joint[:, -asking:, 0], joint[:, :, 1], joint[:, :, 2]
    for part, ours, scale in zip((q, k, v), *in_triton(q, k, v), strict=True):
        twin, wanted = quantise_heads(part)
        torch.testing.assert_close(scale, wanted, rtol=1e-6, atol=0)
        assert ours.shape == part.shape
        assert ours.is_contiguous()
        assert agreeing(ours.float(), twin.float()) > SAME


@needs_triton
@pytest.mark.parametrize("gelu", [False, True])
def test_quantise(gelu: bool) -> None:
    twin, ours = (kernels.quantise(draw(2, TOKENS, 40), gelu) for kernels in pair())
    for one in (twin, ours):
        assert one.quantised is not None
        assert one.scales is not None
    torch.testing.assert_close(ours.scales, twin.scales)
    assert ours.quantised is not None
    assert twin.quantised is not None
    assert agreeing(ours.quantised.float(), twin.quantised.float()) > SAME


def test_scales_of_tokens_behind_any_history_begin_where_cublas_reads() -> None:
    scales = torch.rand(64, 1)
    for past in range(8):
        found = aligned(scales[past:])
        assert found.data_ptr() % 16 == 0
        assert torch.equal(found, scales[past:])
    assert aligned(scales).data_ptr() == scales.data_ptr()  # no copy where none is needed


def test_products_give_cublas_such_scales(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnGpu:
        """Stands in for tokens on a GPU, which is all that is asked of them."""

        device = torch.device("cuda")

    given: list[torch.Tensor] = []

    def product(*_: object, scale_a: torch.Tensor, **__: object) -> torch.Tensor:
        given.append(scale_a)
        return torch.empty(0)

    monkeypatch.setattr(torch, "_scaled_mm", product)
    scales, weight = torch.rand(8, 1), torch.zeros(4, 4)
    scaled_product(OnGpu(), scales[3:], weight, torch.ones(4, 1), None, torch.float32)  # type: ignore[arg-type]
    assert given[0].data_ptr() % 16 == 0
    assert torch.equal(given[0], scales[3:])


def test_rows_of_any_size_fit_eight_bits() -> None:
    """Zero rows stay zero, large rows stay finite, the largest value is kept exactly."""
    x = torch.stack([torch.zeros(16), 1e30 * torch.ones(16), torch.linspace(-2, 2, 16)])
    values, scale = quantise_rows(x)
    back = values.float() * scale
    assert torch.equal(back[0], x[0])
    assert torch.isfinite(back).all()
    torch.testing.assert_close(back, x, rtol=2**-4, atol=2e-3)
    torch.testing.assert_close(back[2, -1], x[2, -1])
    weight, weight_scale = quantise_rows(torch.eye(16))
    product = dequantised_product(values, scale, weight, weight_scale, None, torch.float32)
    torch.testing.assert_close(product, back)


@pytest.mark.skipif(has_triton(), reason="Triton is installed")
def test_missing_triton_is_named() -> None:
    with pytest.raises(InputError, match="need the package triton"):
        choose_kernels("triton", DEVICE)
