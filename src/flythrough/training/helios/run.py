"""``flythrough train helios``: one training stage from its checks to the exported model."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from flythrough.engine.build import pick_device
from flythrough.training.helios.build import build_task
from flythrough.training.helios.plan import Checked, HeliosRun, check_run, loop_settings
from flythrough.training.loop import Record, rank_and_world, start_processes
from flythrough.training.nano_files import write_json
from flythrough.training.run_folder import alone, write_identity
from flythrough.training.trainer import Trainer


def run(asked: HeliosRun, on_record: Callable[[Record], None] | None = None) -> dict[str, Any]:
    """Train one stage, resuming a checkpoint in its folder, and export the model.

    Returns:
        the folder of the model, the step and the last losses.

    Raises:
        InputError: see :func:`check_run`; or another run works in the folder.
    """
    checked = check_run(asked)
    recipe = checked.recipe
    if asked.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    device = start_processes(pick_device(asked.device))
    torch.manual_seed(recipe.run.seed)
    with alone(asked.folder, rank_and_world()[0]):
        return _train(checked, device, on_record)


def _train(
    checked: Checked, device: torch.device, on_record: Callable[[Record], None] | None
) -> dict[str, Any]:
    asked, recipe = checked.run, checked.recipe
    task = build_task(checked, device)
    trainer = Trainer(
        task,
        loop_settings(recipe),
        asked.folder,
        device,
        strategy=asked.parallel,
        accumulate=recipe.run.accumulate,
    )
    trainer.resume()
    if trainer.rank == 0:
        write_json(asked.folder / "recipe.json", recipe.as_dict())
        write_identity(asked.folder, checked.identity)
    last: dict[str, float] = {}

    def show(record: Record) -> None:
        last.update(record.losses)
        if on_record is not None:
            on_record(record)

    trainer.run(show)
    task.networks.eval()
    model = asked.folder / "model"
    task.export(model)
    return {"model": str(model), "step": trainer.step, **last}
