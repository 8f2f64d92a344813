"""The published trainer's numbers: item latents, LoRA start, loss, gradients, optimiser steps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from published_draws import CHUNK, GOLDEN, PublishedDraws, encode, pictures
from published_folder import published_model
from safetensors.torch import load_file
from test_training_items import CONFIG, DATA, META, build
from torch import Tensor, nn

from flythrough.conditioning.warped_history import WarpHistorySettings
from flythrough.models.adapters import attach_lora, detach_lora, lora_state, new_lora
from flythrough.models.helios import HeliosTransformer
from flythrough.models.history_tokens import History
from flythrough.models.lora_files import LoraFile, read_lora
from flythrough.training.camera_recipe import (
    PUBLISHED_THRESHOLD,
    LevelSettings,
    draw_items,
    flow_loss,
    training_history,
)
from flythrough.training.loop import Loop, LoopSettings, Record, learning_rate_at
from throwaway import Command

FOLDER = GOLDEN / "training_recipe"
SAID = json.loads((FOLDER / "recipe.json").read_text())
STORED = load_file(FOLDER / "recipe.safetensors")
FRAMES = np.load(FOLDER / "frames.npz")
LEVELS = {
    "stage0": LevelSettings(),
    "all": LevelSettings(stages=(0, 1, 2)),
    "first": LevelSettings(sampling="first"),
    "shifted": LevelSettings(shift=True),
}
RANK = 4
THRESHOLDS = {
    "as_upstream_None(=0.5)": PUBLISHED_THRESHOLD,
    "threshold_0.5": 0.5,
    "threshold_0.1": 0.1,
}


def adapter(name: str) -> dict[str, Tensor]:
    prefix = f"lora.{name}."
    return {k.removeprefix(prefix): v for k, v in STORED.items() if k.startswith(prefix)}


def text(kind: str = "") -> Tensor:
    """512 positions, of which the recorded 64 hold the prompt."""
    stored = STORED[f"{kind}prompt_embeds_64"]
    return torch.cat([stored, stored.new_zeros(1, 512 - 64, stored.shape[2])], dim=1)


@contextmanager
def adapted(name: str) -> Iterator[tuple[HeliosTransformer, dict[str, nn.Parameter]]]:
    """The recorded transformer with a recorded adapter, ready for training."""
    transformer = published_model().transformer
    attach_lora(transformer, LoraFile(adapter(name), RANK, float(RANK)))
    found = {
        key.replace(".camera", ""): parameter
        for key, parameter in transformer.named_parameters()
        if ".lora_" in key
    }
    for parameter in found.values():
        parameter.requires_grad_(True)
    try:
        yield transformer, found
    finally:
        detach_lora(transformer)


def default_history(threshold: float = PUBLISHED_THRESHOLD) -> tuple[History, Tensor]:
    """The recorded default history (test_training_items.py holds it to its golden)."""
    history, target = build(META["histories"]["default"])
    return replace(history, threshold=threshold), target


def losses(
    transformer: HeliosTransformer,
    seed: int,
    levels: LevelSettings,
    threshold: float = PUBLISHED_THRESHOLD,
) -> dict[str, Tensor]:
    history, target = default_history(threshold)
    source = torch.Generator().manual_seed(seed)
    items = draw_items(DATA["target_latents"], source, CONFIG, levels)

    def velocity(x: Tensor, timestep: Tensor) -> Tensor:
        return transformer(x, timestep, text(), indices_hidden_states=target, history=history)

    return flow_loss(velocity, items)


def test_item_latents() -> None:
    """The target is the codec's mean; conditions are drawn from one generator an item."""
    source = torch.Generator().manual_seed(SAID["prepare_condition_generator_seed"])
    draws = PublishedDraws(source, warp_noise=False)
    draws.start(FRAMES["condition_u8"])
    target = (pictures(FRAMES["target_u8"]) + 1) / 2
    found = {
        "image_latents": draws.image,
        "fake_image_latents": draws.still,
        "video_latents": draws.warp(FRAMES["warp_u8"]),
        "target_latents": published_model().codec.encode(target),
    }
    assert target.shape[2] == CHUNK
    for name, latents in found.items():
        torch.testing.assert_close(latents, DATA[name], rtol=0, atol=2e-4)


def test_item_latents_depend_on_the_draws() -> None:
    """A plain mean is another number, so that the test above would see it."""
    still = pictures(FRAMES["condition_u8"][None])
    drawn = encode(still, torch.Generator().manual_seed(0))
    assert (drawn - DATA["image_latents"]).abs().max() > 1e-2


