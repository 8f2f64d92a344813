"""Recorded calls: what is recorded, when, and that a recording serves other values."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from test_fast_denoiser import TOLERANCE, adapter, fresh, gap, inputs
from torch import Tensor

from flythrough.models.adapters import attach_lora, set_lora_active
from flythrough.models.fast import several_gpus
from flythrough.models.fast.denoiser import FastDenoiser
from flythrough.models.fast.recordings import Recordings
from flythrough.models.fast.settings import FastSettings
from flythrough.models.fast.several_gpus import Exchange, SharedDenoiser


class Recorder:
    """Stands for a GPU's graphs: recording does nothing, a replay reads what was given where it
    lay, and its result always lies in one place."""

    def __init__(self) -> None:
        self.made = self.replayed = 0

    def __call__(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        self.made += 1
        result = torch.empty(0)

        def replay() -> None:
            self.replayed += 1
            found = work()
            result.resize_(found.shape).copy_(found)

        return replay, result


def full(work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """A GPU without memory for a recording."""
    del work
    raise torch.OutOfMemoryError


def recorded(fast: FastDenoiser) -> Recorder:
    record = Recorder()
    fast._recordings = Recordings(record)
    return record


def double(x: Tensor) -> Tensor:
    return 2 * x


def test_a_key_that_comes_back_is_recorded_once() -> None:
    record = Recorder()
    recordings = Recordings(record)
    for number in range(5):
        x = torch.full((3,), float(number))
        assert torch.equal(recordings.run("key", double, [x]), 2 * x)
    assert (record.made, record.replayed) == (1, 3)


def test_keys_that_change_are_not_recorded() -> None:
    """Two calls a stage, with other numbers of tokens in every chunk."""
    record = Recorder()
    recordings = Recordings(record)
    for number in range(200):
        for _ in range(2):
            recordings.run(number, double, [torch.zeros(1)])
    assert record.made == 0
    assert len(recordings._counts) <= 64


def test_the_oldest_recording_goes() -> None:
    record = Recorder()
    recordings = Recordings(record)
    for key in range(12):
        for _ in range(3):
            recordings.run(key, double, [torch.zeros(1)])
    assert list(recordings._made) == list(range(4, 12))
    recordings.run(4, double, [torch.zeros(1)])  # one that is used stays
    assert next(iter(recordings._made)) == 5
    assert record.made == 12


def test_what_is_dropped_is_recorded_anew() -> None:
    record = Recorder()
    recordings = Recordings(record)
    for key in (1, 2):
        for _ in range(3):
            recordings.run(key, double, [torch.zeros(1)])
    recordings.drop(lambda key: key == 1)
    assert list(recordings._made) == [2]
    recordings.drop()
    assert not recordings._made
    for _ in range(2):
        recordings.run(2, double, [torch.zeros(1)])
    assert record.made == 2
    recordings.run(2, double, [torch.zeros(1)])
    assert record.made == 3


def test_without_memory_calls_are_launched() -> None:
    recordings = Recordings(full)
    for number in range(5):
        x = torch.full((2,), float(number))
        assert torch.equal(recordings.run("key", double, [x]), 2 * x)
    assert not recordings._made


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
@pytest.mark.parametrize("prompts", [1, 2])
def test_a_denoiser_finds_the_same_when_recorded(
    mode: Callable[[], AbstractContextManager[object]], prompts: int
) -> None:
    """Stages that alternate, with an adapter in the first or with two prompts, other values in
    every chunk, and beside it a history whose visible tokens change."""
    net = fresh()
    if prompts == 1:
        attach_lora(net, adapter(net))
    fast, launched = FastDenoiser(net), FastDenoiser(net)
    record = recorded(fast)
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
    assert record.made == 2 * prompts
    assert record.replayed == 3 * record.made


def test_what_comes_back_only_within_a_chunk_is_launched() -> None:
    """Tokens left out: another number in the next chunk, whatever the steps; and a mask."""
    net = fresh()
    fast = FastDenoiser(net)
    record = recorded(fast)
    given = inputs("half-seen", 1)
    left_out = {**given, "history": net.pack_history(given["history"])}
    masked = {**given, "history": net.pack_history(given["history"], selection="mask")}
    for _ in range(5):
        fast(**left_out)
        fast(**masked)
    assert record.made == 0


def test_recordings_of_prompts_and_adapters_that_went_are_given_up() -> None:
    """Nor do their calls count for those who come later."""
    net = fresh()
    fast = FastDenoiser(net)
    record = recorded(fast)
    assert fast._recordings is not None
    for seed in range(6):
        given = inputs("image", seed)
        for _ in range(3):
            assert gap(net, fast, given) < TOLERANCE
        assert record.made == seed + 1
        assert len(fast._recordings._made) == min(2, seed + 1)
    for seed in range(10, 20):
        given = inputs("image", seed)
        for _ in range(2):
            fast(**given)
    assert record.made == 6
    attach_lora(net, adapter(net))
    for _ in range(3):
        assert gap(net, fast, given) < TOLERANCE
    assert record.made == 7


class OneProcess(Exchange):
    """A group of one, whose exchanges note who waits for them."""

    def __init__(self) -> None:
        self.group, self.rank, self.ranks = None, 0, 1
        self._begun = []


class Handle:
    def __init__(self) -> None:
        self.waited = False

    def wait(self) -> None:
        self.waited = True


def test_a_recording_that_ends_for_want_of_memory_waits_for_its_exchanges(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """torch gives up no recording while another stream still works for it."""
    handles: list[Handle] = []

    def gather(whole: Tensor, own: Tensor, **_: object) -> Handle:
        whole.copy_(own)
        handles.append(Handle())
        return handles[-1]

    monkeypatch.setattr(several_gpus, "_all_gather", gather)
    net = fresh()
    shared, alone = SharedDenoiser(net, exchange=OneProcess()), FastDenoiser(net)
    rotate, left = several_gpus.turned, [0]

    def turned(*given: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise torch.OutOfMemoryError
        rotate(*given)

    monkeypatch.setattr(several_gpus, "turned", turned)

    def record(work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        handles.clear()
        left[0] = 3  # in the second block, while the first exchange is under way
        work()
        raise AssertionError

    shared._recordings = Recordings(record)
    for seed in range(5):
        given = inputs("image", seed)
        given["encoder_hidden_states"] = inputs("image")["encoder_hidden_states"]
        assert torch.allclose(shared(**given), alone(**given), atol=TOLERANCE)
        assert all(handle.waited for handle in handles)
    assert left[0] < 0
    assert not shared._recordings._made


def test_weights_that_moved_are_read_anew() -> None:
    net = fresh()
    fast = FastDenoiser(net)
    record = recorded(fast)
    given = inputs("image")
    for _ in range(4):
        assert gap(net, fast, given) < TOLERANCE
    for block in net.blocks:
        block.ffn.net[2].weight.data = 2 * block.ffn.net[2].weight
    for _ in range(4):
        assert gap(net, fast, given) < TOLERANCE
    assert record.made == 2


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
    assert fast._recordings is not None
    assert len(fast._recordings._made) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("adapter_too", [False, True])
def test_graphs_when_all_recordings_went(adapter_too: bool) -> None:
    """Prompts that come and go, also with an adapter in one stage, whose keys take the places of
    the prompt before: its last recording goes before a new one is made."""
    net = fresh().to("cuda", torch.bfloat16)
    if adapter_too:
        attach_lora(net, adapter(net))
    launched, fast = FastDenoiser(net), FastDenoiser(net, FastSettings(graphs=True))
    assert fast._recordings is not None
    made = 0
    with torch.inference_mode():
        for number, calls in enumerate((4, 2, 4, 1, 6)):
            prompt = inputs("none", number)["encoder_hidden_states"].to("cuda", torch.bfloat16)
            for stage, times in enumerate((2, calls)):
                if adapter_too:
                    set_lora_active(net, "camera", stage == 0)
                for seed in range(times):
                    given = {**inputs("none", seed), "encoder_hidden_states": prompt}
                    given["hidden_states"] = given["hidden_states"].to("cuda", torch.bfloat16)
                    assert torch.equal(fast(**given), launched(**given))
            made += len(fast._recordings._made)
        fast.forget()
        assert not fast._recordings._made
        for _ in range(3):
            assert torch.equal(fast(**given), launched(**given))
    assert made
    assert len(fast._recordings._made) == 1
