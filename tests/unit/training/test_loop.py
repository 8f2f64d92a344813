"""The training loop: a resumed run repeats an unbroken one, and processes act as one batch."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from flythrough import seeds
from flythrough.training.loop import Loop, LoopSettings, rank_and_world, start_processes
from flythrough.training.placing import placed

CPU = torch.device("cpu")
BATCH = 4
SETTINGS = LoopSettings(
    steps=6,
    learning_rate=0.01,
    warmup=2,
    weight_decay=0.1,
    ema=0.9,
    log_every=1,
    save_every=3,
    preview_every=2,
)


class TakenAwayError(Exception):
    """Stands for a machine that goes away in the middle of a run."""


class TinyTask:
    """A channels-last convolution and a layer that learn a fixed map from fresh noise.

    Every process takes its share of a step's samples; only the first sample needs ``shift``, so
    that one process has no gradient for it.
    """

    name = "tiny"

    def __init__(self, stop_at: int | None = None) -> None:
        source = seeds.generator(1, "tiny")
        conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        self.modules = nn.ModuleDict({"conv": conv, "head": nn.Linear(4, 2)})
        self.modules.register_parameter("shift", nn.Parameter(torch.zeros(2)))
        with torch.no_grad():
            for parameter in self.modules.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=source) * 0.3)
        self.stop_at = stop_at

    def loss(self, step: int, rank: int) -> dict[str, Tensor]:
        if step == self.stop_at:
            raise TakenAwayError
        samples = torch.randn(BATCH, 3, 6, 6, generator=seeds.generator(2, "data", step))
        share = BATCH // rank_and_world()[1]
        errors = [self._error(samples[i], i) for i in range(share * rank, share * (rank + 1))]
        return {"total": torch.stack(errors).mean()}

    def _error(self, sample: Tensor, number: int) -> Tensor:
        made = self.modules["conv"](sample[None].contiguous(memory_format=torch.channels_last))
        found = self.modules["head"](made.tanh().mean((2, 3)))[0]
        if number == 0:
            found = found + self.modules.get_parameter("shift")
        return (found - sample.mean((1, 2))[:2]).square().sum()

    def preview(self, folder: Path, step: int) -> dict[str, float]:
        assert folder.is_dir()
        assert step % SETTINGS.preview_every == 0
        assert not self.modules.training
        return {"error": float(self.loss(1000, 0)["total"])}

    def export(self, folder: Path) -> None:
        raise AssertionError(f"the loop leaves exporting to its caller, but wrote {folder}")


def lines(file: Path) -> list[dict[str, Any]]:
    read = [json.loads(line) for line in file.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in read]


def assert_same(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for key, value in left.items():
        assert torch.equal(value, right[key]), key


def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path) -> None:
    whole = Loop(TinyTask(), SETTINGS, tmp_path / "whole", CPU)
    assert not whole.resume()
    whole.run()
    broken = Loop(TinyTask(stop_at=3), SETTINGS, tmp_path / "broken", CPU)
    with pytest.raises(TakenAwayError):
        broken.run()
    resumed = Loop(TinyTask(), SETTINGS, tmp_path / "broken", CPU)
    assert resumed.resume()
    assert resumed.step == 3
    for parameter in resumed.parameters:  # fused optimisers rely on it
        assert resumed.optimizer.state[parameter]["exp_avg"].stride() == parameter.stride()
    resumed.run()
    state = load_file(whole.checkpoint)
    assert {key.split(".")[0] for key in state} == {
        "parameter", "average", "exp_avg", "exp_avg_sq", "step",
    }  # fmt: skip
    assert_same(load_file(resumed.checkpoint), state)
    assert_same(resumed.task.modules.state_dict(), whole.task.modules.state_dict())
    assert [line["step"] for line in lines(whole.folder / "log.jsonl")] == [1, 2, 3, 4, 5, 6]
    for name in ("log.jsonl", "preview.jsonl"):
        assert lines(resumed.folder / name) == lines(whole.folder / name)


def test_the_run_ends_with_the_average_and_previews_change_nothing(tmp_path: Path) -> None:
    loop = Loop(TinyTask(), SETTINGS, tmp_path / "with", CPU)
    loop.run()
    state = load_file(loop.checkpoint)
    for i, parameter in enumerate(loop.parameters):
        assert torch.equal(parameter, state[f"average.{i}"])
        assert not torch.equal(parameter, state[f"parameter.{i}"])
    bare = Loop(TinyTask(), replace(SETTINGS, preview_every=0), tmp_path / "without", CPU)
    bare.run()
    assert_same(load_file(bare.checkpoint), state)
    assert not (bare.folder / "preview.jsonl").exists()


def same_layout(optimizer: torch.optim.Optimizer, *_: object) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert parameter.grad.stride() == parameter.stride()


def one_of_two(rank: int, port: int, folder: Path) -> None:
    """What a launcher starts: join the group, train, leave this rank's state behind."""
    torch.set_num_threads(1)
    os.environ |= {"WORLD_SIZE": "2", "RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    device = start_processes(CPU)
    loop = Loop(TinyTask(), SETTINGS, folder, device)
    loop.optimizer.register_step_pre_hook(same_layout)
    loop.run()
    save_file(
        {k: v.contiguous() for k, v in loop.task.modules.state_dict().items()},
        folder / f"rank{rank}.safetensors",
    )
    torch.distributed.destroy_process_group()


def test_two_processes_equal_one_with_all_samples(tmp_path: Path) -> None:
    single = Loop(TinyTask(), SETTINGS, tmp_path / "single", CPU)
    assert single.parameters[1].is_contiguous(memory_format=torch.channels_last)
    single.run()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path / "pair"
    torch.multiprocessing.spawn(one_of_two, (port, folder), nprocs=2)
    first, second = (load_file(folder / f"rank{rank}.safetensors") for rank in range(2))
    assert_same(first, second)
    for key, value in single.task.modules.state_dict().items():
        torch.testing.assert_close(first[key], value, rtol=1e-4, atol=1e-6)
    assert len(lines(folder / "log.jsonl")) == SETTINGS.steps  # only rank 0 writes


def test_accelerate_starts_processes_that_find_one_another(tmp_path: Path) -> None:
    """The command of docs/training.md with a short script in the place of ``flythrough``."""
    script = tmp_path / "joined.py"
    script.write_text(
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from flythrough.training.loop import rank_and_world, start_processes, wait_for_all\n"
        "start_processes(torch.device('cpu'))\n"
        "wait_for_all()\n"
        "rank, world = rank_and_world()\n"
        "Path(sys.argv[1], f'{rank}-of-{world}').touch()\n"
        "torch.distributed.destroy_process_group()\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    launch += ["--num_processes", "2", "--main_process_port", str(port)]
    subprocess.run([*launch, str(script), str(tmp_path)], check=True, timeout=120)
    assert {path.name for path in tmp_path.glob("*-of-*")} == {"0-of-2", "1-of-2"}


def test_adams_state_goes_where_its_parameter_is() -> None:
    parameter = torch.empty(4, 3, device="meta").t()
    moments = {"step": torch.tensor(3.0), "exp_avg": torch.zeros(3, 4)}
    found = placed(moments, parameter)
    assert all(value.device == parameter.device for value in found.values())
    assert found["exp_avg"].stride() == parameter.stride()
    kept = placed(moments, torch.zeros(3, 4))
    assert float(kept["step"]) == 3.0