def test_item_prompt() -> None:
    embedding = published_model().prompts.encode([SAID["prompt"]], 512)
    torch.testing.assert_close(embedding, text(), rtol=0, atol=1e-5)


def test_start_of_the_adapter() -> None:
    transformer = published_model().transformer
    state = torch.get_rng_state()
    parameters = new_lora(transformer, RANK, seed=SAID["seed"], reference=True)
    found = lora_state(transformer)
    detach_lora(transformer)
    assert torch.equal(torch.get_rng_state(), state)
    expected = adapter("init")
    assert sum(p.numel() for p in parameters) == sum(v.numel() for v in expected.values()) == 4096
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in found)


@pytest.mark.parametrize("name", sorted(LEVELS))
def test_loss_and_gradient(name: str) -> None:
    said = SAID["loss_fixed_lora"][name]
    with adapted("fixed") as (transformer, parameters):
        found = losses(transformer, said["torch_seed"], LEVELS[name])
        gradients = torch.autograd.grad(found["total"], list(parameters.values()))
    assert float(found["total"].detach()) == pytest.approx(said["loss"], rel=1e-5)
    for stage in LEVELS[name].stages:
        mse = said["stats"][f"flow_mse_stage{stage}"]
        assert float(found[f"stage{stage}"].detach()) == pytest.approx(mse, rel=1e-5)
    norm = torch.stack([g.norm() for g in gradients]).norm()
    assert float(norm) == pytest.approx(said["grad_norm"], rel=1e-4)
    if name != "stage0":
        return
    for key, gradient in zip(parameters, gradients, strict=True):
        expected = STORED[f"grad.stage0.{key}"]
        off = (gradient - expected).norm() / expected.norm()
        assert float(off) < 1e-3, key


@pytest.mark.parametrize("name", sorted(LEVELS))
def test_noise_levels(name: str) -> None:
    said = SAID["loss_fixed_lora"][name]
    source = torch.Generator().manual_seed(said["torch_seed"])
    for stage, item in draw_items(DATA["target_latents"], source, CONFIG, LEVELS[name]).items():
        stats = {k: v for k, v in said["stats"].items() if k.endswith(f"stage{stage}")}
        assert float(item.sigma) == pytest.approx(stats[f"sigma_stage{stage}"], abs=1e-6)
        assert float(item.timestep) == pytest.approx(stats[f"timestep_stage{stage}"], abs=1e-3)
        norm = float(item.target.square().mean().sqrt())
        assert norm == pytest.approx(stats[f"target_flow_norm_stage{stage}"], rel=1e-4)


def test_interval_between_the_first_inference_levels() -> None:
    case = META["items"]["interval"]
    source = torch.Generator().manual_seed(case["torch_seed"])
    levels = LevelSettings(sampling="first_second_interval")
    item = draw_items(DATA["target_latents"], source, CONFIG, levels)[0]
    assert float(item.sigma) == pytest.approx(case["stages"][0]["sigma"], abs=1e-6)
    assert float(item.timestep) == pytest.approx(case["stages"][0]["timestep"], abs=1e-3)


@pytest.mark.parametrize("name", sorted(THRESHOLDS))
def test_the_published_trainer_leaves_out_tokens_below_one_half(name: str) -> None:
    """Its flag says 0.1; what it computed is the loss of 0.5."""
    expected = SAID["loss_threshold_note"][name]
    seed = SAID["loss_fixed_lora"]["stage0"]["torch_seed"]
    with adapted("fixed") as (transformer, _), torch.no_grad():
        found = losses(transformer, seed, LevelSettings(), THRESHOLDS[name])
    assert float(found["total"]) == pytest.approx(expected, rel=1e-5)


class RecordedSteps:
    """The recorded three steps as a task of the project's own training loop."""

    name = "lora"

    def __init__(self, transformer: HeliosTransformer, parameters: list[nn.Parameter]) -> None:
        self.transformer = transformer
        holder = nn.Module()
        holder.adapter = nn.ParameterList(parameters)
        self.modules = nn.ModuleDict({"holder": holder})

    def loss(self, step: int, rank: int) -> dict[str, Tensor]:
        assert rank == 0
        return losses(
            self.transformer, SAID["three_steps"]["steps"][step]["torch_seed"], LevelSettings()
        )

    def preview(self, folder: Path, step: int) -> dict[str, float]:
        raise AssertionError((folder, step))

    def export(self, folder: Path) -> None:
        raise AssertionError(folder)


