"""ST-Diff against diffusers' Wan transformer: layout, and one timestep per token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from safetensors.torch import load_file, save_file

from flythrough.errors import InputError, WeightsError
from flythrough.models.loading import load_st_diff
from flythrough.models.st_diff import PUBLISHED_CONFIG, StDiff

TINY: dict[str, Any] = {
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 24,
    "ffn_dim": 64,
    "text_dim": 16,
    "freq_dim": 32,
}


@pytest.fixture(scope="module")
def pair() -> tuple[StDiff, WanTransformer3DModel]:
    torch.manual_seed(3)
    ours = StDiff(**TINY)
    stock = WanTransformer3DModel(**TINY)
    stock.load_state_dict(ours.state_dict())
    return ours.eval(), stock.eval()


def draw(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(seed)
    latents = torch.randn(2, 16, 3, 4, 6, generator=source)
    return latents, torch.randn(2, 5, 16, generator=source)


def test_the_published_network_has_the_published_tensors() -> None:
    with torch.device("meta"):
        state = StDiff(**PUBLISHED_CONFIG).state_dict()
        stock = WanTransformer3DModel(**PUBLISHED_CONFIG).state_dict()
    assert len(state) == 825
    assert sum(tensor.numel() for tensor in state.values()) == 1_418_996_800
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert shapes == {name: tuple(tensor.shape) for name, tensor in stock.items()}
    assert shapes["patch_embedding.weight"] == (1536, 16, 1, 2, 2)
    assert shapes["condition_embedder.time_proj.weight"] == (9216, 1536)
    assert shapes["blocks.29.ffn.net.0.proj.weight"] == (8960, 1536)
    assert shapes["blocks.0.attn2.norm_k.weight"] == (1536,)
    assert shapes["scale_shift_table"] == (1, 2, 1536)


@torch.no_grad()
def test_levels_embedded_once_give_what_stock_gives_token_by_token(
    pair: tuple[StDiff, WanTransformer3DModel],
) -> None:
    ours, stock = pair
    latents, text = draw(1)
    levels = torch.tensor([0.0, 312.5, 957.2, 1000.0])
    source = torch.Generator().manual_seed(2)
    timesteps = levels[torch.randint(4, (2, 3, 2, 3), generator=source)]
    expected = stock(latents, timesteps.flatten(1), text).sample
    found = ours(latents, timesteps, text)
    assert expected.std() > 0.1
    assert torch.allclose(found, expected, atol=1e-5)
    moved = ours(latents, timesteps.flip(1), text)
    assert (moved - found).abs().max() > 1e-3  # every token hears of its own level


@torch.no_grad()
def test_equal_levels_are_the_scalar_path(pair: tuple[StDiff, WanTransformer3DModel]) -> None:
    ours, stock = pair
    latents, text = draw(4)
    expected = stock(latents, torch.full((2,), 640.0), text).sample
    assert torch.allclose(ours(latents, torch.full((2, 3, 2, 3), 640.0), text), expected, atol=1e-5)
    assert torch.equal(ours(latents, torch.full((2,), 640.0), text).sample, expected)


def test_gradients_are_those_of_stock(pair: tuple[StDiff, WanTransformer3DModel]) -> None:
    ours, stock = pair
    latents, text = draw(5)
    timesteps = torch.rand(2, 3, 2, 3).round() * 700 + 100
    gradients = []
    for net, given in ((ours, timesteps), (stock, timesteps.flatten(1))):
        net.zero_grad()
        out = net(latents, given, text)
        (out if isinstance(out, torch.Tensor) else out.sample).square().mean().backward()
        gradients.append({name: p.grad for name, p in net.named_parameters()})
    for name, expected in gradients[1].items():
        assert torch.allclose(gradients[0][name], expected, atol=1e-5), name
    ours.enable_gradient_checkpointing()
    ours.zero_grad()
    ours(latents, timesteps, text).square().mean().backward()
    ours.disable_gradient_checkpointing()
    again = ours.blocks[0].attn1.to_q.weight.grad
    assert torch.allclose(again, gradients[0]["blocks.0.attn1.to_q.weight"], atol=1e-6)


def test_folders_are_read_by_both(
    pair: tuple[StDiff, WanTransformer3DModel], tmp_path: Path
) -> None:
    ours, stock = pair
    ours.save_pretrained(tmp_path / "ours")
    stock.save_pretrained(tmp_path / "stock")
    read = WanTransformer3DModel.from_pretrained(tmp_path / "ours")
    assert type(read) is WanTransformer3DModel
    back = load_st_diff(tmp_path / "stock", torch.float32)
    assert all(torch.equal(v, back.state_dict()[k]) for k, v in stock.state_dict().items())
    halved = load_st_diff(tmp_path / "ours", torch.bfloat16)
    assert halved.proj_out.weight.dtype == torch.bfloat16
    assert halved.scale_shift_table.dtype == torch.float32


def test_a_folder_that_lacks_tensors_is_refused(
    pair: tuple[StDiff, WanTransformer3DModel], tmp_path: Path
) -> None:
    pair[0].save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    del state["blocks.1.norm2.weight"]
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"blocks\.1\.norm2\.weight"):
        load_st_diff(tmp_path, torch.float32)


def test_networks_of_another_kind_are_refused(pair: tuple[StDiff, WanTransformer3DModel]) -> None:
    with pytest.raises(WeightsError, match="image branch"):
        StDiff(**TINY, image_dim=16, added_kv_proj_dim=48)
    latents, text = draw(6)
    with pytest.raises(InputError, match="one timestep for each 2x2 patch"):
        pair[0](latents, torch.zeros(2, 3, 4, 6), text)
