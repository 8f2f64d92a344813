"""Schedules equal the recorded tables and those of diffusers' scheduler."""

from __future__ import annotations

import json
import re

import pytest
import torch
from diffusers import HeliosDMDScheduler
from published_draws import GOLDEN
from safetensors.torch import load_file
from torch import Tensor

from flythrough.sampling.dmd_schedule import (
    PyramidConfig,
    dmd_schedule,
    pyramid_schedules,
    shift_mu,
    stage_tables,
)
from flythrough.sampling.noise import reference_block_noise

FOLDER = GOLDEN / "sampler"
PARTS = load_file(FOLDER / "parts.safetensors")
RAW = json.loads((FOLDER / "scheduler_config.json").read_text())
CONFIG = PyramidConfig.from_dict(RAW)
TABLES = sorted({key.rsplit(".", 1)[0] for key in PARTS if re.match(r"stage\d\.steps", key)})


def close(found: tuple[float, ...] | list[float], expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(
        torch.tensor(found, dtype=torch.float64), expected.double(), rtol=0, atol=tolerance
    )


def test_stage_constants_and_training_grids() -> None:
    tables = stage_tables(CONFIG)
    close([t.original_start for t in tables], PARTS["ori_start_sigmas"], 1e-12)
    close([t.start for t in tables], PARTS["start_sigmas"], 1e-12)
    close([t.end for t in tables], PARTS["end_sigmas"], 1e-12)
    for stage, table in enumerate(tables):
        close(table.timesteps, PARTS[f"timesteps_per_stage.{stage}"], 1e-9)
        close(table.sigmas, PARTS[f"sigmas_per_stage.{stage}"], 1e-12)


@pytest.mark.parametrize("name", TABLES)
def test_recorded_step_tables(name: str) -> None:
    match = re.fullmatch(r"stage(\d)\.steps(\d)\.amp(\d)\.mu(.+)", name)
    assert match is not None
    stage, steps, amplified, mu = int(match[1]), int(match[2]), int(match[3]), float(match[4])
    made = dmd_schedule(CONFIG, stage, steps * (1 + amplified), mu=mu)
    close(made.timesteps, PARTS[f"{name}.timesteps"], 1e-9)
    close([*made.sigmas, 0.0], PARTS[f"{name}.sigmas"], 1e-12)
    assert made.next_sigmas == (*made.sigmas[1:], 0.0)


@pytest.mark.parametrize("kind", ["linear", "exponential"])
@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize(("gamma", "stages"), [(1 / 3, 3), (0.2, 3), (1 / 3, 2), (1 / 3, 4)])
def test_equals_diffusers(kind: str, dynamic: bool, steps: int, gamma: float, stages: int) -> None:
    raw = {
        "stages": stages,
        "stage_range": [k / stages for k in range(stages + 1)],
        "gamma": gamma,
        "use_dynamic_shifting": dynamic,
        "time_shift_type": kind,
    }
    theirs, ours = HeliosDMDScheduler(**raw), PyramidConfig.from_dict(raw)
    for stage in range(stages):
        for amplify in (False, True):
            theirs.set_timesteps(steps, stage, mu=0.83, is_amplify_first_chunk=amplify)
            made = dmd_schedule(ours, stage, steps * (1 + amplify), mu=0.83)
            close(made.timesteps, theirs.timesteps, 1e-9)
            close([*made.sigmas, 0.0], theirs.sigmas, 1e-9)


def test_published_numbers_at_384_by_640() -> None:
    size = (9, 48, 80)
    assert shift_mu(CONFIG, 540) == pytest.approx(0.54807, abs=1e-5)
    assert shift_mu(CONFIG, 8640) == pytest.approx(1.91917, abs=1e-5)
    trained = pyramid_schedules(CONFIG, size, (2, 2, 2))
    close(trained[0].timesteps, torch.tensor([998.534, 833.964]), 1e-3)
    close(trained[1].timesteps, torch.tensor([742.822, 547.193]), 1e-3)
    close(trained[2].timesteps, torch.tensor([385.414, 253.991]), 1e-3)
    close(trained[2].sigmas, torch.tensor([0.99948, 0.65744]), 1e-5)
    lagging = pyramid_schedules(CONFIG, size, (2, 2, 2), reference=True)
    assert lagging[0].timesteps == (998.0, 833.0)
    assert lagging[1].timesteps == (742.0, 512.0)
    assert lagging[2].timesteps == (385.0, 174.0)
    close(lagging[1].sigmas, torch.tensor([0.99818, 0.35404]), 1e-5)
    close(lagging[2].sigmas, torch.tensor([0.99878, 0.45124]), 1e-5)
    doubled = pyramid_schedules(CONFIG, size, (2, 2, 2), amplify=True)
    close(doubled[2].timesteps, torch.tensor([385.414, 328.625, 253.991, 151.531]), 1e-3)


def test_published_block_noise() -> None:
    seed = json.loads((FOLDER / "meta.json").read_text())["generator_seed"] + 1
    made = reference_block_noise(
        (1, 16, 3, 4, 8), torch.Generator().manual_seed(seed), CONFIG.gamma
    )
    torch.testing.assert_close(made, PARTS["block_noise"], rtol=0, atol=1e-6)