def test_three_steps_of_the_training_loop(tmp_path: Path) -> None:
    said = SAID["three_steps"]
    settings = LoopSettings(
        steps=3,
        learning_rate=1e-2,
        warmup=said["warmup_steps"],
        final_ratio=1.0,
        weight_decay=0.01,
        betas=(0.9, 0.999),
        clip=said["max_grad_norm"],
        ema=0.0,
        log_every=1,
        save_every=0,
    )
    records: list[Record] = []
    with adapted("init") as (transformer, parameters):
        task = RecordedSteps(transformer, list(parameters.values()))
        Loop(task, settings, tmp_path, torch.device("cpu")).run(records.append)
        found = lora_state(transformer)
    for record, expected in zip(records, said["steps"], strict=True):
        assert record.learning_rate == pytest.approx(expected["lr"])
        assert record.losses["total"] == pytest.approx(expected["loss"], rel=1e-5)
        assert record.gradient_norm == pytest.approx(expected["grad_norm"], rel=1e-4)
    for key, value in adapter("after3").items():
        # Where a gradient is next to nothing, AdamW makes a whole step of its rounding.
        torch.testing.assert_close(found[key], value, rtol=0, atol=1e-3)
        assert (found[key] - value).abs().mean() < 1e-5
        assert (value - adapter("init")[key]).abs().mean() > 1e-3


@pytest.mark.parametrize("name", sorted(SAID["lr_schedule"]))
def test_learning_rates(name: str) -> None:
    kind, ratio = name.split("@")
    expected = SAID["lr_schedule"][name]
    settings = LoopSettings(
        steps=len(expected),
        learning_rate=1e-4,
        warmup=4,
        schedule="linear" if kind == "linear" else "cosine",
        final_ratio=1.0 if kind == "constant" else float(ratio),
    )
    last = len(expected) - 1
    found = [learning_rate_at(step / last, step, settings) for step in range(last + 1)]
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_a_published_checkpoint_becomes_an_adapter(tmp_path: Path, flythrough: Command) -> None:
    """The layout of the trainer's .pt files, converted on the command line."""
    pickled, file = tmp_path / "visible_lora_state.pt", tmp_path / "adapter.safetensors"
    torch.save({"peft": adapter("after3"), "extra_state": {}}, pickled)
    answer = flythrough("models", "convert", pickled, "-o", file)
    assert answer.status == 0, answer.err
    lora = read_lora(file)
    assert (lora.rank, lora.alpha) == (RANK, float(RANK))
    transformer = published_model().transformer
    attach_lora(transformer, lora)
    found = lora_state(transformer)
    detach_lora(transformer)
    assert all(torch.equal(found[key], value) for key, value in adapter("after3").items())


def mid_history() -> tuple[History, Tensor]:
    """The later revision's training history with the warp in the mid band."""
    masks = STORED["mid.hist.history_visible_mask_mid"][:, 0, 2:]
    return training_history(
        STORED["mid.image_latents"],
        STORED["mid.fake_image_latents"],
        STORED["mid.video_latents"],
        masks,
        torch.Generator().manual_seed(SAID["mid"]["torch_seed_histories"]),
        settings=WarpHistorySettings(mode="patch_mid", threshold=PUBLISHED_THRESHOLD),
    )


def test_history_with_the_warp_in_the_mid_band() -> None:
    history, target = mid_history()
    indices = SAID["mid"]["indices"]
    assert target.tolist() == indices["indices_hidden_states"]
    for name in ("short", "mid", "long"):
        band = getattr(history, name)
        assert band.indices.tolist() == indices[f"indices_latents_history_{name}"]
        stored = STORED.get(f"mid.hist.latents_history_{name}", torch.zeros_like(band.latents))
        torch.testing.assert_close(band.latents, stored, rtol=0, atol=1e-5)
        assert torch.equal(band.visible, STORED[f"mid.hist.history_visible_mask_{name}"][:, 0])


def test_loss_with_the_warp_in_the_mid_band() -> None:
    history, target = mid_history()
    source = torch.Generator().manual_seed(SAID["mid"]["torch_seed_loss"])
    items = draw_items(STORED["mid.target_latents"], source, CONFIG)

    def velocity(x: Tensor, timestep: Tensor) -> Tensor:
        return published_model().transformer(
            x, timestep, text("mid."), indices_hidden_states=target, history=history
        )

    with torch.no_grad():
        found = flow_loss(velocity, items)["total"]
    assert float(found) == pytest.approx(SAID["mid"]["loss"], rel=1e-4)
