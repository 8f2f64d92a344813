"""TAEHV gives the published code's recorded numbers, in one piece and as a stream."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from flythrough.models.taehv import TAEHV, StreamState, TAEHVConfig
from flythrough.models.taehv_config import config_from_dict, config_to_dict
from flythrough.models.taehv_weights import fit_state_dict, infer_config

GOLDEN = Path(__file__).parents[1] / "golden" / "taehv"
TOLERANCE = 5e-6
CASES = [
    "small_base",
    "small_base_batch2",
    "small_cogvideox",
    "small_h3",
    "small_ltx",
    "small_patch2",
    "small_super_patch2",
    "taew2_1_realarch",
]
RECIPE_SEED = 2025


def read(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


def recipe(key: str, shape: list[int]) -> Tensor:
    """The full-width case's weights, which are drawn rather than stored."""
    source = np.random.RandomState((crc32(key.encode()) + RECIPE_SEED) % 2**32)
    u = source.uniform(-1, 1, shape)
    if key.endswith(".bias"):
        value = 0.1 * u + (0.5 if key == "decoder.22.bias" else 0.0)
    else:
        value = u * np.sqrt(3 / np.prod(shape[1:])) * (0.15 if key == "decoder.22.weight" else 1)
    return torch.from_numpy(value.astype(np.float32))


def weights(name: str, meta: dict[str, str]) -> dict[str, Tensor]:
    if name == "taew2_1_realarch":
        keys = json.loads((GOLDEN / f"{name}_recipe.json").read_text())["keys"]
        return {key: recipe(key, shape) for key, shape in keys.items()}
    stored, _ = read(meta.get("weights", "small_base.safetensors").removesuffix(".safetensors"))
    return {key[2:]: value for key, value in stored.items() if key.startswith("w.")}


def network(name: str, meta: dict[str, str]) -> TAEHV:
    state = weights(name, meta)
    config = infer_config(state)
    flags = json.loads(meta.get("flags", "{}"))
    if flags.get("is_cogvideox"):
        config = replace(config, framing="cogvideox")
    if flags.get("is_h3"):
        config = replace(config, framing="h3")
    net = TAEHV(config)
    net.load_state_dict(fit_state_dict(net, state))
    return net.eval().requires_grad_(False)


def close(value: Tensor, golden: Tensor) -> None:
    assert value.shape == golden.shape
    assert float((value - golden).abs().max()) <= TOLERANCE


@pytest.mark.parametrize("name", CASES)
def test_encode_and_decode(name: str) -> None:
    tensors, meta = read(name)
    net = network(name, meta)
    inputs = [key for key in tensors if key.endswith(".in")]
    assert inputs
    for key in inputs:
        run = net.encode_frames if key.startswith("enc.") else net.decode_frames
        close(run(tensors[key]), tensors[key.removesuffix("in") + "out_parallel"])


@pytest.mark.parametrize("name", ["small_base", "small_super_patch2", "taew2_1_realarch"])
def test_stream_decodes_one_latent_at_a_time(name: str) -> None:
    tensors, meta = read(name)
    net = network(name, meta)
    told = json.loads(meta["stream_decode_only"])
    parts: list[Tensor] = []
    state: StreamState | None = None
    for latent in tensors[told["input"]].split(1, dim=1):
        frames, state = net.decode_stream(latent, state)
        parts.append(frames)
    assert [part.shape[1] for part in parts] == told["frames_per_latent"]
    close(torch.cat(parts, dim=1), tensors["stream.decode_only.frames"])


@pytest.mark.parametrize("name", ["small_base", "small_ltx", "small_super_patch2"])
def test_stream_encodes_one_frame_at_a_time(name: str) -> None:
    tensors, meta = read(name)
    net = network(name, meta)
    key = max(k for k in tensors if k.startswith("enc.") and k.endswith(".in"))
    video = tensors[key]
    short = -video.shape[1] % net.config.time_downscale
    padded = torch.cat([video, video[:, -1:].expand(-1, short, -1, -1, -1)], dim=1)
    parts: list[Tensor] = []
    state: StreamState | None = None
    for index, frame in enumerate(padded.split(1, dim=1), start=1):
        latents, state = net.encode_stream(frame, state)
        assert latents.shape[1] == (index % net.config.time_downscale == 0)
        parts.append(latents)
    close(torch.cat(parts, dim=1), tensors[key.removesuffix("in") + "out_parallel"])


@pytest.mark.parametrize("name", ["small_base", "small_super_patch2", "taew2_1_realarch"])
def test_stream_of_frames_to_latents_to_frames(name: str) -> None:
    """What is left in the encoder at the end comes out after its last frame is repeated."""
    tensors, meta = read(name)
    net, streams = network(name, meta), load_file(GOLDEN / "streams.safetensors")
    video = tensors[json.loads(meta["stream_v2v"])["input"]]
    short = -video.shape[1] % net.config.time_downscale
    padded = torch.cat([video, video[:, -1:].expand(-1, short, -1, -1, -1)], dim=1)
    latents: list[Tensor] = []
    frames: list[Tensor] = []
    encoder: StreamState | None = None
    decoder: StreamState | None = None
    for frame in padded.split(1, dim=1):
        made, encoder = net.encode_stream(frame, encoder)
        latents.append(made)
        for latent in made.split(1, dim=1) if made.shape[1] else ():
            shown, decoder = net.decode_stream(latent, decoder)
            frames.append(shown)
    before = torch.cat(latents[: video.shape[1]], dim=1)
    close(before, streams[f"{name}.latents_before_flush"])
    close(torch.cat(frames, dim=1)[:, : video.shape[1]], streams[f"{name}.frames"])


@pytest.mark.parametrize(
    "key", sorted(k for k in load_file(GOLDEN / "streams.safetensors") if "out_sequential" in k)
)
def test_published_order_of_work_changes_nothing(key: str) -> None:
    """Frame after frame, as published, equals ours at once."""
    name, part = key.split(".", 1)
    tensors, meta = read(name)
    net = network(name, meta)
    run = net.encode_frames if part.startswith("enc.") else net.decode_frames
    given = tensors[part.replace("out_sequential", "in")]
    close(run(given), load_file(GOLDEN / "streams.safetensors")[key])


@pytest.mark.parametrize("tag", ["time_off", "time_half", "time_space_off", "space_last_off"])
def test_preview_decoders_use_the_same_weights(tag: str) -> None:
    tensors, meta = read("small_base_preview")
    state = weights("small_base_preview", meta)
    options = json.loads(meta["variants"])[tag]
    net = TAEHV(config_from_dict({**config_to_dict(infer_config(state)), **options}))
    net.load_state_dict(fit_state_dict(net, state))
    with torch.no_grad():
        close(net.decode_frames(tensors["in"]), tensors[f"{tag}.out"])


def test_published_sizes() -> None:
    with torch.device("meta"):
        base = TAEHV()
        wide = TAEHVConfig(
            variant="super", patch_size=2, latent_channels=48, decoder_widths=(512, 256, 128, 64)
        )
        large = TAEHV(wide)
    keys = json.loads((GOLDEN / "taew2_1_realarch_recipe.json").read_text())["keys"]
    assert {key: list(value.shape) for key, value in base.state_dict().items()} == keys
    assert sum(p.numel() for p in base.parameters()) == 11_315_539
    assert len(large.state_dict()) == 112
    assert sum(p.numel() for p in large.parameters()) == 20_487_996
    assert infer_config(base.state_dict()) == base.config
    assert infer_config(large.state_dict()) == wide
