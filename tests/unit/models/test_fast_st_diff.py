"""ST-Diff on the fast path: the plain class again, and the kernel its plain twin again."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from flythrough.models.fast import elementwise, leveled
from flythrough.models.fast.fp8 import quantise_blocks
from flythrough.models.fast.kernels import has_triton
from flythrough.models.fast.leveled import choose_leveled, leveled_norm
from flythrough.models.fast.settings import FastSettings
from flythrough.models.fast.st_diff import FastStDiff, why_not
from flythrough.models.st_diff import StDiff

TINY: dict[str, Any] = {
    "num_layers": 3,
    "num_attention_heads": 2,
    "attention_head_dim": 24,
    "ffn_dim": 64,
    "text_dim": 16,
    "freq_dim": 32,
}
CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")


def network(seed: int = 3) -> StDiff:
    torch.manual_seed(seed)
    net = StDiff(**TINY).eval()
    for parameter in net.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return net


def drawn(seed: int, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(seed)
    latents = torch.randn(batch, 16, 3, 4, 6, generator=source)
    text = torch.randn(batch, 5, 16, generator=source)
    levels = torch.tensor([0.0, 312.5, 1000.0])
    return latents, levels[torch.randint(3, (batch, 3, 2, 3), generator=source)], text


@torch.no_grad()
def test_the_same_velocity() -> None:
    net = network()
    fast = FastStDiff(net)
    for seed in (1, 2):
        latents, timesteps, text = drawn(seed)
        expected = net(latents, timesteps, text)
        kept = latents.clone()
        found = fast(latents, timesteps, text)
        assert expected.std() > 0.1
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(fast(latents, timesteps, text.clone()), found)
        assert torch.equal(latents, kept)


@torch.no_grad()
def test_bfloat16_is_as_near_to_float32_as_the_plain_path() -> None:
    net, exact = network(), network()
    torch.nn.Module.to(net, torch.bfloat16)
    for narrow, wide in zip(net.parameters(), exact.parameters(), strict=True):
        wide.copy_(narrow.float())
    latents, timesteps, text = drawn(5)
    wanted = exact(latents, timesteps, text)
    plain, fast = (one(latents, timesteps, text).float() for one in (net, FastStDiff(net)))

    def off(found: torch.Tensor) -> float:
        return float((found - wanted).norm() / wanted.norm())

    assert off(fast) < 1.25 * off(plain) + 1e-3


@torch.no_grad()
def test_eight_bits_run_and_stay_near() -> None:
    net = network()
    latents, timesteps, text = drawn(6)
    expected = net(latents, timesteps, text)
    quantise_blocks(net.blocks)
    found = FastStDiff(net)(latents, timesteps, text)
    assert 0 < float((found - expected).norm() / expected.norm()) < 0.15


@torch.no_grad()
def test_moved_weights_are_seen() -> None:
    net = network()
    fast = FastStDiff(net)
    latents, timesteps, text = drawn(7)
    before = fast(latents, timesteps, text)
    net.load_state_dict(network(9).state_dict())
    fast.forget()
    after = fast(latents, timesteps, text)
    torch.testing.assert_close(after, net(latents, timesteps, text), atol=2e-5, rtol=1e-5)
    assert (after - before).abs().max() > 1e-2


def test_a_network_without_the_norm_is_refused_by_name() -> None:
    net = StDiff(**{**TINY, "cross_attn_norm": False})
    assert "norm" in str(why_not(net))
    assert why_not(network()) is None


@torch.no_grad()
def test_the_compiled_norm_is_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elementwise, "COMPILER", "eager")
    monkeypatch.setattr(leveled, "_KEPT", [])
    net = network()
    latents, timesteps, text = drawn(8)
    found = FastStDiff(net, FastSettings(kernels="compiled"))(latents, timesteps, text)
    torch.testing.assert_close(found, net(latents, timesteps, text), atol=2e-5, rtol=1e-5)


@pytest.mark.skipif(
    not has_triton() or not (CUDA or os.environ.get("TRITON_INTERPRET") == "1"),
    reason="needs Triton and a GPU, or TRITON_INTERPRET=1",
)
@pytest.mark.parametrize("case", ["bare", "update", "gated"])
def test_the_kernel_is_its_twin(case: str) -> None:
    def draw(*shape: int, seed: int) -> torch.Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)

    rows = [draw(3, 48, seed=n) for n in (1, 2, 3)]
    level = torch.arange(10, device=DEVICE).remainder(3).view(2, 5)
    update = None if case == "bare" else draw(2, 5, 48, seed=4)
    gate = rows[0] if case == "gated" else None
    results = []
    for norm in (leveled_norm, choose_leveled("triton", DEVICE)):
        x = draw(2, 5, 48, seed=5)
        results.append((norm(x, update, gate, rows[1], rows[2], level, 1e-6), x))
    torch.testing.assert_close(results[1], results[0], rtol=2e-6, atol=2e-6)
