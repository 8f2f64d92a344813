"""Published LoRA layouts, the scale of an adapter, and its removal."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import HeliosTransformer3DModel
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from flythrough.errors import WeightsError
from flythrough.models.adapters import attach_lora, attached_loras, detach_lora, set_lora_active
from flythrough.models.helios import HeliosTransformer
from flythrough.models.history_tokens import History, HistoryBand
from flythrough.models.lora_files import LoraFile, read_lora

TINY: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "text_dim": 16,
    "freq_dim": 32,
    "ffn_dim": 32,
    "num_layers": 2,
    "rope_dim": (4, 4, 4),
}
RANK = 3
BLOCK_LAYERS = {
    "attn1.to_q": "self_attn.q",
    "attn1.to_out.0": "self_attn.o",
    "attn2.to_v": "cross_attn.v",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
}


@pytest.fixture
def stock() -> HeliosTransformer3DModel:
    """diffusers' network with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = HeliosTransformer3DModel(**TINY).eval()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture
def ours(stock: HeliosTransformer3DModel) -> HeliosTransformer:
    model = HeliosTransformer(**TINY).eval().requires_grad_(False)
    model.load_state_dict(stock.state_dict())
    return model


INPUTS = torch.Generator().manual_seed(8)
NOISY = torch.randn(1, 16, 2, 8, 8, generator=INPUTS)
TEXT = torch.randn(1, 5, 16, generator=INPUTS)
PAST = {
    name: torch.randn(1, 16, frames, 8, 8, generator=INPUTS)
    for name, frames in (("short", 2), ("mid", 2), ("long", 16))
}
PLACES = {
    "short": torch.tensor([[0, 19]]),
    "mid": torch.tensor([[17, 18]]),
    "long": torch.arange(1, 17)[None],
}
TARGET = torch.arange(20, 22)[None]


@torch.no_grad()
def velocity(model: HeliosTransformer) -> Tensor:
    history = History(**{name: HistoryBand(PAST[name], PLACES[name]) for name in PAST})
    return model(NOISY, torch.tensor([500]), TEXT, indices_hidden_states=TARGET, history=history)


@torch.no_grad()
def stock_velocity(model: nn.Module) -> Tensor:
    given = {f"latents_history_{name}": PAST[name] for name in PAST}
    given |= {f"indices_latents_history_{name}": PLACES[name] for name in PAST}
    return model(
        hidden_states=NOISY,
        timestep=torch.tensor([500]),
        encoder_hidden_states=TEXT,
        indices_hidden_states=TARGET,
        return_dict=False,
        **given,
    )[0]


def linear_layers(model: nn.Module) -> list[str]:
    return [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]


def matrices(model: nn.Module, layers: list[str]) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(2)
    state = {}
    for layer in layers:
        part = model.get_submodule(layer)
        sizes = {"A": (RANK, part.in_features), "B": (part.out_features, RANK)}
        for side, size in sizes.items():
            name = f"{layer}.lora_{side}.weight"
            state[name] = torch.randn(size, generator=source) / math.sqrt(size[1])
    return state


def by_peft(stock: nn.Module, **options: Any) -> nn.Module:
    """PEFT's own wrapping of every linear layer, with random matrices."""
    config = LoraConfig(r=RANK, target_modules=linear_layers(stock), **options)
    wrapped = get_peft_model(stock, config)
    source = torch.Generator().manual_seed(3)
    for name, parameter in wrapped.named_parameters():
        if ".lora_" in name:
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=source)
    return wrapped.eval()


@pytest.mark.parametrize("options", [{"lora_alpha": 6}, {"lora_alpha": 4, "use_rslora": True}])
def test_what_peft_saves_computes_what_peft_computes(
    stock: HeliosTransformer3DModel, ours: HeliosTransformer, tmp_path: Path, options: dict
) -> None:
    assert len(linear_layers(stock)) > 20
    plain = stock_velocity(stock)
    torch.testing.assert_close(velocity(ours), plain, atol=1e-4, rtol=1e-4)
    wrapped = by_peft(stock, **options)
    expected = stock_velocity(wrapped)
    assert (expected - plain).abs().max() > 0.1
    wrapped.save_pretrained(tmp_path / "adapter")
    for path in (tmp_path / "adapter", tmp_path / "adapter" / "adapter_model.safetensors"):
        lora = read_lora(path)
        assert len(lora.layers) == len(linear_layers(ours))
        attach_lora(ours, lora)
        torch.testing.assert_close(velocity(ours), expected, atol=1e-4, rtol=1e-4)
        detach_lora(ours)

    bare = tmp_path / "bare.safetensors"
    save_file(get_peft_model_state_dict(wrapped), bare, metadata={"alpha": str(lora.alpha)})
    attach_lora(ours, read_lora(bare))
    torch.testing.assert_close(velocity(ours), expected, atol=1e-4, rtol=1e-4)


def test_half_the_scale_is_half_of_b(ours: HeliosTransformer) -> None:
    state = matrices(ours, linear_layers(ours))
    lora = LoraFile(state, RANK, 2.0)
    halved = {k: v / 2 if ".lora_B." in k else v for k, v in state.items()}
    attach_lora(ours, lora, scale=0.5)
    found = velocity(ours)
    attach_lora(ours, LoraFile(halved, RANK, 2.0))
    assert torch.equal(velocity(ours), found)
    attach_lora(ours, lora)
    assert not torch.equal(velocity(ours), found)


