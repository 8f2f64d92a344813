"""Cells at different noise levels: the schedule, and where an ideal network would lead."""

from __future__ import annotations

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from flythrough.errors import InputError
from flythrough.sampling.asynchronous import (
    noise_levels,
    sample_asynchronous,
    schedule_row,
    training_levels,
)

PUBLISHED = [
    1, 0.9959, 0.9916, 0.9872, 0.9826, 0.9779, 0.973, 0.9679, 0.9627, 0.9572, 0.9515, 0.9456,
    0.9395, 0.9331, 0.9264, 0.9195, 0.9122, 0.9046, 0.8967, 0.8884, 0.8797, 0.8706, 0.861,
    0.8509, 0.8402, 0.829, 0.8172, 0.8047, 0.7914, 0.7773, 0.7623, 0.7464, 0.7293, 0.7111,
    0.6915, 0.6705, 0.6478, 0.6233, 0.5967, 0.5678, 0.5361, 0.5014, 0.4631, 0.4207, 0.3735,
    0.3205, 0.2608, 0.1928, 0.1148, 0.0244, 0,
]  # fmt: skip


def fields(steps: int = 50) -> torch.Tensor:
    """Starts of two latents of context, then left halves invented and right halves rendered."""
    start = torch.zeros(1, 4, 4, 6, dtype=torch.int64)
    start[..., 2:] = steps // 5
    start[:, :2] = steps
    return start


def test_the_levels_are_the_published_ones() -> None:
    levels = noise_levels(50)
    assert torch.allclose(levels, torch.tensor(PUBLISHED), atol=1e-4)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=5.0)
    for steps in (50, 20, 7):
        scheduler.set_timesteps(steps)
        assert torch.allclose(noise_levels(steps), scheduler.sigmas, atol=1e-6)
    stock = FlowMatchEulerDiscreteScheduler(shift=5.0).sigmas
    assert torch.allclose(training_levels(), stock, atol=1e-6)


def test_rendered_cells_wait_until_the_others_are_as_far() -> None:
    levels = noise_levels(50)
    rows = torch.stack([schedule_row(levels, fields(), step) for step in range(len(levels))])
    assert rows.shape == (51, 1, 4, 4, 6)
    assert (rows[:, :, :2] == 0).all()
    assert torch.equal(rows[:, 0, 2, 0, 0], levels)
    waiting = rows[:, 0, 2, 0, 5]
    assert (waiting[:11] == levels[10]).all()
    assert torch.equal(waiting[10:], levels[10:])
    assert (rows[-1] == 0).all()
    assert (rows.diff(dim=0) <= 0).all()


def test_an_ideal_network_repairs_the_share_that_strength_says() -> None:
    source = torch.Generator().manual_seed(0)
    shape = (1, 3, 4, 4, 6)
    truth, hint, noise = (torch.randn(shape, generator=source) for _ in range(3))
    seen: list[torch.Tensor] = []

    def ideal(latents: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        assert latents.shape == shape
        assert timesteps.shape == (1, 4, 2, 3)
        seen.append(timesteps)
        return noise - truth

    start, levels = fields(), noise_levels(50)
    steps: list[int] = []
    made = sample_asynchronous(
        ideal, hint, noise, start, levels, on_step=lambda done, _: steps.append(done)
    )
    assert steps == list(range(1, 51))
    assert torch.equal(made[:, :, :2], hint[:, :, :2])  # bit for bit
    assert torch.allclose(made[:, :, 2:, :, :2], truth[:, :, 2:, :, :2], atol=1e-5)
    at = float(levels[10])
    expected = (1 - at) * hint + at * truth
    assert torch.allclose(made[:, :, 2:, :, 2:], expected[:, :, 2:, :, 2:], atol=1e-5)
    assert all(len(timesteps.unique()) <= 3 for timesteps in seen)
    assert float(seen[0].max()) == 1000.0


def test_known_cells_survive_a_network_that_diverges() -> None:
    hint, noise = torch.randn(1, 2, 4, 4, 6), torch.randn(1, 2, 4, 4, 6)
    made = sample_asynchronous(
        lambda x, _t: torch.full_like(x, float("nan")), hint, noise, fields(5), noise_levels(5)
    )
    assert torch.equal(made[:, :, :2], hint[:, :, :2])
    assert made[:, :, 2:].isnan().all()


def test_reference_steps_are_distorted_and_end_at_the_same_place() -> None:
    levels = noise_levels(50)
    rounded = levels.bfloat16().float()
    error = (rounded.diff() / levels.diff() - 1).abs()[:10]
    assert float(error.min()) > 0.04
    assert 0.6 < float(error.max()) < 0.7
    hint = torch.zeros(1, 1, 4, 4, 6)
    start = fields()

    def steady(latents: torch.Tensor, _timesteps: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(latents)

    made = [
        sample_asynchronous(steady, hint, hint, start, levels, reference=reference)
        for reference in (False, True)
    ]
    assert torch.allclose(made[0][0, 0, 2, 0, 0], torch.tensor(-1.0), atol=1e-5)
    assert torch.allclose(made[0], made[1], atol=2e-3)
    assert not torch.equal(made[0], made[1])


def test_starts_outside_the_schedule_are_refused() -> None:
    hint = torch.zeros(1, 1, 4, 4, 6)
    for start in (fields() + 1, fields() - 1, fields()[:, :3]):
        with pytest.raises(InputError, match="start"):
            sample_asynchronous(lambda x, _t: x, hint, hint, start, noise_levels(50))
    with pytest.raises(InputError, match="schedule"):
        noise_levels(0)
