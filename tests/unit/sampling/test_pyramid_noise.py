"""Noise of the pyramid: variances, correlations and the entry into a stage."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from flythrough.sampling.dmd_schedule import PyramidConfig, stage_tables
from flythrough.sampling.noise import (
    block_noise,
    clean_pyramid,
    doubled,
    enter_stage,
    halved,
    noise_pyramid,
    reference_block_noise,
    stage_entry,
)

CONFIG = PyramidConfig()
SHAPE = (2, 16, 9, 16, 32)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def block_covariance(noise: torch.Tensor) -> torch.Tensor:
    """Covariance [4,4] of the 2x2 blocks of noise."""
    blocks = noise.unfold(-2, 2, 2).unfold(-2, 2, 2).reshape(-1, 4)
    return blocks.T @ blocks / len(blocks)


@pytest.mark.parametrize("draw", [block_noise, reference_block_noise])
@pytest.mark.parametrize("gamma", [1 / 3, 0.2])
def test_block_covariance(draw, gamma: float) -> None:
    noise = draw(SHAPE, source(), gamma)
    expected = (1 + gamma) * torch.eye(4) - gamma
    torch.testing.assert_close(block_covariance(noise), expected, rtol=0, atol=0.03)
    assert noise.shape == SHAPE


def test_every_block_has_mean_zero() -> None:
    assert float(halved(block_noise(SHAPE, source(), 1 / 3)).abs().max()) < 1e-6
    assert float(halved(reference_block_noise(SHAPE, source(), 1 / 3)).abs().max()) < 1e-3


def test_closed_form_and_triangular_form_use_the_same_draws() -> None:
    """They differ by a rotation, so the energy of every block is the same."""
    ours = block_noise(SHAPE, source(4), 1 / 3)
    generator = source(4)
    reference_block_noise(SHAPE, generator, 1 / 3)
    again = source(4)
    block_noise(SHAPE, again, 1 / 3)
    assert torch.equal(torch.rand(1, generator=generator), torch.rand(1, generator=again))
    values = torch.randn(ours.numel() // 4, 4, generator=source(4))
    centred = (values - values.mean(dim=1, keepdim=True)) * math.sqrt(4 / 3)
    first = ours[0, 0, 0, :2, :2].flatten()
    torch.testing.assert_close(first, centred[0])


def test_pyramids() -> None:
    noise = torch.randn(SHAPE, generator=source())
    for level in noise_pyramid(noise, 3):
        assert float(level.std()) == pytest.approx(1.0, abs=0.03)
    sizes = [tuple(level.shape[-2:]) for level in clean_pyramid(noise, 3)]
    assert sizes == [(4, 8), (8, 16), (16, 32)]
    frames = noise.transpose(1, 2).flatten(0, 1)
    bilinear = interpolate(frames, scale_factor=0.5, mode="bilinear", align_corners=False)
    torch.testing.assert_close(halved(noise).transpose(1, 2).flatten(0, 1), bilinear)
    torch.testing.assert_close(halved(doubled(noise)), noise)


@settings(deadline=None, max_examples=40)
@given(gamma=st.floats(0.02, 1 / 3), first=st.floats(0.1, 0.45), second=st.floats(0.5, 0.9))
def test_stage_entry_gives_white_noise_of_the_start_level(
    gamma: float, first: float, second: float
) -> None:
    """alpha^2 E^2 + beta^2 = S^2 on the diagonal and alpha^2 E^2 - gamma beta^2 = 0 beside it."""
    config = PyramidConfig(gamma=gamma, stage_range=(0.0, first, second, 1.0))
    tables = stage_tables(config)
    for stage in (1, 2):
        alpha, beta = stage_entry(config, stage)
        left = alpha * tables[stage - 1].end
        assert left**2 + beta**2 == pytest.approx(tables[stage].start ** 2, rel=1e-9)
        assert left**2 == pytest.approx(gamma * beta**2, rel=1e-9)
        assert alpha * (1 - tables[stage - 1].end) == pytest.approx(1 - tables[stage].start)


def test_published_constants() -> None:
    assert stage_entry(CONFIG, 1) == pytest.approx((0.60012, 0.69261), abs=1e-5)
    assert stage_entry(CONFIG, 2) == pytest.approx((0.74981, 0.43333), abs=1e-5)
    assert stage_entry(CONFIG, 1)[0] * stage_tables(CONFIG)[0].end == pytest.approx(
        0.39988, abs=1e-5
    )
    starts = [table.start for table in stage_tables(CONFIG)]
    assert starts == pytest.approx([0.999, 0.799760, 0.500374], abs=1e-6)


def test_entering_a_stage_of_pure_noise_has_the_right_covariance() -> None:
    end = stage_tables(CONFIG)[0].end * torch.randn(2, 16, 9, 8, 16, generator=source())
    entered = enter_stage(end, block_noise(SHAPE, source(1), CONFIG.gamma), CONFIG, 1)
    expected = torch.eye(4) * stage_tables(CONFIG)[1].start ** 2
    torch.testing.assert_close(block_covariance(entered), expected, rtol=0, atol=0.03)
