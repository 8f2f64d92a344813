"""The sampler with known velocities, its schedules and its refusals."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from flythrough.errors import InputError, WeightsError
from flythrough.sampling.dmd_schedule import (
    PyramidConfig,
    dmd_schedule,
    pyramid_schedules,
    stage_tables,
)
from flythrough.sampling.flow_items import (
    flow_items,
    flow_items_at,
    segment,
)
from flythrough.sampling.noise import block_noise, noise_pyramid
from flythrough.sampling.pyramid import check_latent_size, sample_pyramid

CONFIG = PyramidConfig(use_dynamic_shifting=True)
SIZE = (9, 8, 16)
SHAPE = (2, 4, *SIZE)


def normal(seed: int) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def fresh(stage: int, shape: torch.Size) -> Tensor:
    return block_noise(shape, torch.Generator().manual_seed(100 + stage), CONFIG.gamma)


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("steps", [(1, 1, 1), (2, 2, 2), (1, 3, 2)])
def test_true_velocities_lead_to_the_end(steps: tuple[int, ...], reference: bool) -> None:
    clean, noise = normal(1), normal(2)
    ends = [segment(clean, noise, stage, CONFIG)[1] for stage in range(3)]
    schedules = pyramid_schedules(CONFIG, SIZE, steps, reference=reference)
    seen: list[list[float]] = [[], [], []]

    def denoise(x: Tensor, timestep: Tensor, stage: int) -> Tensor:
        step = len(seen[stage])
        seen[stage].append(timestep[0].item())
        assert timestep.shape == (2,)
        assert x.dtype == torch.float32
        return (x - ends[stage]) / schedules[stage].sigmas[step]

    final = sample_pyramid(denoise, noise, fresh, CONFIG, steps=steps, reference=reference)
    torch.testing.assert_close(final, clean, rtol=0, atol=1e-4)
    for times, schedule in zip(seen, schedules, strict=True):
        assert times == pytest.approx(schedule.timesteps, abs=1e-3)
        assert all(t == int(t) for t in times) == reference


def test_sampler_states_are_training_states() -> None:
    """In the first stage, on the true path, every state the network sees is a training item."""
    clean, noise = normal(1), normal(2)
    end = segment(clean, noise, 0, CONFIG)[1]
    schedule = pyramid_schedules(CONFIG, SIZE, (4, 1, 1))[0]
    states: list[tuple[Tensor, Tensor]] = []

    def denoise(x: Tensor, timestep: Tensor, stage: int) -> Tensor:
        if stage > 0:
            return torch.zeros_like(x)
        states.append((x, timestep))
        return (x - end) / schedule.sigmas[len(states) - 1]

    sample_pyramid(denoise, noise, fresh, CONFIG, steps=(4, 1, 1))
    for (x, timestep), sigma in list(zip(states, schedule.sigmas, strict=True))[1:]:
        item = flow_items_at(clean, noise, 0, torch.full((2,), sigma), CONFIG)
        torch.testing.assert_close(x, item.x, rtol=0, atol=1e-5)
        torch.testing.assert_close(timestep, item.timestep, rtol=0, atol=1e-2)


def test_first_state_is_the_reduced_noise_and_steps_are_reported() -> None:
    noise, first, told = normal(2), [], []

    def denoise(x: Tensor, _timestep: Tensor, _stage: int) -> Tensor:
        first.append(x)
        return torch.zeros_like(x)

    sample_pyramid(
        denoise,
        noise,
        fresh,
        CONFIG,
        amplify=True,
        on_step=lambda done, total: told.append((done, total)),
    )
    torch.testing.assert_close(first[0], noise_pyramid(noise, 3)[0])
    assert [x.shape[-2:] for x in first[::4]] == [(2, 4), (4, 8), (8, 16)]
    assert told == [(k, 12) for k in range(1, 13)]


def test_sampler_does_not_write_into_the_noise() -> None:
    noise = normal(2)
    kept = noise.clone()
    final = sample_pyramid(lambda x, _t, _s: x, noise, fresh, CONFIG, steps=(1, 1, 1))
    final.zero_()
    assert torch.equal(noise, kept)


@settings(deadline=None, max_examples=30)
@given(
    steps=st.integers(1, 30),
    stage=st.integers(0, 2),
    mu=st.floats(0.3, 3.0),
    kind=st.sampled_from(["linear", "exponential"]),
)
def test_schedules_fall(steps: int, stage: int, mu: float, kind: str) -> None:
    config = PyramidConfig(use_dynamic_shifting=True, time_shift_type=kind)
    schedule = dmd_schedule(config, stage, steps, mu=mu)
    assert len(schedule) == steps
    assert schedule.next_sigmas == (*schedule.sigmas[1:], 0.0)
    for values in (schedule.sigmas, schedule.timesteps):
        assert list(values) == sorted(values, reverse=True)
    grid = stage_tables(config)[stage].timesteps
    assert grid[-1] <= schedule.timesteps[-1] <= schedule.timesteps[0] <= grid[0]


def test_stages_share_out_the_timesteps() -> None:
    tables = stage_tables(CONFIG)
    assert tables[0].timesteps[0] == 999.0
    assert tables[0].timesteps[-1] > tables[1].timesteps[0] > tables[1].timesteps[-1]
    assert tables[2].end == 0.0
    assert [t.timesteps[-1] for t in tables] == pytest.approx(
        [743.5117, 385.9716, 1.38361], abs=1e-3
    )


@pytest.mark.parametrize(
    ("size", "message"),
    [((6, 8), "height 48 is not a multiple of 64"), ((8, 10), "width 80 is not a multiple of 64")],
)
def test_sizes_that_do_not_divide(size: tuple[int, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sample_pyramid(lambda x, _t, _s: x, torch.zeros(1, 4, 9, *size), fresh, CONFIG)
    check_latent_size(8, 16, 3)


def test_other_bad_input() -> None:
    with pytest.raises(InputError, match="add the missing axes"):
        sample_pyramid(lambda x, _t, _s: x, torch.zeros(9, 8, 8), fresh, CONFIG)
    with pytest.raises(InputError, match="2 step counts"):
        sample_pyramid(lambda x, _t, _s: x, normal(0), fresh, CONFIG, steps=(2, 2))
    with pytest.raises(InputError, match="given 0 steps"):
        pyramid_schedules(CONFIG, SIZE, (2, 0, 2))
    with pytest.raises(InputError, match="no shift mu"):
        dmd_schedule(CONFIG, 0, 2, mu=None)
    with pytest.raises(InputError, match="stage 3 does not exist"):
        flow_items(normal(0), normal(1), 3, torch.zeros(2), CONFIG)
    with pytest.raises(InputError, match="differ in shape"):
        flow_items(normal(0), normal(1)[:1], 0, torch.zeros(2), CONFIG)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"_class_name": "UniPCMultistepScheduler"}, "use a Helios model"),
        ({"_class_name": "HeliosScheduler", "scheduler_type": "ddim"}, "use a Helios model"),
        ({"shift": 3.0}, "fixed shift of 3.0"),
        ({"stages": 2}, "2 stages with limits"),
        ({"stages": 0, "stage_range": [0]}, "rising limits"),
        ({"stage_range": [0, 0.5, 0.4, 1]}, "rising limits"),
        ({"stage_range": [0, 0.3, 0.6, 0.9]}, "do not run from 0 to 1"),
        ({"gamma": 0.5}, "gamma is 0.5"),
        ({"time_shift_type": "cubic"}, "'cubic' is unknown"),
    ],
)
def test_bad_scheduler_files(raw: dict, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        PyramidConfig.from_dict(raw)


def test_configuration_keys_of_other_solvers_are_left_aside() -> None:
    raw = {"_class_name": "HeliosDMDScheduler", "solver_order": 2, "use_dynamic_shifting": True}
    assert PyramidConfig.from_dict(raw) == CONFIG
    assert hash(PyramidConfig.from_dict({"stage_range": [0, 1 / 3, 2 / 3, 1]})) == hash(
        PyramidConfig()
    )


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_items_lie_on_the_segment(stage: int) -> None:
    clean, noise, u = normal(1), normal(2), torch.tensor([0.1, 0.73])
    item = flow_items(clean, noise, stage, u, CONFIG)
    start, end = segment(clean, noise, stage, CONFIG)
    level = item.sigma[:, None, None, None, None]
    torch.testing.assert_close(item.target, start - end)
    torch.testing.assert_close(item.x - level * item.target, end, rtol=0, atol=1e-5)
    grid = stage_tables(CONFIG)[stage]
    expected = [grid.timesteps[100], grid.timesteps[730]]
    assert item.timestep.tolist() == pytest.approx(expected, abs=1e-2)


def test_items_under_inference_mode_do_not_spoil_later_training() -> None:
    config = PyramidConfig(num_train_timesteps=500)
    with torch.inference_mode():
        flow_items(normal(1), normal(2), 0, torch.zeros(2), config)
    clean = normal(1).requires_grad_()
    flow_items(clean, normal(2), 0, torch.zeros(2), config).x.sum().backward()
    assert clean.grad is not None
