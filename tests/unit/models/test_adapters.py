"""Adapters: files, attachment beside the weights, switching, training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import HeliosTransformer3DModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from flythrough.errors import WeightsError
from flythrough.models.adapters import attach_lora, lora_state, new_lora, set_lora_active
from flythrough.models.helios import HeliosTransformer
from flythrough.models.lora_files import LoraFile, read_lora, save_lora

GOLDEN = Path(__file__).parents[2] / "golden" / "transformer"
PUBLISHED = GOLDEN / "cases" / "lora.safetensors"


@pytest.fixture
def model() -> HeliosTransformer:
    loaded: HeliosTransformer = HeliosTransformer.from_pretrained(GOLDEN / "model" / "transformer")
    return loaded.eval().requires_grad_(False)


def velocity(model: HeliosTransformer) -> Tensor:
    source = torch.Generator().manual_seed(3)
    with torch.no_grad():
        return model(
            torch.randn(1, 16, 2, 4, 4, generator=source),
            torch.tensor([500]),
            torch.randn(1, 6, 32, generator=source),
            indices_hidden_states=torch.arange(20, 22)[None],
        )


def scaled(lora: LoraFile, factor: float) -> LoraFile:
    return LoraFile({k: v * factor for k, v in lora.state.items()}, lora.rank, lora.alpha)


def test_published_keys_with_and_without_prefix_and_name(tmp_path: Path) -> None:
    expected = read_lora(PUBLISHED)
    assert (expected.rank, expected.alpha, len(expected.layers)) == (4, 4.0, 8)
    bare = {k.removeprefix("transformer."): v for k, v in load_file(PUBLISHED).items()}
    named = {k.replace(".weight", ".default.weight"): v for k, v in bare.items()}
    for number, tensors in enumerate((bare, named)):
        save_file(tensors, tmp_path / f"{number}.safetensors")
        found = read_lora(tmp_path / f"{number}.safetensors").state
        assert found.keys() == expected.state.keys()
        assert all(torch.equal(found[key], expected.state[key]) for key in found)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".CKPT"])
def test_pickled_files_name_the_conversion(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(WeightsError, match="flythrough models convert"):
        read_lora(tmp_path / f"lora{suffix}")


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="not a readable adapter"):
        read_lora(tmp_path / "absent.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no safetensors at all")
    with pytest.raises(WeightsError, match="not a readable adapter"):
        read_lora(broken)

    a, b = torch.zeros(4, 8), torch.zeros(8, 4)
    cases: list[tuple[str, dict[str, Tensor]]] = [
        ("no tensors", {}),
        ("not LoRA", {"blocks.0.attn1.to_q.weight": a}),
        ("not LoRA", {"x.lora_A.weight": torch.zeros(4)}),
        ("only one of", {"x.lora_A.weight": a}),
        ("mixes the ranks", {"x.lora_A.weight": a, "x.lora_B.weight": torch.zeros(8, 2)}),
    ]
    for message, tensors in cases:
        file = tmp_path / "case.safetensors"
        save_file(tensors, file)
        with pytest.raises(WeightsError, match=message):
            read_lora(file)
    save_file({"x.lora_A.weight": a, "x.lora_B.weight": b}, file, metadata={"alpha": "lots"})
    with pytest.raises(WeightsError, match="no usable alpha"):
        read_lora(file)


def test_adapter_of_another_model(model: HeliosTransformer) -> None:
    a, b = torch.zeros(4, 5120), torch.zeros(5120, 4)
    name = "blocks.0.attn1.to_q"
    wide = LoraFile({f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}, 4, 4.0)
    with pytest.raises(WeightsError, match="maps 5120 to 5120 channels"):
        attach_lora(model, wide)
    deep = {k.replace("blocks.0", "blocks.39"): v for k, v in wide.state.items()}
    with pytest.raises(WeightsError, match=r"blocks\.39.*another model"):
        attach_lora(model, LoraFile(deep, 4, 4.0))
    assert not getattr(model, "peft_config", {})


def test_active_adapter_is_the_weight_plus_its_product(model: HeliosTransformer) -> None:
    lora = read_lora(PUBLISHED)
    lora = LoraFile(lora.state, lora.rank, alpha=8.0)
    merged: HeliosTransformer = HeliosTransformer.from_config(model.config).eval()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    for layer in lora.layers:
        up, down = lora.state[f"{layer}.lora_B.weight"], lora.state[f"{layer}.lora_A.weight"]
        state[f"{layer}.weight"] += 2.0 * up @ down
    merged.load_state_dict(state)
    plain = velocity(model)
    attach_lora(model, lora)
    torch.testing.assert_close(velocity(model), velocity(merged), atol=1e-5, rtol=1e-5)
    assert (velocity(model) - plain).abs().max() > 1e-3


def test_inactive_adapter_changes_no_bit_and_no_weight(model: HeliosTransformer) -> None:
    plain = velocity(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attach_lora(model, read_lora(PUBLISHED))
    with_adapter = velocity(model)
    for _ in range(3):
        set_lora_active(model, "camera", False)
        assert torch.equal(velocity(model), plain)
        set_lora_active(model, "camera", True)
        assert torch.equal(velocity(model), with_adapter)
    after = {k.replace(".base_layer", ""): v for k, v in model.state_dict().items()}
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_adapters_are_switched_one_by_one(model: HeliosTransformer) -> None:
    lora = read_lora(PUBLISHED)
    attach_lora(model, lora, "one")
    only_one = velocity(model)
    attach_lora(model, scaled(lora, 1.5), "two")
    both = velocity(model)
    set_lora_active(model, "one", False)
    only_two = velocity(model)
    assert len({t.sum().item() for t in (only_one, both, only_two)}) == 3
    set_lora_active(model, "two", False)
    set_lora_active(model, "one", True)
    assert torch.equal(velocity(model), only_one)
    with pytest.raises(WeightsError, match=r"no adapter named 'three'.*one, two"):
        set_lora_active(model, "three", True)


def test_attaching_again_replaces(model: HeliosTransformer) -> None:
    lora = read_lora(PUBLISHED)
    attach_lora(model, lora)
    first = velocity(model)
    attach_lora(model, scaled(lora, 2.0))
    assert not torch.equal(velocity(model), first)
    attach_lora(model, lora)
    assert torch.equal(velocity(model), first)


def test_new_adapter_starts_from_the_base_model_and_repeats(model: HeliosTransformer) -> None:
    plain = velocity(model)
    parameters = new_lora(model, rank=4, seed=5)
    assert torch.equal(velocity(model), plain)
    assert len(parameters) == 2 * 4 * 2
    assert {id(p) for p in model.parameters() if p.requires_grad} == {id(p) for p in parameters}
    first = lora_state(model)
    new_lora(model, rank=4, seed=5)
    assert all(torch.equal(value, first[key]) for key, value in lora_state(model).items())
    new_lora(model, rank=4, seed=6)
    assert not all(torch.equal(value, first[key]) for key, value in lora_state(model).items())
    down = first["blocks.0.attn1.to_q.lora_A.weight"]
    bound = 1 / 8  # 1 / sqrt(64 inputs)
    assert 0.9 * bound < down.abs().max() <= bound


def test_trained_adapter_survives_its_file(model: HeliosTransformer, tmp_path: Path) -> None:
    parameters = new_lora(model, rank=3, alpha=6.0)
    optimiser = torch.optim.SGD(parameters, lr=0.5)
    for _ in range(2):
        loss = (
            model(
                torch.ones(1, 16, 1, 4, 4),
                torch.tensor([500.0]),
                torch.ones(1, 4, 32),
                indices_hidden_states=torch.tensor([[20]]),
            )
            .square()
            .mean()
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    set_lora_active(model, "camera", False)
    assert all(p.requires_grad for p in parameters)
    set_lora_active(model, "camera", True)
    trained = velocity(model)

    file = tmp_path / "deep" / "camera.safetensors"
    save_lora(file, lora_state(model), 3, 6.0, {"mode": "one-clip"})
    assert [p.name for p in file.parent.iterdir()] == ["camera.safetensors"]
    lora = read_lora(file)
    assert (lora.rank, lora.alpha, lora.metadata["mode"]) == (3, 6.0, "one-clip")
    fresh: HeliosTransformer = HeliosTransformer.from_pretrained(GOLDEN / "model" / "transformer")
    attach_lora(fresh.eval(), lora)
    assert torch.equal(velocity(fresh), trained)


def test_diffusers_reads_a_saved_adapter_with_its_alpha(tmp_path: Path) -> None:
    lora = read_lora(PUBLISHED)
    file = tmp_path / "pytorch_lora_weights.safetensors"
    save_lora(file, lora.state, lora.rank, 8.0)
    with safe_open(file, framework="pt") as opened:
        theirs = json.loads(opened.metadata()["lora_adapter_metadata"])
    assert theirs["transformer.lora_alpha"] == 8.0
    stock = HeliosTransformer3DModel.from_pretrained(GOLDEN / "model" / "transformer")
    stock.load_lora_adapter(tmp_path, adapter_name="camera", use_safetensors=True)
    assert stock.blocks[0].attn1.to_q.scaling["camera"] == 2.0


def test_alpha_written_by_diffusers_is_read(tmp_path: Path) -> None:
    file = tmp_path / "theirs.safetensors"
    metadata = {"lora_adapter_metadata": json.dumps({"transformer.lora_alpha": 16})}
    save_file(load_file(PUBLISHED), file, metadata=metadata)
    assert read_lora(file).alpha == 16.0
