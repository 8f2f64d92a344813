"""Whole published runs, from photo and warp to final latents, with the recorded tiny network."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import pytest
import torch
from published_draws import CHUNK, GOLDEN, PublishedDraws, visibility
from safetensors.torch import load_file
from torch import Tensor

from flythrough.conditioning.history import native_history, target_indices
from flythrough.conditioning.warped_history import WarpHistorySettings, warped_history
from flythrough.models.helios import HeliosTransformer
from flythrough.models.history_tokens import History
from flythrough.sampling.dmd_schedule import PyramidConfig
from flythrough.sampling.noise import reference_block_noise
from flythrough.sampling.pyramid import sample_pyramid

FOLDER = GOLDEN / "sampler"
META = json.loads((FOLDER / "meta.json").read_text())
CONFIG = PyramidConfig.from_dict(json.loads((FOLDER / "scheduler_config.json").read_text()))
TRACE = load_file(FOLDER / "i_warp.safetensors")
RECORDED = load_file(FOLDER / "variants.safetensors")
SIZE = (8, 16)


@dataclass(frozen=True)
class Run:
    """What distinguishes the recorded runs."""

    steps: tuple[int, int, int] = (2, 2, 2)
    amplify: bool = True
    mask: bool = True
    warp_noise: bool = True
    image_noise: bool = False
    warp: bool = True
    photo: bool = True
    history: WarpHistorySettings = field(default_factory=WarpHistorySettings)
    newer: bool = False


EFFICIENT = WarpHistorySettings(mode="patch_mid")
RUNS = {
    "i_warp_no_amplify": Run(amplify=False),
    "i_warp_no_mask": Run(mask=False),
    "i_warp_noise_off": Run(warp_noise=False),
    "i_warp_image_noise": Run(image_noise=True),
    "i_warp_drop_off": Run(history=WarpHistorySettings(select=False)),
    "i_warp_prev_8_2_1": Run(history=WarpHistorySettings(prev_sizes=(8, 2, 1))),
    "i_warp_prev_none": Run(history=WarpHistorySettings(prev_sizes=(0, 0, 0))),
    "i_warp_rope_off": Run(history=WarpHistorySettings(align=False)),
    "newer_patch_mid": Run(history=EFFICIENT, newer=True),
    "newer_patch_mid_111": Run((1, 1, 1), amplify=False, history=EFFICIENT, newer=True),
    "newer_patch_mid_111_threshold0.6": Run(
        (1, 1, 1), amplify=False, history=replace(EFFICIENT, threshold=0.6), newer=True
    ),
    "newer_patch_mid_prev_16_0_1": Run(
        history=replace(EFFICIENT, prev_sizes=(16, 0, 1)), newer=True
    ),
    "newer_short_121": Run((1, 2, 1), newer=True),
    "iii_helios_i2v_111": Run((1, 1, 1), amplify=False, warp=False),
    "iii_helios_t2v": Run(warp=False, photo=False),
}
Call = tuple[Tensor, Tensor, Tensor]


@cache
def network() -> HeliosTransformer:
    made = HeliosTransformer.from_pretrained(GOLDEN / "transformer" / "model" / "transformer")
    made.requires_grad_(requires_grad=False)
    return made.eval()


@cache
def text() -> Tensor:
    """Embeddings of 512 rows: zero beyond the prompt."""
    known = load_file(FOLDER / "parts.safetensors")["prompt.plain.embeds_64"]
    return torch.cat((known, known.new_zeros(1, 512 - 64, known.shape[2])), dim=1)


def material(run: Run) -> dict[str, np.ndarray]:
    if run.newer:
        inputs = np.load(GOLDEN / "history" / "inputs.npz")
        return {key: inputs[f"newer.{key}"] for key in ("image_u8", "warp_u8", "mask_u8")}
    return dict(np.load(FOLDER / "inputs.npz"))


def replay(run: Run) -> tuple[Tensor, list[Call]]:
    """Two chunks in the published order of draws; final latents and every network call."""
    seed = META["newer_seed" if run.newer else "generator_seed"]
    source = torch.Generator().manual_seed(seed)
    inputs = material(run)
    draws = PublishedDraws(source, warp_noise=run.warp_noise, image_noise=run.image_noise)
    calls: list[Call] = []
    past = torch.zeros(1, 16, 0, *SIZE)
    prefix = torch.zeros(1, 16, 1, *SIZE)
    if run.photo:
        draws.start(inputs["image_u8"])
        past, prefix = draws.still, draws.image
    for k in range(2):
        latents = one_chunk(run, k, (past, prefix), inputs, draws, calls)
        if k == 0 and run.photo:
            latents[:, :, :1] = draws.clean_image
        past = torch.cat((past, latents), dim=2)
        if k == 0 and not run.photo:
            prefix = latents[:, :, :1]
    return past, calls


def one_chunk(
    run: Run,
    k: int,
    known: tuple[Tensor, Tensor],
    inputs: dict[str, np.ndarray],
    draws: PublishedDraws,
    calls: list[Call],
) -> Tensor:
    noise = torch.randn(1, 16, 9, *SIZE, generator=draws.source)
    histories = [(native_history(*known), target_indices())] * 3
    if run.warp:
        histories[0] = warped(run, k, known[0], inputs, draws)

    def denoise(x: Tensor, timestep: Tensor, stage: int) -> Tensor:
        history, target = histories[stage]
        velocity = network()(x, timestep, text(), indices_hidden_states=target, history=history)
        calls.append((x, timestep, velocity))
        return velocity

    return sample_pyramid(
        denoise,
        noise,
        lambda _stage, shape: reference_block_noise(shape, draws.source, CONFIG.gamma),
        CONFIG,
        steps=run.steps,
        amplify=run.amplify and k == 0,
        reference=True,
    )


def warped(
    run: Run, k: int, past: Tensor, inputs: dict[str, np.ndarray], draws: PublishedDraws
) -> tuple[History, Tensor]:
    piece = slice(CHUNK * k, CHUNK * (k + 1))
    prefix = draws.prefix()
    warp = draws.warp(inputs["warp_u8"][piece])
    visible = visibility(inputs["mask_u8"][piece], SIZE)
    if not run.mask:
        visible = torch.ones_like(visible)
    return warped_history(prefix, past, warp, visible, settings=run.history)


def test_every_recorded_call_and_the_final_latents() -> None:
    latents, calls = replay(Run())
    assert len(calls) == 18
    compared = 0
    for number, (x, timestep, velocity) in enumerate(calls):
        name = f"call{number:02d}"
        assert timestep.tolist() == TRACE[f"{name}.t"].float().tolist()
        for key, value in (("in", x), ("out", velocity)):
            if f"{name}.{key}" in TRACE:
                torch.testing.assert_close(value, TRACE[f"{name}.{key}"], rtol=0, atol=1e-4)
                compared += 1
    assert compared == sum(key.endswith((".in", ".out")) for key in TRACE)
    torch.testing.assert_close(latents, TRACE["final_latents"], rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", sorted(RUNS))
def test_recorded_variants(name: str) -> None:
    latents, _ = replay(RUNS[name])
    indices = RECORDED[f"{name}.indices"]
    expected = RECORDED[f"{name}.latents"]
    torch.testing.assert_close(latents[:, :, indices], expected, rtol=0, atol=2e-3)
