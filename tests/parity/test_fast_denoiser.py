"""The fast denoiser equals the plain one: all kinds of history, adapters, compiling, 8 bits."""

from __future__ import annotations

import copy
from functools import cache
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor

from flythrough.conditioning.history import native_history, target_indices
from flythrough.conditioning.warped_history import WarpHistorySettings, warped_history
from flythrough.errors import InputError, WeightsError
from flythrough.models.adapters import (
    attach_lora,
    detach_lora,
    lora_state,
    new_lora,
    set_lora_active,
)
from flythrough.models.fast import attention as module
from flythrough.models.fast import elementwise, kernels
from flythrough.models.fast.attention import attention, is_hopper, is_planned, prompt_backend, sdpa
from flythrough.models.fast.denoiser import FastDenoiser, same_tensor
from flythrough.models.fast.fp8 import PRODUCTS, Fp8Linear, quantise_blocks
from flythrough.models.fast.settings import AdapterPlace, FastSettings
from flythrough.models.helios import HeliosTransformer
from flythrough.models.history_tokens import History
from flythrough.models.lora_files import LoraFile

SMALL: dict[str, Any] = {
    "num_attention_heads": 3,
    "attention_head_dim": 16,
    "text_dim": 24,
    "freq_dim": 64,
    "ffn_dim": 40,
    "num_layers": 3,
    "rope_dim": (8, 4, 4),
}
SIZE = (16, 24)
CPU = torch.device("cpu")
TOLERANCE = 2e-6
"""Of velocities of unit size, float32 against float32: another order of the same sums."""


@cache
def base() -> HeliosTransformer:
    torch.manual_seed(5)
    net = HeliosTransformer(**SMALL).eval().requires_grad_(False)
    for parameter in net.parameters():  # biases and norms must count
        parameter.add_(0.1 * torch.randn_like(parameter))
    return net


def fresh() -> HeliosTransformer:
    return copy.deepcopy(base())


def adapter(net: HeliosTransformer) -> LoraFile:
    """On self attention and, as styles may, on the feed-forward and the prompt's keys."""
    new_lora(net, rank=4, name="draft")
    state = {k: 0.1 * torch.randn_like(v) for k, v in lora_state(net, "draft").items()}
    detach_lora(net, "draft")
    for layer, wide in (("blocks.1.ffn.net.2", 40), ("blocks.0.attn2.to_k", 48)):
        state[f"{layer}.lora_A.weight"] = 0.1 * torch.randn(4, wide)
        state[f"{layer}.lora_B.weight"] = 0.1 * torch.randn(48, 4)
    return LoraFile(state=state, rank=4, alpha=8.0)


def history(kind: str, seed: int = 0) -> tuple[History | None, Tensor]:
    """What the denoiser is given for text, image and camera, and a camera with half in view."""
    source = torch.Generator().manual_seed(seed)

    def latents(frames: int) -> Tensor:
        return torch.randn(1, 16, frames, *SIZE, generator=source)

    if kind == "none":
        return None, target_indices(1)
    if kind == "text":
        return native_history(torch.zeros(1, 16, 0, *SIZE), torch.zeros(1, 16, 1, *SIZE)), (
            target_indices(1)
        )
    if kind == "image":
        return native_history(latents(1), latents(1)), target_indices(1)
    seen = torch.ones(1, 9, *SIZE)
    if kind in ("half-seen", "patch-mid"):
        seen = (torch.rand(1, 9, *SIZE, generator=source) > 0.5).float()
    elif kind == "nothing-seen":
        seen = torch.zeros(1, 9, *SIZE)
    mode = "patch_mid" if kind == "patch-mid" else "short"
    settings = WarpHistorySettings(threshold=0.6, mode=mode)
    return warped_history(latents(1), latents(12), latents(9), seen, settings=settings)


KINDS = ["none", "text", "image", "all-seen", "half-seen", "nothing-seen", "patch-mid"]


def inputs(kind: str, seed: int = 0, shape: tuple[int, int] = (4, 6)) -> dict[str, Any]:
    source = torch.Generator().manual_seed(100 + seed)
    past, target = history(kind, seed)
    return {
        "hidden_states": torch.randn(1, 16, 9, *shape, generator=source),
        "timestep": torch.tensor([640.5]),
        "encoder_hidden_states": torch.randn(1, 7, 24, generator=source),
        "indices_hidden_states": target,
        "history": past,
    }


def gap(net: HeliosTransformer, fast: FastDenoiser, given: dict[str, Any]) -> float:
    with torch.inference_mode():
        plain = net(**given)
        found = fast(**given)
    assert found.shape == plain.shape
    return float((found - plain).abs().max() / plain.square().mean().sqrt())


@pytest.mark.parametrize("kind", KINDS)
def test_every_history(kind: str) -> None:
    net = fresh()
    fast = FastDenoiser(net, FastSettings(kernels="torch"))
    assert gap(net, fast, inputs(kind)) < TOLERANCE


