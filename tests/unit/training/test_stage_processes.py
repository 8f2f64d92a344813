"""Two processes take the step that one takes with both their shares, as replicas and as shards."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_stages import recipe_text, write_clips
from torch import Tensor
from torch.distributed.tensor import DTensor

from flythrough import seeds
from flythrough.training.helios.build import build_task
from flythrough.training.helios.plan import HeliosRun, check_run, loop_settings
from flythrough.training.loop import rank_and_world, start_processes
from flythrough.training.parallel import Strategy, whole
from flythrough.training.trainer import Trainer

CPU = torch.device("cpu")
STAGES = ("2", "3b")
STRATEGIES: tuple[Strategy, ...] = ("ddp", "fsdp")


def trainer(folder: Path, stage: str, strategy: Strategy, device: torch.device) -> Trainer:
    """A run whose LoRA is not zero, so that every weight has a gradient."""
    world = rank_and_world()[1]
    checked = check_run(
        HeliosRun(
            stage=stage,
            folder=folder / f"{stage}-{world}",
            recipe=str(folder / f"{stage}-{world}.toml"),
            base=str(folder / "base"),
            score=str(folder / "base") if stage == "3b" else None,
            trajectories=folder / "trajectories" if stage == "3a" else None,
            data=folder / "clips",
        )
    )
    task = build_task(checked, device)
    with torch.no_grad():
        for name, value in task.networks.named_parameters():
            if ".lora_B" in name:
                noise = torch.randn(value.shape, generator=seeds.generator(4, name))
                value.copy_(0.05 * noise)
    return Trainer(
        task,
        loop_settings(checked.recipe),
        checked.run.folder,
        device,
        strategy=strategy,
        accumulate=checked.recipe.run.accumulate,
    )


def one_step(run: Trainer) -> dict[str, Tensor]:
    """Losses, gradients and new weights of every player's turn."""
    found: dict[str, Tensor] = {}
    for player in run.played.players:
        for name, loss in run.gradients(player).items():
            found[f"{player.name}.loss.{name}"] = loss.clone()
        for i, parameter in enumerate(player.parameters):
            if parameter.grad is not None:
                found[f"{player.name}.gradient.{i}"] = whole(parameter.grad).clone()
        player.update(0, 0.0)
        for i, parameter in enumerate(player.parameters):
            found[f"{player.name}.weight.{i}"] = whole(parameter).clone()
    return found


def one_of_two(rank: int, port: int, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ |= {"WORLD_SIZE": "2", "RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    device = start_processes(CPU)
    for stage in STAGES:
        for strategy in STRATEGIES:
            run = trainer(folder, stage, strategy, device)
            sharded = [isinstance(p, DTensor) for p in run.parameters]
            assert all(sharded) if strategy == "fsdp" else not any(sharded)
            found = one_step(run)
            for name in [name for name in found if ".loss." in name]:
                torch.distributed.all_reduce(found[name])
                found[name] /= 2
            save_file(found, folder / f"{stage}-{strategy}-{rank}.safetensors")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def pair(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes found, by stage and strategy."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "base").symlink_to(tiny_model)
    write_clips(folder / "clips")
    for stage in STAGES:
        for world in (1, 2):
            text = recipe_text(stage, accumulate=2 // world, checkpointing=True, gan_start=0)
            (folder / f"{stage}-{world}.toml").write_text(text.replace("batch = 2", "batch = 1"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(one_of_two, (port, folder), nprocs=2)
    return folder


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_have_the_gradients_of_one(pair: Path, stage: str) -> None:
    single = one_step(trainer(pair, stage, "ddp", CPU))
    gradients = [name for name in single if ".gradient." in name]
    assert len(gradients) > 20
    moving = [name for name in gradients if float(single[name].abs().max()) > 0]
    assert len(moving) > 0.8 * len(gradients)  # history patches rest while there is no history
    for strategy in STRATEGIES:
        first, second = (
            load_file(pair / f"{stage}-{strategy}-{rank}.safetensors") for rank in (0, 1)
        )
        assert first.keys() == single.keys()
        for name, value in single.items():
            assert torch.equal(first[name], second[name]), name
            if ".weight." in name:  # Adam's first step is the sign of a gradient
                torch.testing.assert_close(first[name], value, rtol=0, atol=2.1e-3)
            else:
                scale = float(value.abs().max())
                # One number, the bias of a discriminator's head, is what real and made shares of
                # +-0.5 leave of each other: float32 rounds those shares, not what they leave.
                atol = 6e-8 if value.numel() == 1 else 1e-5 * scale + 1e-9
                torch.testing.assert_close(first[name], value, rtol=1e-4, atol=atol)
