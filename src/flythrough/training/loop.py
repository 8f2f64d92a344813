"""One training loop for every task: step, average over processes, log, checkpoint, resume.

A task owns its modules and turns a step number into a loss. All randomness of a step is a function
of (seed, step, rank), and so are the tasks' data (``recent_clips`` replays what it must), so a run
that was stopped and resumed repeats an unbroken one bit for bit where the device is deterministic.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from flythrough.errors import InputError
from flythrough.training.checkpoint import load_checkpoint, save_checkpoint
from flythrough.training.run_folder import LOGS, cut_log

Schedule = Literal["cosine", "linear"]

_PATIENCE = timedelta(hours=6)
"""How long processes wait for one that prepares data."""


class Task(Protocol):
    """What is trained: its modules, its loss, and a picture of how it is doing."""

    name: str
    modules: nn.ModuleDict

    def loss(self, step: int, rank: int) -> dict[str, Tensor]:
        """Scalar losses of one step; the entry ``"total"`` is minimised."""
        ...

    def preview(self, folder: Path, step: int) -> dict[str, float]:
        """Write pictures into ``folder`` and return figures on held-out material."""
        ...


class ExportedTask(Task, Protocol):
    """A task that knows the file layout of what it trains."""

    def export(self, folder: Path) -> None:
        """Write the trained part in its published file layout."""
        ...


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """Optimiser and schedule. With ``minutes`` the schedule follows the clock instead of steps
    (useful on a rented GPU; such a run is not repeatable bit for bit). After the warm-up the
    learning rate falls along ``schedule`` to ``final_ratio`` of itself in the last step; 1 keeps
    it constant."""

    steps: int
    learning_rate: float
    seed: int = 0
    minutes: float | None = None
    warmup: int = 100
    schedule: Schedule = "cosine"
    final_ratio: float = 0.02
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    ema: float = 0.999
    precision: Literal["bf16", "fp32"] = "fp32"
    log_every: int = 20
    save_every: int = 500
    preview_every: int = 0
    fused: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"{self.steps} training steps were asked for; give at least 1.")
        if self.minutes is not None and self.minutes <= 0:
            raise InputError(f"A budget of {self.minutes} minutes is not positive; give more.")
        if self.schedule not in ("cosine", "linear"):
            raise InputError(f"The schedule {self.schedule!r} is unknown; give cosine or linear.")


@dataclass(frozen=True)
class Record:
    """One line of the loss log; ``seconds`` a step, averaged since the line before."""

    step: int
    losses: dict[str, float]
    learning_rate: float
    gradient_norm: float
    seconds: float


def rank_and_world() -> tuple[int, int]:
    """This process's rank and the number of processes (1 without torch.distributed)."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def start_processes(device: torch.device) -> torch.device:
    """Join the process group when launched by torchrun or accelerate; returns this rank's device.

    Without a launcher nothing happens. Control messages go through gloo on the CPU, so that asking
    whether time is up never waits for the card.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE
        )
    return device


def wait_for_all() -> None:
    """Return when every process has come here."""
    if rank_and_world()[1] > 1:
        torch.distributed.all_reduce(torch.zeros(1))  # on the CPU, so through gloo


def learning_rate_at(progress: float, step: int, settings: LoopSettings) -> float:
    """Linear warm-up by step, times a half cosine or a line in ``progress`` (0..1)."""
    warm = min(1.0, (step + 1) / max(1, settings.warmup))
    left = 1 - min(1.0, progress)
    if settings.schedule == "cosine":
        left = 0.5 * (1 - math.cos(math.pi * left))
    low = settings.final_ratio
    return settings.learning_rate * warm * (low + (1 - low) * left)


class Loop:
    """State of one run: parameters, their moving average, the optimiser, the step."""

    def __init__(self, task: Task, settings: LoopSettings, folder: Path, device: torch.device):
        self.task, self.settings, self.folder, self.device = task, settings, folder, device
        self.rank, self.world = rank_and_world()
        self.parameters = [p for p in task.modules.parameters() if p.requires_grad]
        decayed = [p for p in self.parameters if p.ndim >= 2]
        plain = [p for p in self.parameters if p.ndim < 2]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": settings.weight_decay},
                {"params": plain, "weight_decay": 0.0},
            ],
            lr=settings.learning_rate,
            betas=settings.betas,
            fused=settings.fused and device.type == "cuda",
        )
        self.average = [p.detach().clone() for p in self.parameters]
        self.step = 0
        self.spent = 0.0
        self._logged_at = 0.0

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    def resume(self) -> bool:
        """Continue from the folder's checkpoint if there is one; the logs lose what came later."""
        found = self.checkpoint.exists()
        if found:
            self._load()
        if self.rank == 0:
            for name in LOGS:
                cut_log(self.folder / name, self.step)
        return found

    def _load(self) -> None:
        self.step, self.spent = load_checkpoint(
            self.checkpoint, self.parameters, self.average, self.optimizer
        )

    def save(self) -> None:
        if self.rank == 0:
            save_checkpoint(
                self.checkpoint,
                self.parameters,
                self.average,
                self.optimizer,
                step=self.step,
                spent=self.spent,
            )

    def run(self, on_record: Callable[[Record], None] | None = None) -> None:
        """Train until the step or minute budget is used, then leave the average in the modules."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.rank == 0:
            text = json.dumps(asdict(self.settings), indent=1)
            (self.folder / "settings.json").write_text(text)
        started = time.monotonic() - self.spent
        self._logged_at = time.monotonic()
        while not self._finished():
            record = self._advance()
            self.spent = time.monotonic() - started
            self._after_step(record, on_record)
        self.save()
        self.use_average()

    def use_average(self) -> None:
        """Put the moving average of the weights into the modules."""
        with torch.no_grad():
            for parameter, mean in zip(self.parameters, self.average, strict=True):
                parameter.copy_(mean)

    def _finished(self) -> bool:
        if self.world > 1:  # one clock for all, or learning rates and stops would drift apart
            clock = torch.tensor([self.spent], dtype=torch.float64)
            torch.distributed.broadcast(clock, 0)
            self.spent = float(clock)
        over_time = self.settings.minutes is not None and self.spent >= 60 * self.settings.minutes
        return over_time or self.step >= self.settings.steps

    def _progress(self) -> float:
        by_step = self.step / max(1, self.settings.steps - 1)
        if self.settings.minutes is None:
            return by_step
        return max(by_step, self.spent / (60 * self.settings.minutes))

    def _advance(self) -> Record:
        settings = self.settings
        rate = learning_rate_at(self._progress(), self.step, settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.task.modules.train()
        with precision(settings.precision, self.device):
            losses = self.task.loss(self.step, self.rank)
        losses["total"].backward()
        self._average_gradients()
        norm = nn.utils.clip_grad_norm_(self.parameters, settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        decay = min(settings.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mean, parameter in zip(self.average, self.parameters, strict=True):
                mean.lerp_(parameter, 1 - decay)
        self.step += 1
        log = self.step % settings.log_every == 0
        figures = {k: float(v.detach()) for k, v in losses.items()} if log else {}
        if not log:
            return Record(self.step, {}, rate, 0.0, 0.0)
        before, self._logged_at = self._logged_at, time.monotonic()
        seconds = (self._logged_at - before) / settings.log_every
        return Record(self.step, figures, rate, float(norm), seconds)

    def _average_gradients(self) -> None:
        if self.world == 1:
            return
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        torch.distributed.all_reduce(flat)
        flat /= self.world
        pieces = flat.split([g.numel() for g in gradients])
        # Copied in place: fused optimisers need gradients in the layout of their parameters.
        for gradient, piece in zip(gradients, pieces, strict=True):
            gradient.copy_(piece.view(gradient.shape))

    def _after_step(self, record: Record, on_record: Callable[[Record], None] | None) -> None:
        settings = self.settings
        if record.losses and not math.isfinite(record.losses["total"]):
            raise InputError(
                f"The loss became {record.losses['total']} at step {record.step}; "
                "lower the learning rate or resume from an earlier checkpoint."
            )
        if self.rank == 0 and record.losses:
            with (self.folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(asdict(record)) + "\n")
            if on_record is not None:
                on_record(record)
        if settings.save_every and self.step % settings.save_every == 0:
            self.save()
        if self.rank == 0 and settings.preview_every and self.step % settings.preview_every == 0:
            self.write_preview()

    def write_preview(self) -> dict[str, float]:
        """Figures and pictures with the averaged weights; training weights are put back."""
        kept = [p.detach().clone() for p in self.parameters]
        self.use_average()
        self.task.modules.eval()
        eager = torch.compiler.set_stance("force_eager")  # other shapes: not worth compiling for
        with eager, torch.no_grad(), precision(self.settings.precision, self.device):
            figures = self.task.preview(self.folder, self.step)
        with torch.no_grad():
            for parameter, value in zip(self.parameters, kept, strict=True):
                parameter.copy_(value)
        with (self.folder / "preview.jsonl").open("a") as log:
            log.write(json.dumps({"step": self.step, **figures}) + "\n")
        return figures


def precision(name: str, device: torch.device) -> AbstractContextManager[object]:
    """Autocast to bfloat16 for ``"bf16"``, nothing for ``"fp32"``."""
    if name == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