@pytest.mark.parametrize("place", ["beside", "merged"])
def test_adapter_of_one_stage(place: Any) -> None:
    """On, off and on again with another prompt and history, as the stages of chunks alternate."""
    net = fresh()
    torch.manual_seed(8)
    attach_lora(net, adapter(net))
    fast = FastDenoiser(net, FastSettings(kernels="torch", adapter=place))
    results = []
    for number, active in enumerate([True, False, True, False]):
        set_lora_active(net, "camera", active)
        given = inputs("half-seen" if active else "image", seed=number // 2)
        assert gap(net, fast, given) < 2 * TOLERANCE
        results.append(fast(**given))
    set_lora_active(net, "camera", False)
    assert (fast(**inputs("half-seen", seed=1)) - results[2]).abs().max() > 1e-3
    detach_lora(net, "camera")
    assert gap(net, fast, inputs("half-seen")) < TOLERANCE


def test_stages_prompts_and_batches() -> None:
    """What is kept belongs to its stage, prompt and weights."""
    net = fresh()
    fast = FastDenoiser(net)
    one, two = inputs("image"), inputs("image", seed=1)
    packed = net.pack_history(one["history"])
    for shape in [(2, 2), (4, 6), (8, 12)]:
        assert gap(net, fast, {**inputs("image", shape=shape), "history": packed}) < TOLERANCE
    other = {**one, "encoder_hidden_states": two["encoder_hidden_states"]}
    later = {**one, "timestep": torch.tensor([80.0])}
    for given in (one, other, later, two, one):
        assert gap(net, fast, given) < TOLERANCE
    both = {
        **one,
        "hidden_states": torch.cat([one["hidden_states"], two["hidden_states"]]),
        "timestep": torch.tensor([900.0, 30.0]),
        "encoder_hidden_states": torch.cat(
            [one["encoder_hidden_states"], two["encoder_hidden_states"]]
        ),
    }
    assert gap(net, fast, both) < TOLERANCE
    with torch.no_grad():
        for parameter in net.blocks.parameters():
            parameter.mul_(1.1)
    fast.forget()
    assert gap(net, fast, one) < TOLERANCE


def test_weights_are_shared_and_survive() -> None:
    """Joining projections stores nothing twice and changes no weight and no name."""
    net, before = fresh(), base().state_dict()
    FastDenoiser(net)(**inputs("text"))
    after = net.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    own = net.blocks[0].attn1
    storages = {getattr(own, n).weight.untyped_storage().data_ptr() for n in ("to_q", "to_v")}
    assert len(storages) == 1


def test_eight_bits() -> None:
    """Plain layers and the fast path quantise alike; the result stays near the exact one."""
    exact, net = base(), fresh()
    quantise_blocks(net.blocks)
    quantise_blocks(net.blocks)
    for block in net.blocks:
        assert all(isinstance(block.get_submodule(name), Fp8Linear) for name in PRODUCTS)
    torch.manual_seed(8)
    attach_lora(net, adapter(net))
    places: list[AdapterPlace] = ["beside", "merged"]
    for place in places:
        fast = FastDenoiser(net, FastSettings(adapter=place))
        set_lora_active(net, "camera", False)
        given = inputs("half-seen")
        with torch.inference_mode():
            wanted, plain, found = exact(**given), net(**given), fast(**given)
        size = wanted.square().mean().sqrt()
        assert (found - plain).square().mean().sqrt() / size < 0.02
        assert 1e-4 < (found - wanted).square().mean().sqrt() / size < 0.08
        set_lora_active(net, "camera", True)
        with torch.inference_mode():
            plain, found = net(**given), fast(**given)
        assert (found - plain).square().mean().sqrt() / size < 0.06


def test_compiled_once_for_all_token_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty chunks whose visibility changes compile nothing after the first."""
    monkeypatch.setattr(elementwise, "COMPILER", "eager")  # the front end alone: it is what counts
    torch._dynamo.reset()
    kernels._made.cache_clear()
    net = fresh()
    torch.manual_seed(8)
    attach_lora(net, adapter(net))
    fast = FastDenoiser(net, FastSettings(kernels="compiled"))
    counts, lengths = [], set()
    for chunk in range(20):
        set_lora_active(net, "camera", True)
        given = inputs("half-seen", chunk, (2, 2))
        lengths.add(net.pack_history(given["history"]).tokens.shape[1])
        fast(**given)
        set_lora_active(net, "camera", False)
        fast(**inputs("image", chunk, (2, 2)))
        counts.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert gap(net, fast, inputs("half-seen")) < TOLERANCE
    kernels._made.cache_clear()
    assert len(lengths) > 5
    assert counts[0] > 0
    assert len(set(counts)) == 1


def test_what_cannot_run_is_refused() -> None:
    with pytest.raises(WeightsError, match="read the prompt"):
        FastDenoiser(HeliosTransformer(**{**SMALL, "guidance_cross_attn": False}))
    if find_spec("flash_attn") is None:
        with pytest.raises(InputError, match="none of fa3_fwd_interface, flash_attn_interface"):
            attention("flash", CPU)


def test_attention_by_setting() -> None:
    """A CPU has torch's attention, whatever is installed; 8 bits are imitated there."""
    q, k, v = (torch.randn(2, tokens, 3, 16) for tokens in (7, 20, 20))
    exact = attention("sdpa", CPU)(q, k, v, None)
    assert torch.equal(attention("auto", CPU)(q, k, v, None), exact)
    near = attention("flash8", CPU)(q, k, v, None)
    assert 1e-3 < float((near - exact).norm() / exact.norm()) < 0.1
    mask = torch.arange(20)[None, None, None].expand(2, 1, 1, 20) < 11
    for word in ("auto", "flash8"):
        masked = attention(word, CPU)(q, k, v, mask)
        seen = attention("sdpa", CPU)(q, k[:, :11], v[:, :11], None)
        torch.testing.assert_close(masked, seen, rtol=1e-5, atol=1e-6)
    assert prompt_backend("flash8") == "auto"
    assert not any(is_planned(word, CPU, torch.bfloat16) for word in ("auto", "sdpa", "flash"))


@pytest.mark.parametrize("past", [True, False])
def test_flash_attention_3_takes_what_it_knows(past: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its operator is called for bfloat16 without mask on a Hopper, and for nothing else."""
    asked: list[tuple[torch.dtype, dict[str, Any]]] = []

    def operator(q: Tensor, k: Tensor, v: Tensor, **more: Any) -> tuple[Tensor, ...]:
        asked.append((q.dtype, more))
        wide = [part.to(torch.bfloat16) for part in (q, k, v)]
        return sdpa(wide[0], wide[1], wide[2], None), q, q, q

    monkeypatch.setattr(module, "flash3", lambda: operator)
    monkeypatch.setattr(module, "has_flash3", lambda _: True)
    q, k, v = (torch.randn(1, 6, 2, 16).to(torch.bfloat16) for _ in range(3))
    mask = torch.ones(1, 1, 1, 6, dtype=torch.bool)
    for word in ("auto", "flash"):
        attend = attention(word, CPU)
        attend(q, k, v, None)
        attend(q, k, v, mask if past else None)
        attend(q.float(), k.float(), v.float(), None)
    assert [kind for kind, _ in asked] == [torch.bfloat16] * (2 if past else 4)
    assert not is_planned("auto", torch.device("cuda"), torch.bfloat16)
    assert is_planned("auto", torch.device("cuda"), torch.float32)
    assert is_planned("sdpa", torch.device("cuda"), torch.bfloat16)
    asked.clear()
    attention("flash8", CPU)(q, k, v, None)
    ((kind, more),) = asked
    assert kind == torch.float8_e4m3fn
    scales = [more[f"{part}_descale"] for part in ("q", "k", "v")]
    assert [tuple(scale.shape) for scale in scales] == [(1, 2)] * 3
    asked.clear()
    odd = torch.randn(1, 6, 2, 24).to(torch.bfloat16)  # 24 bytes in 8 bits, 48 in 16
    attention("flash8", CPU)(odd, odd, odd, None)
    ((kind, _),) = asked
    assert kind == torch.bfloat16


def test_a_hopper_is_nvidias(monkeypatch: pytest.MonkeyPatch) -> None:
    """AMD's MI300 says 9.4 too."""
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(torch.version, "hip", None)
    assert is_hopper(gpu)
    assert not is_hopper(CPU)
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert not is_hopper(gpu)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (10, 0))
    assert not is_hopper(gpu)


@pytest.mark.parametrize("kind", ["text", "native", "half-seen"])
def test_attention_in_8_bits_is_near(kind: str) -> None:
    net, given = fresh(), inputs(kind)
    off = gap(net, FastDenoiser(net, FastSettings(attention="flash8")), given)
    assert 1e-5 < off < 0.05


def test_a_kept_prompt_is_known_without_looking_at_its_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = torch.rand(1, 3, 4), torch.rand(1, 3, 4)
    looked: list[Tensor] = []
    equal = torch.equal

    def watched(one: Tensor, other: Tensor) -> bool:
        looked.append(other)
        return equal(one, other)

    monkeypatch.setattr(torch, "equal", watched)
    assert same_tensor([first, second], first) == 0
    assert same_tensor([first, second], second) == 1
    assert not looked
    assert same_tensor([first, second], second.clone()) == 1
    assert same_tensor([first, second], torch.rand(1, 3, 4)) is None
    assert looked
