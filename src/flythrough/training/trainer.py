"""The training loop for several players: generator and critic, each with optimiser and rhythm.

It is ``loop.Loop`` with more than one optimiser, with replicas or shards over many processes, and
with micro-batches: micro-batch m of process r draws what process r + m * processes would, so that
one process with two micro-batches takes the same step as two processes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from flythrough.disk import replacing, writing
from flythrough.errors import WeightsError
from flythrough.training.loop import Loop, LoopSettings, Record, precision, rank_and_world
from flythrough.training.parallel import Losses, Strategy, check_strategy, replicated, shard
from flythrough.training.players import Player


class PlayedTask(Protocol):
    """What is trained: networks, the players that train parts of them, their losses."""

    name: str

    @property
    def networks(self) -> nn.ModuleDict:
        """All networks that hold weights of a player."""
        ...

    @property
    def players(self) -> tuple[Player, ...]:
        """In the order of their turns within a step."""
        ...

    def shards(self) -> list[tuple[nn.Module, Iterable[nn.Module]]]:
        """Networks to split over processes, each with the layers to gather one by one."""
        ...

    def losses(self, player: str, step: int, rank: int) -> dict[str, Tensor]:
        """Scalar losses of one player's turn; the entry ``"total"`` is minimised. All processes
        must run their networks equally often."""
        ...

    def export(self, folder: Path) -> None:
        """Write what was trained as a model folder; every process must take part."""
        ...


class Trainer(Loop):
    """State of one run of a :class:`PlayedTask`.

    Args:
        settings: steps, precision and rhythms of log and checkpoint; each player has its own
            learning rate and optimiser.
        strategy: how processes share the work, see ``training.parallel``.
        accumulate: micro-batches a step.

    Raises:
        InputError: an unknown strategy.
    """

    def __init__(
        self,
        task: PlayedTask,
        settings: LoopSettings,
        folder: Path,
        device: torch.device,
        *,
        strategy: Strategy = "ddp",
        accumulate: int = 1,
    ) -> None:
        check_strategy(strategy)
        self.played, self.settings, self.folder, self.device = task, settings, folder, device
        self.accumulate = accumulate
        self.rank, self.world = rank_and_world()
        if strategy == "fsdp":
            names = {id(value): name for name, value in task.networks.named_parameters()}
            for network, layers in task.shards():
                shard(network, layers, device)
            for player in task.players:  # sharding put other parameters into the places
                kept = [names[id(value)] for value in player.parameters]
                player.parameters = [task.networks.get_parameter(name) for name in kept]
        for player in task.players:
            player.prepare(device)
        self._turns: dict[str, Losses] = {}
        for player in task.players:
            losses: Losses = partial(task.losses, player.name)
            if strategy == "ddp" and self.world > 1:
                losses = replicated(task.networks, player.parameters, losses)
            self._turns[player.name] = losses
        self.parameters = [p for player in task.players for p in player.parameters]
        self.step = 0
        self.spent = 0.0
        self._logged_at = time.monotonic()
        self._figures: dict[str, dict[str, float]] = {}

    def _load(self) -> None:
        """Take everything from the checkpoint.

        Raises:
            WeightsError: it is damaged or of another run.
        """
        try:
            with safe_open(self.checkpoint, framework="pt") as file:
                state = json.loads((file.metadata() or {})["state"])
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise WeightsError(
                f"{self.checkpoint} is not a training checkpoint ({error}); delete it to start "
                "anew."
            ) from error
        if state.get("task") != self.played.name:
            raise WeightsError(
                f"{self.checkpoint} is of {state.get('task')}, not of {self.played.name}; give "
                "every stage a folder of its own."
            )
        for player in self.played.players:
            player.restore(tensors)
        self.step, self.spent = int(state["step"]), float(state["spent"])

    def save(self) -> None:
        """Write the checkpoint; every process must take part."""
        tensors: dict[str, Tensor] = {}
        for player in self.played.players:
            tensors |= player.state(keep=self.rank == 0)
        if self.rank == 0:
            state = {"task": self.played.name, "step": self.step, "spent": self.spent}
            with writing(self.folder), replacing(self.checkpoint) as partial_file:
                save_file(tensors, partial_file, metadata={"state": json.dumps(state)})
        if self.world > 1:
            torch.distributed.barrier()

    def use_average(self) -> None:
        """Put the moving averages of the weights into the networks."""
        for player in self.played.players:
            player.use_average()

    def gradients(self, player: Player) -> dict[str, Tensor]:
        """Losses of the player's turn in this step, averaged over micro-batches; their gradients
        are left in its parameters."""
        total: dict[str, Tensor] = {}
        turn = self._turns[player.name]
        for number in range(self.accumulate):
            final = number == self.accumulate - 1
            with _without_averaging(turn, final):
                with precision(self.settings.precision, self.device):
                    losses = turn(self.step, self.rank + self.world * number)
                (losses["total"] / self.accumulate).backward()
            for name, value in losses.items():
                share = value.detach() / self.accumulate
                total[name] = total[name] + share if name in total else share
        return total

    def _advance(self) -> Record:
        settings, step = self.settings, self.step
        log = (step + 1) % settings.log_every == 0
        self.played.networks.train()
        progress, rate, norm = self._progress(), 0.0, 0.0
        for player in self.played.players:
            if not player.due(step):
                continue
            losses = self.gradients(player)
            rate, norm = player.update(step, progress)
            if log or player.every > 1:
                figures = {k: float(v) for k, v in losses.items()}
                self._figures[player.name] = {**figures, "norm": norm}
        self.step += 1
        if not log:
            return Record(self.step, {}, rate, 0.0, 0.0)
        shown: dict[str, float] = {"total": 0.0}
        for name, values in self._figures.items():
            shown["total"] += values["total"]
            shown |= {f"{name}.{key}": value for key, value in values.items()}
        before, self._logged_at = self._logged_at, time.monotonic()
        seconds = (self._logged_at - before) / settings.log_every
        return Record(self.step, shown, rate, norm, seconds)

    def write_preview(self) -> dict[str, float]:
        """Played tasks have none: they are judged by sampling from what they export."""
        return {}


def _without_averaging(turn: Any, final: bool) -> AbstractContextManager[None]:
    """Replicas average once a step, in its last micro-batch."""
    return nullcontext() if final or not hasattr(turn, "no_sync") else turn.no_sync()
