"""Recorded calls: what is recorded, when, and that a recording serves other values."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from test_fast_denoiser import adapter, fresh, inputs
from torch import Tensor

from flythrough.models.adapters import attach_lora, set_lora_active
from flythrough.models.fast.denoiser import FastDenoiser
from flythrough.models.fast.replays import Replays
from flythrough.models.fast.settings import FastSettings


class Recorder:
    """Stands for a GPU's graphs: a replay reads what was given where it lay, and writes where the
    first result lay."""

    def __init__(self) -> None:
        self.made = self.replayed = 0

    def __call__(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        self.made += 1
        found = work().clone()

        def replay() -> None:
            self.replayed += 1
            found.copy_(work())

        return replay, found


def double(x: Tensor) -> Tensor:
    return 2 * x


def test_a_key_that_comes_back_is_recorded_once() -> None:
    record = Recorder()
    replays = Replays(record)
    for number in range(5):
        x = torch.full((3,), float(number))
        assert torch.equal(replays("key", double, [x]), 2 * x)
    assert (record.made, record.replayed) == (1, 3)


def test_keys_that_change_are_not_recorded() -> None:
    """Two calls a stage, with other numbers of tokens in every chunk."""
    record = Recorder()
    replays = Replays(record)
    for number in range(200):
        for _ in range(2):
            replays(number, double, [torch.zeros(1)])
    assert record.made == 0
    assert len(replays._noted) <= 64


def test_the_oldest_recording_goes() -> None:
    record = Recorder()
    replays = Replays(record)
    for key in range(12):
        for _ in range(3):
            replays(key, double, [torch.zeros(1)])
    assert len(replays._made) == 8
    assert 11 in replays._made
    for _ in range(2):  # one that is used stays
        replays(4, double, [torch.zeros(1)])
    assert next(iter(replays._made)) == 5


def test_nothing_is_recorded_without_a_recorder() -> None:
    replays = Replays(None)
    for _ in range(5):
        assert torch.equal(replays("key", double, [torch.ones(2)]), torch.full((2,), 2.0))


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
@pytest.mark.parametrize("prompts", [1, 2])
def test_a_denoiser_finds_the_same_when_recorded(
    mode: Callable[[], AbstractContextManager[object]], prompts: int
) -> None:
    """Stages that alternate, with an adapter in the first or with two prompts, other values in
    every chunk, and beside it a history whose visible tokens change."""
    net, record = fresh(), Recorder()
    if prompts == 1:
        attach_lora(net, adapter(net))
    fast, launched = FastDenoiser(net), FastDenoiser(net)
    fast._replays = Replays(record)
    asked = [inputs("image", seed)["encoder_hidden_states"] for seed in range(50, 50 + prompts)]
    with mode():
        for chunk in range(5):
            for stage, shape in enumerate(((2, 2), (4, 6))):
                if prompts == 1:
                    set_lora_active(net, "camera", stage == 0)
                for kind in ("image", "half-seen"):
                    given = inputs(kind, chunk, shape)
                    for prompt in asked:
                        given = {**given, "encoder_hidden_states": prompt}
                        assert torch.equal(fast(**given), launched(**given))
    assert record.made == 2 * prompts  # not where the tokens changed
    assert record.replayed == 3 * record.made


def test_a_masked_history_is_not_recorded() -> None:
    net, record = fresh(), Recorder()
    fast = FastDenoiser(net)
    fast._replays = Replays(record)
    given = inputs("half-seen", 1)
    packed = net.pack_history(given["history"], selection="mask")
    for _ in range(4):
        fast(**{**given, "history": packed})
    assert record.made == 0


def test_weights_that_moved_are_forgotten() -> None:
    net = fresh()
    fast = FastDenoiser(net)
    fast._replays = Replays(Recorder())
    before = fast._replays
    fast(**inputs("image"))
    for block in net.blocks:
        block.ffn.net[2].weight.data = block.ffn.net[2].weight.clone()
    fast(**inputs("image"))
    assert fast._replays is not before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_graphs_find_the_same_bits() -> None:
    net = fresh().to("cuda", torch.bfloat16)
    launched, fast = FastDenoiser(net), FastDenoiser(net, FastSettings(graphs=True))
    prompt = inputs("none")["encoder_hidden_states"].to("cuda", torch.bfloat16)
    with torch.inference_mode():
        for seed in range(5):
            given = {**inputs("none", seed), "encoder_hidden_states": prompt}
            given["hidden_states"] = given["hidden_states"].to("cuda", torch.bfloat16)
            assert torch.equal(fast(**given), launched(**given))
    assert len(fast._replays._made) == 1
