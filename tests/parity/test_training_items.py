"""Training material equals the published: histories, noise order, flow-matching items."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from published_draws import GOLDEN, visibility
from safetensors.torch import load_file
from torch import Tensor

from flythrough.conditioning.condition_noise import CONDITION_SIGMAS
from flythrough.conditioning.prompts import with_trigger
from flythrough.conditioning.warped_history import WarpHistorySettings
from flythrough.models.history_tokens import History
from flythrough.sampling.dmd_schedule import (
    PyramidConfig,
    dmd_schedule,
    shift_mu,
    timestep_at,
    token_count,
)
from flythrough.sampling.flow_items import flow_items, flow_items_at, segment
from flythrough.training.camera_recipe import training_history

FOLDER = GOLDEN / "training_items"
META = json.loads((FOLDER / "meta.json").read_text())
DATA = load_file(FOLDER / "training.safetensors")
CONFIG = PyramidConfig.from_dict(
    json.loads((GOLDEN / "sampler" / "scheduler_config.json").read_text())
)
POSITIONS = {"none": "past", "last_n": "target_reversed", "last_n_same_order": "target"}


def settings_of(options: dict[str, Any]) -> WarpHistorySettings:
    sizes = tuple(options.get("history_sizes", (16, 2, 1)))
    return WarpHistorySettings(
        prev_sizes=sizes,
        total_sizes=sizes,
        select=options.get("history_visible_token_drop", True),
        position=POSITIONS[options.get("history_positioning", "last_n_same_order")],
        delta=options.get("history_position_delta", 0),
    )


def build(case: dict[str, Any]) -> tuple[History, Tensor]:
    """The training history: only the still latent as past, noise on warp first, then anchor."""
    return training_history(
        DATA["image_latents"],
        DATA["fake_image_latents"],
        DATA["video_latents"],
        visibility(np.load(FOLDER / "mask.npz")["mask_u8"], (8, 16)),
        torch.Generator().manual_seed(case["seed"]),
        settings=settings_of(case["kwargs"]),
        noise=CONDITION_SIGMAS if case["kwargs"].get("add_noise_to_video_latents", True) else None,
    )


@pytest.mark.parametrize("name", sorted(META["histories"]))
def test_histories(name: str) -> None:
    case = META["histories"][name]
    history, target = build(case)
    assert target.tolist() == [case["target"]]
    for band in ("short", "mid", "long"):
        found, expected = getattr(history, band), case[band]
        assert (found is None) == (expected is None)
        if found is None:
            continue
        assert found.indices.tolist() == [expected["indices"]]
        frames = DATA["frames"][expected["latents"]].transpose(0, 1)[None]
        torch.testing.assert_close(found.latents, frames, rtol=0, atol=1e-5)
        if expected["visible"] is None:
            assert found.visible is None
        else:
            masks = DATA["masks"][expected["visible"]][None]
            torch.testing.assert_close(found.visible, masks, rtol=0, atol=1e-6)


def drawn(stages: int) -> tuple[Tensor, list[Tensor]]:
    """Noise, then one uniform number per stage, in the published order."""
    source = torch.Generator().manual_seed(META["items"]["all"]["torch_seed"])
    noise = torch.randn(DATA["target_latents"].shape, generator=source)
    return noise, [torch.rand(1, generator=source) for _ in range(stages)]


@pytest.mark.parametrize("name", ["stage0", "all"])
def test_items(name: str) -> None:
    stages = META["items"][name]["stages"]
    noise, levels = drawn(len(stages))
    for case, u in zip(stages, levels, strict=True):
        stage = case["stage_id"]
        item = flow_items(DATA["target_latents"], noise, stage, u, CONFIG)
        assert int(u * 1000) == case["index"]
        assert item.sigma.tolist() == pytest.approx([case["sigma"]], abs=1e-6)
        assert item.timestep.tolist() == pytest.approx([case["timestep"]], abs=1e-3)
        prefix = f"items.{name}.stage{stage}"
        torch.testing.assert_close(item.x, DATA[f"{prefix}.noisy_latents"], rtol=0, atol=1e-5)
        torch.testing.assert_close(item.target, DATA[f"{prefix}.target"], rtol=0, atol=1e-5)


def test_segment_ends() -> None:
    noise, _ = drawn(1)
    start, end = segment(DATA["target_latents"], noise, 0, CONFIG)
    torch.testing.assert_close(start, DATA["items.stage0.start_point"], rtol=0, atol=1e-5)
    torch.testing.assert_close(end, DATA["items.stage0.end_point"], rtol=0, atol=1e-5)


def test_first_level_and_shifted_level() -> None:
    noise, (u,) = drawn(1)
    clean = DATA["target_latents"]
    first, shifted = (META["items"][name]["stages"][0] for name in ("first", "shifted"))
    item = flow_items(clean, noise, 0, torch.zeros(1), CONFIG)
    assert item.sigma.tolist() == pytest.approx([first["sigma"]], abs=1e-6)
    assert item.timestep.tolist() == pytest.approx([first["timestep"]], abs=1e-3)
    item = flow_items(clean, noise, 0, u, CONFIG, shift=True)
    assert item.sigma.tolist() == pytest.approx([shifted["sigma"]], abs=1e-6)
    assert item.timestep.tolist() == pytest.approx([shifted["timestep"]], abs=1e-3)


def test_interval_between_the_first_two_inference_levels() -> None:
    noise, (u,) = drawn(1)
    case = META["items"]["interval"]["stages"][0]
    high, low = dmd_schedule(CONFIG, 0, 2, mu=shift_mu(CONFIG, token_count(9, 2, 4))).sigmas
    sigma = torch.tensor([case["sigma"]])
    assert low < float(sigma) < high
    item = flow_items_at(DATA["target_latents"], noise, 0, sigma, CONFIG)
    assert item.timestep.tolist() == pytest.approx([case["timestep"]], abs=1e-2)
    assert timestep_at(CONFIG, 0, case["sigma"]) == pytest.approx(case["timestep"], abs=1e-2)
    assert high + (low - high) * float(u) == pytest.approx(case["sigma"], abs=1e-5)


@pytest.mark.parametrize(("raw", "expected"), META["prompts"])
def test_training_prompts(raw: str, expected: str) -> None:
    assert with_trigger(raw) == expected
