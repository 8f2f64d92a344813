"""The codec: shapes, frame convention, streams, gradients, files and messages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from flythrough.errors import InputError, WeightsError
from flythrough.models.codec import CONFIG_FILE, WEIGHTS_FILE, VideoCodec, load_codec, save_codec
from flythrough.models.taehv import NANO_CONFIG, TAEHV, StreamState, TAEHVConfig

SMALL = TAEHVConfig(latent_channels=6, encoder_width=8, decoder_widths=(16, 12, 8, 8))


@pytest.fixture
def codec() -> VideoCodec:
    torch.manual_seed(0)
    return VideoCodec(TAEHV(SMALL).eval().requires_grad_(False))


@pytest.mark.parametrize(("frames", "latents"), [(1, 1), (5, 2), (13, 4)])
def test_frames_and_latents_round_trip(codec: VideoCodec, frames: int, latents: int) -> None:
    video = torch.rand(2, 3, frames, 16, 24)
    z = codec.encode(video)
    assert z.shape == (2, 6, latents, 2, 3)
    assert z.dtype == torch.float32
    decoded = codec.decode(z)
    assert decoded.shape == video.shape
    assert 0 <= float(decoded.min()) <= float(decoded.max()) <= 1


def test_latent_covers_four_frames_after_the_first(codec: VideoCodec) -> None:
    video = torch.rand(1, 3, 9, 16, 16)
    changed = video.clone()
    changed[:, :, 5:] = 0.5  # frames 5..8 belong to latent 2
    before, after = codec.encode(video), codec.encode(changed)
    assert torch.equal(before[:, :, :2], after[:, :, :2])
    assert not torch.equal(before[:, :, 2], after[:, :, 2])


def test_lone_frame_equals_start_of_clip(codec: VideoCodec) -> None:
    video = torch.rand(1, 3, 5, 16, 16)
    lone = codec.encode(video[:, :, :1])
    torch.testing.assert_close(lone, codec.encode(video)[:, :, :1])


def test_still_settles(codec: VideoCodec) -> None:
    image = torch.rand(1, 3, 1, 16, 16)
    longer = codec.encode(image.expand(-1, -1, 45, -1, -1))[:, :, -1:]
    torch.testing.assert_close(codec.encode_still(image), longer)


def test_stream_equals_whole_and_states_are_values(codec: VideoCodec) -> None:
    z = torch.randn(2, 6, 5, 2, 3)
    whole = codec.decode(z)
    first, state = codec.decode_stream(z[:, :, :2])
    second, _ = codec.decode_stream(z[:, :, 2:], state)
    again, _ = codec.decode_stream(z[:, :, 2:], state)
    assert first.shape[2] == 5
    torch.testing.assert_close(torch.cat([first, second], dim=2), whole)
    assert torch.equal(second, again)


def test_slicing_is_invisible() -> None:
    torch.manual_seed(1)
    net = TAEHV(SMALL)
    video = torch.rand(1, 3, 9, 16, 16)
    whole = VideoCodec(net)
    with torch.no_grad():
        sliced = whole.encode(video)
    at_once = whole.encode(video)  # gradients on: one piece
    assert at_once.requires_grad
    torch.testing.assert_close(sliced, at_once.detach())


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(2)
    net = TAEHV(SMALL)
    codec = VideoCodec(net)
    video = torch.rand(2, 3, 5, 16, 16)
    (codec.decode(codec.encode(video), clamp=False) - video).square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_save_and_load(tmp_path: Path, codec: VideoCodec) -> None:
    save_codec(codec, tmp_path, dtype=torch.float32)
    loaded = load_codec(tmp_path)
    video = torch.rand(1, 3, 5, 16, 16)
    assert loaded.config == SMALL
    torch.testing.assert_close(loaded.encode(video), codec.encode(video))
    described = json.loads((tmp_path / CONFIG_FILE).read_text())
    assert described["_class_name"] == "TAEHV"
    assert described["latents_mean"] == [0.0] * 6
    assert not any(p.requires_grad for p in loaded.net.parameters())


def test_half_precision_by_default_and_lone_file(tmp_path: Path, codec: VideoCodec) -> None:
    save_codec(codec, tmp_path)
    stored = load_file(tmp_path / WEIGHTS_FILE)
    assert {value.dtype for value in stored.values()} == {torch.float16}
    lone = load_codec(tmp_path / WEIGHTS_FILE)
    assert lone.config == SMALL
    assert lone.dtype == torch.float32


def test_nano_size() -> None:
    with torch.device("meta"):
        codec = VideoCodec(TAEHV(NANO_CONFIG))
    assert sum(p.numel() for p in codec.net.parameters()) == 6_368_083
    assert (codec.latent_channels, codec.spatial, codec.temporal) == (16, 8, 4)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 3, 4, 16, 16), "cut or repeat frames"),
        ((1, 3, 5, 20, 16), "multiples of 8"),
        ((1, 4, 5, 16, 16), "cannot be encoded"),
        ((3, 5, 16, 16), "cannot be encoded"),
    ],
)
def test_unusable_video(codec: VideoCodec, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        codec.encode(torch.rand(shape))


def test_unusable_latents(codec: VideoCodec) -> None:
    with pytest.raises(InputError, match="do not fit this codec"):
        codec.decode(torch.rand(1, 16, 2, 2, 2))


@pytest.mark.parametrize("options", [{"framing": "h3"}, {"decoder_time_upscale": (False,) * 3}])
def test_codec_needs_frames_in_step(options: dict) -> None:
    with pytest.raises(InputError, match="in step"):
        VideoCodec(TAEHV(TAEHVConfig(**{**vars(SMALL), **options})))


@pytest.mark.parametrize(
    "options",
    [{"patch_size": 0}, {"variant": "huge"}, {"framing": "odd"}, {"decoder_widths": (1,)}],
)
def test_unusable_configuration(options: dict) -> None:
    with pytest.raises(InputError):
        TAEHVConfig(**options)


def test_missing_files_are_named(tmp_path: Path, codec: VideoCodec) -> None:
    with pytest.raises(WeightsError, match=CONFIG_FILE):
        load_codec(tmp_path / "nowhere")
    save_codec(codec, tmp_path)
    (tmp_path / WEIGHTS_FILE).unlink()
    with pytest.raises(WeightsError, match=WEIGHTS_FILE):
        load_codec(tmp_path)


def test_unreadable_files(tmp_path: Path, codec: VideoCodec) -> None:
    save_codec(codec, tmp_path)
    (tmp_path / WEIGHTS_FILE).write_bytes(b"not safetensors")
    with pytest.raises(WeightsError, match="not a readable"):
        load_codec(tmp_path)
    (tmp_path / CONFIG_FILE).write_text("{")
    with pytest.raises(WeightsError, match="no codec configuration"):
        load_codec(tmp_path)
    (tmp_path / CONFIG_FILE).write_text(json.dumps({"_class_name": "AutoencoderKLWan"}))
    with pytest.raises(WeightsError, match="AutoencoderKLWan"):
        load_codec(tmp_path)


def test_wrong_weights_are_named(tmp_path: Path, codec: VideoCodec) -> None:
    save_codec(codec, tmp_path)
    file = tmp_path / WEIGHTS_FILE
    state = load_file(file)
    bias = state.pop("encoder.0.bias")
    save_file(state, file)
    with pytest.raises(WeightsError, match=r"misses encoder\.0\.bias"):
        load_codec(tmp_path)
    save_file({**state, "encoder.0.bias": bias[:2].contiguous()}, file)
    with pytest.raises(WeightsError, match=r"misshaped encoder\.0\.bias"):
        load_codec(tmp_path)
    save_file({**state, "encoder.0.bias": bias, "extra": bias.clone()}, file)
    with pytest.raises(WeightsError, match="unknown extra"):
        load_codec(tmp_path)
    save_file({"other": bias.clone()}, file)
    with pytest.raises(WeightsError, match=r"encoder\.0\.weight"):
        load_codec(file)


def test_gathering_frames_gives_no_latent_yet(codec: VideoCodec) -> None:
    state: StreamState | None = None
    latents, state = codec.net.encode_stream(torch.rand(1, 3, 3, 16, 16), state)
    assert latents.shape == (1, 0, 6, 2, 2)
