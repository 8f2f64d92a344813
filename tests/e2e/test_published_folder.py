"""Folders in the published layout, as stock diffusers saves them with a Wan codec, run as is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLWan,
    HeliosDMDScheduler,
    HeliosPipeline,
    HeliosPyramidPipeline,
    HeliosScheduler,
    HeliosTransformer3DModel,
)

from flythrough.media.video import read_video, write_video
from flythrough.models.catalog import read_defaults
from flythrough.models.text import byte_tokenizer, new_text_encoder
from flythrough.rollout import store
from throwaway import Command

SHIFT = {"use_dynamic_shifting": True}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Base, Mid and Distilled at a tiny size, their transformer in several shards."""
    torch.manual_seed(0)
    parts = {
        "tokenizer": byte_tokenizer(),
        "text_encoder": new_text_encoder(layers=1, d_model=32, heads=2, d_kv=16, d_ff=32),
        "vae": AutoencoderKLWan(
            base_dim=3,
            z_dim=16,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
        ),
        "transformer": HeliosTransformer3DModel(
            num_layers=2,
            num_attention_heads=2,
            attention_head_dim=12,
            rope_dim=(4, 4, 4),
            ffn_dim=32,
            text_dim=32,
            freq_dim=32,
        ),
    }
    made = {
        "base": HeliosPipeline(
            scheduler=HeliosScheduler(stages=1, stage_range=[0, 1], **SHIFT), **parts
        ),
        "mid": HeliosPyramidPipeline(
            scheduler=HeliosScheduler(**SHIFT), is_cfg_zero_star=True, **parts
        ),
        "distilled": HeliosPyramidPipeline(
            scheduler=HeliosDMDScheduler(**SHIFT), is_distilled=True, **parts
        ),
    }
    root = tmp_path_factory.mktemp("published")
    for name, pipe in made.items():
        pipe.save_pretrained(root / name, max_shard_size="100KB")
        assert len(list((root / name / "transformer").glob("*.safetensors"))) > 1
    return {name: root / name for name in made}


def test_defaults_follow_the_kind_of_model(published: dict[str, Path]) -> None:
    base, mid, distilled = (read_defaults(published[n]) for n in ("base", "mid", "distilled"))
    assert (base.steps, base.guidance_scale, base.zero_star) == ((50,), 5.0, False)
    assert (mid.steps, mid.guidance_scale, mid.zero_star) == ((20, 20, 20), 5.0, True)
    assert (distilled.steps, distilled.guidance_scale) == ((2, 2, 2), 1.0)
    assert distilled.amplify_first_chunk
    assert not mid.amplify_first_chunk
    assert (base.height, base.width, base.fps) == (384, 640, 24.0)


@pytest.mark.parametrize(
    ("kind", "steps"), [("base", "3"), ("mid", "2,2,2"), ("distilled", "1,1,1")]
)
def test_every_start_runs(
    kind: str,
    steps: str,
    published: dict[str, Path],
    flythrough: Command,
    photo: Path,
    tmp_path: Path,
) -> None:
    write_video(tmp_path / "source.mp4", np.zeros((33, 64, 128, 3), np.uint8), 24.0, {})
    common = ["--model", published[kind], "--steps", steps, "--size", "64x128", "--frames", 34]
    starts = {
        "text": ["--prompt", "a lake"],
        "image": [photo],
        "clip": ["--video", tmp_path / "source.mp4"],
    }
    for name, start in starts.items():
        run, out = tmp_path / name, tmp_path / f"{name}.mp4"
        answer = flythrough("generate", *start, *common, "--rollout", run, "-o", out)
        assert answer.status == 0, answer.err
        assert read_video(out).frames.shape == (34, 64, 128, 3)
        assert np.isfinite(store.load(run).latents()).all()


def test_steps_must_fit_the_stages(
    published: dict[str, Path], flythrough: Command, tmp_path: Path
) -> None:
    words = ["generate", "--prompt", "a lake", "--model", published["base"], "--steps", "2,2,2"]
    answer = flythrough(*words, "-o", tmp_path / "out.mp4")
    assert answer.status == 2
    assert "has 1 pyramid stages; write it like 50" in answer.err


def test_guidance_changes_what_is_made(
    published: dict[str, Path], flythrough: Command, tmp_path: Path
) -> None:
    def latents(name: str, *more: object) -> np.ndarray:
        words = ["generate", "--prompt", "a lake", "--model", published["mid"], "--steps", "2,1,1"]
        words += ["--size", "64x128", "--frames", 33, "--rollout", tmp_path / name]
        answer = flythrough(*words, *more, "-o", tmp_path / "out.mp4")
        assert answer.status == 0, answer.err
        return store.load(tmp_path / name).latents()

    plain, guided = latents("plain", "--guidance", 1), latents("guided")
    away = latents("away", "--negative-prompt", "blur")
    assert not np.array_equal(plain, guided)
    assert not np.array_equal(guided, away)