def test_a_detached_network_is_one_that_never_had_an_adapter(ours: HeliosTransformer) -> None:
    plain, before = velocity(ours), {k: v.clone() for k, v in ours.state_dict().items()}
    kinds = {name: type(part) for name, part in ours.named_modules()}
    lora = LoraFile(matrices(ours, linear_layers(ours)), RANK, 4.0)
    one = LoraFile(matrices(ours, ["blocks.0.attn1.to_q"]), RANK, 4.0)
    attach_lora(ours, one, "one")
    only_one = velocity(ours)
    attach_lora(ours, lora, "all")
    attach_lora(ours, lora, "idle")
    set_lora_active(ours, "idle", False)
    detach_lora(ours, "all")
    assert attached_loras(ours) == ["one", "idle"]
    assert torch.equal(velocity(ours), only_one)
    detach_lora(ours, "one")
    assert torch.equal(velocity(ours), plain)
    detach_lora(ours, "idle")
    assert attached_loras(ours) == []
    assert {name: type(part) for name, part in ours.named_modules()} == kinds
    after = ours.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert torch.equal(velocity(ours), plain)
    with pytest.raises(WeightsError, match="no adapter named 'one'"):
        detach_lora(ours, "one")
    attach_lora(ours, one, "one")
    assert torch.equal(velocity(ours), only_one)


def kohya(state: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    made = {}
    for key, value in state.items():
        layer, _, rest = key.partition(".lora_")
        side = {"A": "down", "B": "up"}[rest[0]]
        made[f"{names[layer]}.lora_{side}.weight"] = value
        made[f"{names[layer]}.alpha"] = torch.tensor(1.5)
    return made


@pytest.mark.parametrize(
    "layout", ["dots", "underscores", "wan dots", "wan underscores", "diffusers", "old diffusers"]
)
def test_layouts_of_other_programs(ours: HeliosTransformer, tmp_path: Path, layout: str) -> None:
    layers = {f"blocks.{i}.{a}": f"blocks.{i}.{b}" for i in (0, 1) for a, b in BLOCK_LAYERS.items()}
    state = matrices(ours, list(layers))
    attach_lora(ours, LoraFile(state, RANK, 1.5))
    expected = velocity(ours)
    if layout.endswith("diffusers"):
        made = {f"transformer.{k}": v for k, v in state.items()}
        if layout == "old diffusers":
            old = {"lora_A": "lora.down", "lora_B": "lora.up"}
            for ours_, theirs in old.items():
                made = {k.replace(ours_, theirs): v for k, v in made.items()}
        made |= {f"transformer.{layer}.alpha": torch.tensor([1.5]) for layer in layers}
    else:
        names = {a: b if "wan" in layout else a for a, b in layers.items()}
        if "underscores" in layout:
            names = {a: "lora_unet_" + b.replace(".", "_") for a, b in names.items()}
        else:
            names = {a: "diffusion_model." + b for a, b in names.items()}
        made = kohya(state, names)
    save_file(made, tmp_path / "lora.safetensors")
    lora = read_lora(tmp_path / "lora.safetensors")
    assert (lora.rank, lora.alpha, len(lora.layers)) == (RANK, 1.5, len(layers))
    attach_lora(ours, lora)
    assert torch.equal(velocity(ours), expected)


def test_alphas_that_cannot_be_used(ours: HeliosTransformer, tmp_path: Path) -> None:
    state = matrices(ours, ["blocks.0.attn1.to_q", "blocks.1.attn1.to_q"])
    file = tmp_path / "lora.safetensors"
    one = "blocks.0.attn1.to_q.alpha"
    cases = {
        "mixes the alphas": {one: torch.tensor(1.0)},
        "not one number of a layer": {"blocks.7.attn1.to_q.alpha": torch.tensor(1.0)},
        r"not one number": {one: torch.ones(2)},
    }
    for message, alphas in cases.items():
        save_file({**state, **alphas}, file)
        with pytest.raises(WeightsError, match=message):
            read_lora(file)
    save_file({**state, one: torch.tensor(float(RANK))}, file)
    assert read_lora(file).alpha == RANK


def test_folders(ours: HeliosTransformer, tmp_path: Path) -> None:
    state = matrices(ours, ["blocks.0.attn1.to_q"])
    with pytest.raises(WeightsError, match=r"holds no adapter.*adapter_config\.json"):
        read_lora(tmp_path)
    for name in ("camera", "other"):  # one file is the adapter, of two nobody knows which
        save_file(state, tmp_path / f"{name}.safetensors")
        if name == "camera":
            assert read_lora(tmp_path).alpha == RANK
    with pytest.raises(WeightsError, match="holds no adapter"):
        read_lora(tmp_path)
    save_file(state, tmp_path / "pytorch_lora_weights.safetensors")
    assert read_lora(tmp_path).alpha == RANK
    save_file(state, tmp_path / "adapter_model.safetensors")
    config: dict[str, Any] = {"lora_alpha": 7, "alpha_pattern": {}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    assert read_lora(tmp_path).alpha == 7
    for broken, message in (
        ({"alpha_pattern": {"to_q": 3}, "lora_alpha": 7}, "alpha_pattern"),
        ({"lora_alpha": "much"}, "no usable alpha"),
        ([], "no usable alpha"),
    ):
        (tmp_path / "adapter_config.json").write_text(json.dumps(broken))
        with pytest.raises(WeightsError, match=message):
            read_lora(tmp_path)


def test_the_published_adapter_keeps_its_reading() -> None:
    file = Path(__file__).parents[2] / "golden/transformer/cases/lora.safetensors"
    lora, stored = read_lora(file), load_file(file)
    assert {f"transformer.{key}" for key in lora.state} == set(stored)
    assert (lora.rank, lora.alpha) == (4, 4.0)
