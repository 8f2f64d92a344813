"""Processes that share the tokens of a call find what one finds, each the same bits."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from test_fast_denoiser import TOLERANCE, adapter, fresh, inputs
from test_recordings import Recorder, full
from torch import Tensor

from flythrough.models.adapters import attach_lora, set_lora_active
from flythrough.models.fast.denoiser import FastDenoiser
from flythrough.models.fast.fp8 import quantise_blocks
from flythrough.models.fast.recordings import Recordings
from flythrough.models.fast.several_gpus import Exchange, SharedDenoiser
from flythrough.models.helios import HeliosTransformer

LARGEST = 3
WORLDS = (2, LARGEST)
# (history, shape of the noisy latents): token counts 18..216 beside a history of 0..600
CASES: list[tuple[str, tuple[int, int]]] = [
    ("none", (4, 6)),
    ("text", (2, 2)),
    ("image", (4, 6)),
    ("all-seen", (4, 6)),
    ("half-seen", (4, 6)),
    ("nothing-seen", (2, 2)),
    ("patch-mid", (8, 12)),
]


def network() -> HeliosTransformer:
    net = fresh()
    torch.manual_seed(8)
    attach_lora(net, adapter(net))
    set_lora_active(net, "camera", False)
    return net


def few(frames: int) -> dict[str, Any]:
    """As many noisy tokens as frames, beside a history of odd length."""
    given = inputs("half-seen", 3, (2, 2))
    given["hidden_states"] = given["hidden_states"][:, :, :frames]
    given["indices_hidden_states"] = given["indices_hidden_states"][:, :frames]
    return given


def alone(frames: int) -> dict[str, Any]:
    return {**few(frames), "history": None}


def two_samples() -> dict[str, Any]:
    one, two = inputs("image"), inputs("image", seed=1)
    joint = ("hidden_states", "encoder_hidden_states")
    both = {name: torch.cat([one[name], two[name]]) for name in joint}
    return {**one, **both, "timestep": torch.tensor([900.0, 30.0])}


def unseen_masked(net: HeliosTransformer) -> dict[str, Any]:
    """Unseen tokens stay but are no keys."""
    given = inputs("half-seen", 1)
    return {**given, "history": net.pack_history(given["history"], selection="mask")}


def results(net: HeliosTransformer, call: Any) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    with torch.inference_mode():
        for kind, shape in CASES:
            found[f"{kind} {shape}"] = call(**inputs(kind, 0, shape))
        for frames in (1, 2, 5):
            found[f"few {frames}"] = call(**few(frames))
            found[f"alone {frames}"] = call(**alone(frames))
        found["two samples"] = call(**two_samples())
        found["masked"] = call(**unseen_masked(net))
        for number, active in enumerate((True, False)):  # chunks that alternate their adapter
            set_lora_active(net, "camera", active)
            found[f"adapter {active}"] = call(**inputs("half-seen", number))
        later = inputs("image", 2)
        for level in (900.0, 100.0):  # steps of a stage, over one packed history
            found[f"step {level}"] = call(**{**later, "timestep": torch.tensor([level])})
    return {name: value.contiguous() for name, value in found.items()}


def recorded_results(call: FastDenoiser, rank: int) -> tuple[dict[str, Tensor], Tensor]:
    """Chunks of two stages under prompts that come and go. Every process begins to record at
    another call, as if it had lost count, and the last one has no memory to; also, how many
    recordings were made."""
    record = full if rank == LARGEST - 1 else Recorder()
    call._recordings = Recordings(record)
    found = {}
    with torch.inference_mode():
        for chunk in range(10):
            for stage, shape in enumerate(((2, 2), (4, 6))):
                given = inputs("image", chunk, shape)
                prompt = inputs("image", 50 + chunk // 4)["encoder_hidden_states"]
                found[f"{chunk} {stage}"] = call(**{**given, "encoder_hidden_states": prompt})
            if chunk == rank:
                call.forget()
    made = record.made if isinstance(record, Recorder) else 0
    return {name: value.contiguous() for name, value in found.items()}, torch.tensor(made)


def one_of_several(rank: int, port: int, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=LARGEST)
    for world in WORLDS:
        group = dist.new_group(list(range(world)))
        if rank < world:
            net = network()
            found = results(net, SharedDenoiser(net, exchange=Exchange(group)))
            save_file(found, folder / f"{world}-{rank}.safetensors")
            quantise_blocks(net.blocks)
            call = SharedDenoiser(net, exchange=Exchange(group))
            with torch.inference_mode():
                found = {"fp8": call(**inputs("half-seen")).contiguous()}
            save_file(found, folder / f"{world}-{rank}-fp8.safetensors")
            call = SharedDenoiser(network(), exchange=Exchange(group))
            again, made = recorded_results(call, rank)
            save_file({**again, "made": made}, folder / f"{world}-{rank}-recorded.safetensors")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(one_of_several, (port, folder), nprocs=LARGEST)
    return folder


@pytest.fixture(scope="module")
def single() -> dict[str, dict[str, Tensor]]:
    net = network()
    plain = results(net, net)
    set_lora_active(net, "camera", False)
    found = {"plain": plain, "fast": results(net, FastDenoiser(net))}
    found["recorded"], _ = recorded_results(FastDenoiser(network()), LARGEST - 1)
    quantise_blocks(net.blocks)
    with torch.inference_mode():
        found["fp8"] = {"fp8": FastDenoiser(net)(**inputs("half-seen"))}
    return found


@pytest.mark.parametrize("world", WORLDS)
def test_several_find_what_one_finds(
    shared: Path, single: dict[str, dict[str, Tensor]], world: int
) -> None:
    parts = [load_file(shared / f"{world}-{rank}.safetensors") for rank in range(world)]
    for name, wanted in single["plain"].items():
        assert all(torch.equal(part[name], parts[0][name]) for part in parts), name
        size = float(wanted.square().mean().sqrt())
        for reference in (wanted, single["fast"][name]):
            gap = float((parts[0][name] - reference).abs().max()) / size
            assert gap < 2 * TOLERANCE, name


@pytest.mark.parametrize("world", WORLDS)
def test_eight_bits(shared: Path, single: dict[str, dict[str, Tensor]], world: int) -> None:
    """The scale of a token is its own, so that sharing tokens changes rounding alone."""
    wanted = single["fp8"]["fp8"]
    size = wanted.square().mean().sqrt()
    for rank in range(world):
        found = load_file(shared / f"{world}-{rank}-fp8.safetensors")["fp8"]
        assert (found - wanted).square().mean().sqrt() / size < 0.02


@pytest.mark.parametrize("world", WORLDS)
def test_processes_may_record_at_different_calls(
    shared: Path, single: dict[str, dict[str, Tensor]], world: int
) -> None:
    parts = [load_file(shared / f"{world}-{rank}-recorded.safetensors") for rank in range(world)]
    for name, wanted in single["recorded"].items():
        assert all(torch.equal(part[name], parts[0][name]) for part in parts), name
        size = float(wanted.square().mean().sqrt())
        assert float((parts[0][name] - wanted).abs().max()) / size < 2 * TOLERANCE, name
    # Two stages of two prompts; process 1 forgets too late to see the first one often enough again.
    assert [int(part["made"]) for part in parts] == [4, 2, 0][:world]
