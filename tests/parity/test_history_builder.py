"""Histories equal those of the published builder, random draws included."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from published_draws import CHUNK, GOLDEN, PublishedDraws, visibility
from safetensors.torch import load_file
from torch import Tensor

from flythrough.conditioning.history import native_history, target_indices
from flythrough.conditioning.prompts import with_trigger
from flythrough.conditioning.warped_history import WarpHistorySettings, warped_history
from flythrough.models.history_tokens import History, HistoryBand

FOLDER = GOLDEN / "history"
RECORD = json.loads((FOLDER / "variants.json").read_text())
INPUTS = np.load(FOLDER / "inputs.npz")
TABLES = load_file(FOLDER / "frames.safetensors")
BANDS = ("short", "mid", "long")
CASES = [
    (name, chunk)
    for name, case in RECORD["variants"].items()
    for chunk in ("chunk0", "chunk1")
    if chunk in case
]


def settings_of(options: dict[str, Any]) -> WarpHistorySettings:
    """The published keyword arguments as settings."""
    settings = WarpHistorySettings(
        align=options.get("rope_alignment", True),
        select=options.get("visible_token_drop", True),
        mode=options.get("mode", "short"),
    )
    sizes = tuple(options.get("prev_chunk_history_sizes", settings.prev_sizes))
    return replace(settings, prev_sizes=sizes)


def frames_of(ids: list[int], table: str = "frames") -> Tensor:
    return TABLES[table][ids].transpose(0, 1)[None] if table == "frames" else TABLES[table][ids]


def assert_band(band: HistoryBand | None, expected: dict[str, Any] | None) -> None:
    assert (band is None) == (expected is None)
    if band is None or expected is None:
        return
    assert band.indices.tolist() == [expected["indices"]]
    torch.testing.assert_close(band.latents, frames_of(expected["latents"]), rtol=0, atol=2e-4)
    if expected["visible"] is None:
        assert band.visible is None
    else:
        assert band.visible is not None
        masks = frames_of(expected["visible"], "masks")[None]
        torch.testing.assert_close(band.visible, masks, rtol=0, atol=1e-6)


def build(name: str, chunk: int) -> tuple[History, Tensor]:
    """Replay the published run of a variant up to ``chunk``."""
    case = RECORD["variants"][name]
    options, newer = case["kwargs"], "newer." if name == "patch_mid" else ""
    source = torch.Generator().manual_seed(RECORD["newer_seed" if newer else "seed"])
    limits = options.get("warp_noise_sigma_min", 0.111), options.get("warp_noise_sigma_max", 0.135)
    draws = PublishedDraws(
        source,
        warp_noise=options.get("add_noise_to_warp_latents", True),
        image_noise=options.get("add_noise_to_image_latents", False),
        sigmas=limits,
    )
    draws.start(INPUTS[newer + "image_u8"])
    prefix = draws.prefix()
    # The short-window variant was recorded for its second chunk alone, without the draws before it.
    for k in range(chunk if name == "prev_window_9" else 0, chunk + 1):
        piece = slice(CHUNK * k, CHUNK * (k + 1))
        warp = draws.warp(INPUTS[newer + "warp_u8"][piece])
    visible = visibility(INPUTS[newer + "mask_u8"][piece], (8, 16))
    past = draws.still
    if chunk > 0:
        window = torch.from_numpy(INPUTS[newer + "prev_history_latent_window_19"])
        past = torch.cat((past, window[:, :, -9:] if name == "prev_window_9" else window), dim=2)
    return warped_history(prefix, past, warp, visible, settings=settings_of(options))


@pytest.mark.parametrize(("name", "chunk"), CASES)
def test_equals_published_builder(name: str, chunk: str) -> None:
    expected = RECORD["variants"][name][chunk]
    history, target = build(name, int(chunk[-1]))
    assert target.tolist() == [expected["target"]]
    for band in BANDS:
        assert_band(getattr(history, band), expected[band])


@pytest.mark.parametrize("name", sorted(RECORD["patch_mid_indices"]))
@pytest.mark.parametrize("chunk", [0, 1])
def test_efficient_variant_indices(name: str, chunk: int) -> None:
    case = RECORD["patch_mid_indices"][name]
    settings = replace(settings_of(case["kwargs"]), mode="patch_mid")
    latent = torch.zeros(1, 16, 1, 8, 16)
    past = latent.expand(-1, -1, 1 + 9 * chunk, -1, -1)
    history, target = warped_history(
        latent, past, latent.expand(-1, -1, 9, -1, -1), torch.ones(1, 9, 8, 16), settings=settings
    )
    expected = case[f"chunk{chunk}"]
    assert target.tolist() == expected["indices_hidden_states"]
    for band in BANDS:
        found = getattr(history, band)
        indices = expected.get(f"indices_latents_history_{band}")
        assert (None if found is None else found.indices.tolist()) == indices
        if found is not None:
            assert (found.visible is None) == (not settings.select)


@pytest.mark.parametrize("name", ["default", "image_noise_on"])
def test_native_history_of_the_first_chunk(name: str) -> None:
    case = RECORD["variants"][name]
    draws = PublishedDraws(
        torch.Generator().manual_seed(RECORD["seed"]), image_noise=name == "image_noise_on"
    )
    draws.start(INPUTS["image_u8"])
    history = native_history(draws.still, draws.image)
    assert history.short is not None
    assert history.mid is not None
    assert history.long is not None
    short = frames_of(case["base_latents_history_short"])
    torch.testing.assert_close(history.short.latents, short, rtol=0, atol=1e-4)
    window = torch.cat(
        (history.long.latents, history.mid.latents, history.short.latents[:, :, 1:]), dim=2
    )
    recorded = frames_of(case["history_latents_init"])
    torch.testing.assert_close(window, recorded, rtol=0, atol=1e-4)
    clean = frames_of(case["first_frame_image_latents"])
    torch.testing.assert_close(draws.clean_image, clean, rtol=0, atol=1e-4)
    assert history.short.indices.tolist() == [[0, 19]]
    assert history.mid.indices.tolist() == [[17, 18]]
    assert history.long.indices.tolist() == [list(range(1, 17))]
    assert target_indices().tolist() == [list(range(20, 29))]


@pytest.mark.parametrize(("prompt", "trigger", "expected"), RECORD["prompt_trigger"])
def test_trigger_rule(prompt: Any, trigger: str | None, expected: Any) -> None:
    assert with_trigger(prompt, trigger) == expected
