"""The store of recent clips depends on the step alone, so stopped runs can be resumed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from flythrough import seeds
from flythrough.errors import InputError
from flythrough.models.helios import HeliosTransformer
from flythrough.models.text import new_text_encoder
from flythrough.sampling.dmd_schedule import PyramidConfig
from flythrough.training.denoiser import DenoiserSettings, DenoiserTask
from flythrough.training.latents import EncodedClips
from flythrough.training.loop import Loop, LoopSettings, Record
from flythrough.training.recent_clips import RecentClips

CPU = torch.device("cpu")
EACH = 3


class Source:
    """Clips that carry the number of their refill; remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, number: int, rank: int) -> EncodedClips:
        self.asked.append(number)
        draw = seeds.generator(5, number, rank)
        tokens = torch.randint(3, 40, (EACH, 6), generator=draw)
        return EncodedClips(
            prefix=torch.randn(EACH, 16, 1, 8, 8, generator=draw),
            steady=torch.randn(EACH, 16, 1, 8, 8, generator=draw),
            chunks=torch.randn(EACH, 2, 16, 9, 8, 8, generator=draw),
            tokens=tokens,
            mask=torch.ones_like(tokens),
        )


def content(clips: RecentClips, step: int) -> dict[str, Tensor]:
    return clips.at(step, 0).draw(40, seeds.generator(1, "draw", step)).fields()


@pytest.mark.parametrize(("capacity", "least"), [(9, 2), (8, 7), (2, 4)])
def test_a_fresh_store_holds_what_an_old_one_does(capacity: int, least: int) -> None:
    settings = {"capacity": capacity, "every": 2, "least": least}
    walked = RecentClips(Source(), EncodedClips, **settings)
    for step in range(17):
        told = content(walked, step)
        jumped = content(RecentClips(Source(), EncodedClips, **settings), step)
        assert all(torch.equal(told[name], jumped[name]) for name in told), step
    back = content(walked, 3)
    fresh = content(RecentClips(Source(), EncodedClips, **settings), 3)
    assert all(torch.equal(back[name], fresh[name]) for name in back)


def test_each_refill_is_made_once_and_a_late_start_makes_only_the_last() -> None:
    source = Source()
    clips = RecentClips(source, EncodedClips, capacity=9, every=2, least=4)
    for step in range(10):
        clips.at(step, 0)
    assert sorted(source.asked) == [0, 1, 2, 3, 4, 10_000_001]
    assert clips.at(9, 0).size == 9
    late = Source()
    RecentClips(late, EncodedClips, capacity=9, every=2, least=4).at(9, 0)
    assert sorted(late.asked) == [2, 3, 4]


def test_counts_below_one_are_refused() -> None:
    with pytest.raises(InputError, match="at least 1"):
        RecentClips(Source(), EncodedClips, capacity=4, every=0, least=1)


def test_a_refill_of_another_length_is_refused() -> None:
    source = Source()

    def refill(number: int, rank: int) -> EncodedClips:
        made = source(number, rank)
        return made if number != 2 else EncodedClips(**{k: v[:2] for k, v in made.fields().items()})

    clips = RecentClips(refill, EncodedClips, capacity=9, every=2, least=4)
    clips.at(3, 0)
    with pytest.raises(InputError, match="Refill 2 has 2 clips where others have 3"):
        clips.at(4, 0)


def denoiser() -> DenoiserTask:
    torch.manual_seed(3)
    net = HeliosTransformer(
        num_layers=1, num_attention_heads=1, attention_head_dim=16, rope_dim=(8, 4, 4),
        ffn_dim=16, text_dim=16, freq_dim=16,
    )  # fmt: skip
    text = new_text_encoder(layers=1, d_model=16, heads=1, d_kv=16, d_ff=16)
    settings = DenoiserSettings(batch=2, refill_every=2, capacity=6, latent_size=(9, 8, 8))
    trained = nn.ModuleDict({"transformer": net, "text": text})
    pyramid = PyramidConfig(use_dynamic_shifting=True)
    return DenoiserTask("d", net, text, Source(), pyramid, settings, trained, export=lambda _: None)


def test_a_resumed_run_of_the_denoiser_has_the_weights_of_an_unbroken_one(tmp_path: Path) -> None:
    settings = LoopSettings(steps=5, learning_rate=1e-3, warmup=1, save_every=3, log_every=1)
    Loop(denoiser(), settings, tmp_path / "whole", CPU).run()
    half = Loop(denoiser(), settings, tmp_path / "broken", CPU)

    def leave(record: Record) -> None:
        if record.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half.run(leave)
    resumed = Loop(denoiser(), settings, tmp_path / "broken", CPU)
    assert resumed.resume()
    resumed.run()
    whole = load_file(tmp_path / "whole" / "checkpoint.safetensors")
    again = load_file(tmp_path / "broken" / "checkpoint.safetensors")
    assert whole.keys() == again.keys()
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
    log = (tmp_path / "broken" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [1, 2, 3, 4, 5]
