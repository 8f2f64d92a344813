"""Weights that wait elsewhere give the same results."""

from __future__ import annotations

from pathlib import Path

import torch

from flythrough.models.catalog import find_model
from flythrough.models.loading import load_model
from flythrough.models.placing import ElsewhereCodec, VisitingCodec, stream_layers
from flythrough.models.text import PromptEncoder

CPU = torch.device("cpu")


def test_a_visiting_codec_is_the_codec(tiny_model: Path) -> None:
    codec = load_model(find_model(str(tiny_model)), CPU, torch.float32).codec
    visiting = VisitingCodec(codec, CPU)
    video = torch.rand(1, 3, 5, 64, 64)
    latents = codec.encode(video)
    assert torch.equal(visiting.encode(video), latents)
    assert torch.equal(visiting.encode_still(video[:, :, :1]), codec.encode_still(video[:, :, :1]))
    assert torch.equal(visiting.decode(latents), codec.decode(latents))
    assert (visiting.spatial, visiting.temporal) == (codec.spatial, codec.temporal)


def test_streamed_layers_change_nothing(tiny_model: Path) -> None:
    kept = PromptEncoder.from_folder(tiny_model)
    ids, mask = kept.tokenize(["a red house"], 16)
    expected = kept.embed(ids, mask)
    stream_layers(kept.text_encoder, CPU, prefetch=False)
    assert torch.equal(kept.embed(ids, mask), expected)


def test_a_passing_encoder_reads_anew_what_it_has_not_read(tiny_model: Path) -> None:
    kept = PromptEncoder.from_folder(tiny_model)
    passing = PromptEncoder.from_folder(tiny_model, keep=False)
    assert passing._net is None
    first = passing.encode(["one"], 16)
    assert passing._net is not None
    passing.release()
    assert passing._net is None
    assert torch.equal(passing.encode(["one"], 16), first)
    assert passing._net is None  # known prompts need no encoder
    assert torch.equal(passing.encode(["two"], 16), kept.encode(["two"], 16))
    kept.release()
    assert kept._net is not None


def test_a_codec_elsewhere_answers_here() -> None:
    """Inputs go to the codec's device and results come to the asking one, whatever it is."""
    asked: list[str] = []

    class Fake:
        latent_channels, spatial, temporal = 16, 8, 4

        def to(self, device: torch.device) -> Fake:
            asked.append(f"to {device}")
            return self

        def encode(self, video: torch.Tensor) -> torch.Tensor:
            asked.append(f"encode on {video.device}")
            return video

        encode_still = decode = encode

    there, here = torch.device("cpu"), torch.device("meta")
    codec = ElsewhereCodec(Fake(), there, here)
    assert (codec.latent_channels, codec.spatial, codec.temporal) == (16, 8, 4)
    for work in (codec.encode, codec.encode_still, codec.decode):
        assert work(torch.zeros(2)).device == here
    assert codec.to("cpu").encode(torch.zeros(2)).device == there
    assert asked == ["to cpu"] + ["encode on cpu"] * 4
