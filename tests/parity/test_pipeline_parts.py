"""Text and codec of the published Warp-as-History pipeline, part by part.

The tables of the scheduler and the block noise are held by ``test_dmd_schedule.py``.
"""

from __future__ import annotations

import json
from typing import Any, cast

import numpy as np
import pytest
import torch
from published_draws import GOLDEN, pictures
from published_folder import published_model
from safetensors.torch import load_file
from torch import Tensor

from flythrough.conditioning.prompts import with_trigger
from flythrough.models.wan_codec import WanCodec

META = json.loads((GOLDEN / "helios_pipeline" / "meta.json").read_text())
PARTS = load_file(GOLDEN / "helios_pipeline" / "parts.safetensors") | {
    "prompt.plain.embeds_64": load_file(GOLDEN / "sampler" / "parts.safetensors")[
        "prompt.plain.embeds_64"
    ]
}
LENGTH, RECORDED_LENGTH = 512, 64


def close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


def codec() -> WanCodec:
    return cast(WanCodec, published_model().codec)


def warp(frames: int) -> Tensor:
    """The first frames of the recorded warp, [1,3,T,H,W] in [0,1]."""
    pixels: np.ndarray = np.load(GOLDEN / "sampler" / "inputs.npz")["warp_u8"][:frames]
    return (pictures(pixels) + 1) / 2


def normalised(latents: Tensor) -> Tensor:
    return (latents - PARTS["latents_mean"]) * PARTS["latents_inv_std"]


@pytest.mark.parametrize("kind", ["plain", "trigger"])
def test_prompt_ids_and_embeddings(kind: str) -> None:
    prompt = META["prompt"] if kind == "plain" else with_trigger(META["prompt"])
    prompts = published_model().prompts
    ids, mask = prompts.tokenize([prompt], LENGTH)
    assert torch.equal(ids[:, :RECORDED_LENGTH], PARTS[f"prompt.{kind}.ids_64"])
    assert not ids[:, RECORDED_LENGTH:].any()
    tokens = META[f"prompt_{kind}_tokens"]
    assert int(mask.sum()) == tokens
    features = prompts.encode([prompt], LENGTH)
    assert features.shape[1] == LENGTH
    assert not features[:, tokens:].any()
    close(features[:, :RECORDED_LENGTH], PARTS[f"prompt.{kind}.embeds_64"], 1e-5)


@pytest.mark.parametrize("frames", [1, 33])
def test_posterior(frames: int) -> None:
    """Its mean, which is what we take, normalised; and its spread, which published draws need."""
    key, net = f"vae.encode{frames}", cast(Any, codec().net)
    close(codec().encode(warp(frames)), normalised(PARTS[f"{key}.mean"]), 1e-4)
    with torch.no_grad():
        posterior = net.encode(warp(frames) * 2 - 1).latent_dist
    close(posterior.mean, PARTS[f"{key}.mean"], 1e-4)
    close(posterior.logvar, PARTS[f"{key}.logvar"], 1e-4)


def test_decoding() -> None:
    made = codec().decode(normalised(PARTS["vae.decode.in"]))
    assert made.shape[2] == 33
    recorded = PARTS["vae.decode.out_half_frames_0_16_32"].float()
    close(made[:, :, [0, 16, 32]] * 2 - 1, recorded, 1e-3)


def test_latent_statistics() -> None:
    """The tests above normalise with the recorded ones, the codec with its own."""
    config = cast(Any, codec().net.config)
    assert config.latents_mean == pytest.approx(PARTS["latents_mean"].flatten().tolist(), abs=1e-6)
    inverse = [1 / value for value in config.latents_std]
    assert inverse == pytest.approx(PARTS["latents_inv_std"].flatten().tolist(), abs=1e-6)
