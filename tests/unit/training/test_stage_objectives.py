"""Objectives of Helios' stages against numbers worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from tiny_stages import LATENT, TEXT, tiny_network
from torch import Tensor
from torch.nn import functional

from flythrough import seeds
from flythrough.conditioning.corruption import CorruptionSettings, corrupt_history, drop_history
from flythrough.sampling.dmd_schedule import PyramidConfig
from flythrough.sampling.noise import block_noise, enter_stage, noise_pyramid
from flythrough.training.helios import gan
from flythrough.training.helios.clip_folder import windows_around
from flythrough.training.helios.flow import FlowTask, single_item
from flythrough.training.helios.material import Material
from flythrough.training.helios.ode import end_loss
from flythrough.training.helios.recipe_tables import Flow
from flythrough.training.helios.roll_out import roll_out
from flythrough.training.helios.scores import (
    ScoreGrid,
    beta_draw,
    beta_shape,
    clean_from,
    guided,
    matching_gradient,
    matching_loss,
    noised,
)
from flythrough.training.helios.trajectories import merged_levels, student_levels
from flythrough.training.loop import LoopSettings
from flythrough.training.players import Player, ema_decay

CPU = torch.device("cpu")
FULL = (9, 48, 80)
SHIFTED = PyramidConfig(use_dynamic_shifting=True)
PUBLISHED = CorruptionSettings.published()


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeds.generator(seed, "normal", *shape))


class Fixed:
    """The same batch in every step."""

    def __init__(self, batch: int = 2) -> None:
        self.plain = torch.zeros(1, *TEXT)
        self.batch = Material(
            past=normal(batch, 16, 19, *LATENT[2:]),
            prefix=normal(batch, 16, 1, *LATENT[2:]),
            target=0.5 * normal(batch, *LATENT),
            embedding=normal(batch, *TEXT),
        )

    def __call__(self, step: int, rank: int, *, later: bool = False) -> Material:
        del step, rank, later
        return self.batch


# --- history ---


def test_a_windows_history_is_the_nineteen_latents_before_it() -> None:
    numbers = torch.arange(1.0, 28.0).view(3, 1, 9, 1, 1).expand(3, 16, 9, 2, 2)
    past, prefix, target = windows_around(numbers, 0)
    assert past.shape == (16, 19, 2, 2)
    assert not past.any()
    assert not prefix.any()
    past, prefix, target = windows_around(numbers, 2)
    assert past[0, :, 0, 0].tolist() == [0.0, *range(1, 19)]
    assert prefix[0, :, 0, 0].tolist() == [1.0]
    assert target[0, :, 0, 0].tolist() == list(range(19, 28))


def test_published_shares_of_dropped_history() -> None:
    count = 4000
    past = torch.ones(count, 1, 19, 1, 1)
    settings = replace(PUBLISHED, drop_to_last=0.0)
    dropped, prefix = drop_history(past, past[:, :, :1], seeds.generator(1, "drop"), settings)
    kept = dropped.sum((1, 2, 3, 4))
    share = {int(n): float((kept == n).double().mean()) for n in (0, 9, 18, 19)}
    assert sum(share.values()) == pytest.approx(1.0)
    assert 1 - float(prefix.mean()) == pytest.approx(0.4, abs=0.03)
    # Of the 60 % that keep something, 40 % lose 1 + 0, 9 or 18 latents, equally often.
    assert share[9] == pytest.approx(0.08, abs=0.02)
    assert share[18] == pytest.approx(0.08, abs=0.02)
    assert share[19] == pytest.approx(0.36, abs=0.03)


def test_published_noise_of_history_has_a_level_of_its_own_up_to_a_third() -> None:
    settings = replace(PUBLISHED, mode="noise", clean=0.0, saturation_clean=1.0)
    ones = torch.ones(64, 16, 19, 8, 8)
    past, prefix = corrupt_history(ones, ones[:, :, :1], seeds.generator(2, "n"), settings)
    level = 1 - torch.cat((past, prefix), 2).mean((1, 3, 4))  # (1 - s) + s * mean of noise
    assert -0.1 < float(level.min()) < 0.05
    assert 0.28 < float(level.max()) < 0.42
    assert float(level.mean()) == pytest.approx(1 / 6, abs=0.01)
    assert float(level.std(1).mean()) > 0.07  # frames of one sample differ


def test_published_saturation_of_windows() -> None:
    settings = replace(PUBLISHED, clean=1.0)
    past = normal(400, 16, 18, 1, 1)
    changed, prefix = corrupt_history(past, past[:, :, :1], seeds.generator(3, "s"), settings)
    assert torch.equal(prefix, past[:, :, :1])
    mean = past.mean(1, keepdim=True)
    factor = ((changed - mean) / (past - mean)).median(1).values[:, :, 0, 0]
    assert float(factor.min()) > 0.299
    assert float(factor.max()) < 1.701
    assert float(factor.min()) < 0.33
    assert float(factor.max()) > 1.65
    still = float(((factor - 1).abs() < 1e-4).double().mean())
    assert still == pytest.approx(0.1, abs=0.04)
    lower = float((factor < 0.9995).double().mean())
    assert lower == pytest.approx(0.45, abs=0.06)


# --- stages 1 and 2 ---


def test_stage_one_points_by_hand() -> None:
    clean, noise = normal(3, 2, 1, 2, 2), normal(3, 2, 1, 2, 2, seed=1)
    item = single_item(clean, noise, torch.tensor([0.0, 0.2505, 0.9999]))
    torch.testing.assert_close(item.sigma, torch.tensor([1.0, 0.75, 0.001]))
    torch.testing.assert_close(item.timestep, torch.tensor([1000.0, 750.0, 1.0]))
    torch.testing.assert_close(item.x[1], 0.25 * clean[1] + 0.75 * noise[1])
    assert torch.equal(item.target, noise - clean)
    # odds of 3:1 shifted by 2 are 6:1
    shifted = single_item(clean, noise, torch.full((3,), 0.2505), 2.0)
    torch.testing.assert_close(shifted.sigma, torch.full((3,), 6 / 7))


def flow_task(stage: str, flow: Flow, rate: float = 5e-3) -> FlowTask:
    net = tiny_network()
    settings = LoopSettings(steps=1, learning_rate=rate, warmup=0, ema=0.0)
    player = Player("denoiser", list(net.parameters()), settings)
    history = CorruptionSettings()
    return FlowTask(
        stage, net, player, Fixed(), PyramidConfig(), flow, history, lambda _folder: None, seed=2
    )


def test_densities_of_noise_levels() -> None:
    task = flow_task("1", Flow(weighting="logit_normal"))
    u = task.levels(20000, seeds.generator(1, "u"))
    # P(u < sigmoid(1)) of a logit-normal is Phi(1).
    share = float((u < 1 / (1 + math.exp(-1))).double().mean())
    assert share == pytest.approx(0.8413, abs=0.01)
    uniform = flow_task("1", Flow()).levels(20000, seeds.generator(1, "u"))
    assert float((uniform < 0.25).double().mean()) == pytest.approx(0.25, abs=0.012)


def test_stage_two_draws_by_ratio_on_the_same_noise() -> None:
    task = flow_task("2", Flow(draws=(1, 2, 1)))
    target = normal(1, *LATENT)
    items = task.items(target, seeds.generator(5, "items"))
    assert [name for name, _ in items] == ["stage0", "stage1", "stage2", "stage1.1"]
    assert [tuple(item.x.shape[-2:]) for _, item in items] == [(2, 4), (4, 8), (8, 16), (4, 8)]
    first, second, third = (dict(items)[f"stage{k}"] for k in range(3))
    noises = noise_pyramid(torch.randn(target.shape, generator=seeds.generator(5, "items")), 3)
    start = first.x + (1 - first.sigma) * first.target  # a stage's x is start - (1 - s) v
    torch.testing.assert_close(start, noises[0], rtol=1e-4, atol=1e-5)
    end = third.x - third.sigma * third.target
    torch.testing.assert_close(end, target, rtol=1e-4, atol=1e-5)
    # end of stage 1: 0.333666 of the same noise, the rest halved clean latents
    end = second.x - second.sigma * second.target
    mixed = 0.333666 * noises[1] + (1 - 0.333666) * functional.avg_pool3d(target, (1, 2, 2))
    torch.testing.assert_close(end, mixed, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("stage", "flow"), [("1", Flow()), ("2", Flow(draws=(1, 1, 1)))])
def test_flow_matching_learns(stage: str, flow: Flow) -> None:
    task = flow_task(stage, flow)
    (player,) = task.players
    player.prepare(CPU)
    before = after = 0.0
    for step in range(16):
        losses = task.losses("denoiser", step, 0)
        losses["total"].backward()
        player.update(step, 0.0)
        value = float(losses["total"].detach())
        before += value / 4 if step < 4 else 0.0
        after += value / 4 if step >= 12 else 0.0
    assert after < 0.85 * before


# --- stage 3a ---


def test_students_levels_are_the_published_constants() -> None:
    sigmas, timesteps = student_levels(SHIFTED, FULL, 4)
    wanted = [
        (998.534, 902.218, 833.964, 783.066),
        (742.822, 640.004, 547.193, 462.995),
        (385.414, 328.625, 253.991, 151.531),
    ]
    for found, expected in zip(timesteps, wanted, strict=True):
        assert found == pytest.approx(expected, abs=2e-3)
    assert [s[2] for s in sigmas] == pytest.approx([0.35404, 0.45124, 0.65744], abs=1e-5)
    halves, _ = student_levels(SHIFTED, FULL, 2)
    assert [s[1] for s in halves] == pytest.approx([s[2] for s in sigmas], abs=1e-9)


def test_levels_of_teacher_and_student_merge() -> None:
    assert merged_levels([0.9, 0.5, 0.1], [0.9004, 0.3]) == [0.9004, 0.5, 0.3, 0.1]


def test_the_end_a_velocity_points_to() -> None:
    x, end = torch.full((1, 1, 1, 1, 2), 3.0), torch.tensor([1.0, 0.0]).view(1, 1, 1, 1, 2)
    velocity = torch.full_like(x, 4.0)
    # 3 - 0.5 * 4 = 1: errors 0 and 1, half their mean square 0.25
    assert float(end_loss(x, velocity, torch.tensor([0.5]), end)) == pytest.approx(0.25)


# --- stage 3b ---


def test_score_levels_by_hand() -> None:
    grid = ScoreGrid(SHIFTED, FULL, (20.0, 980.0), CPU)
    assert grid.factor == pytest.approx(1.91917, abs=1e-5)
    assert float(grid.timesteps[0]) == 1000.0
    timestep, sigma = grid.at(torch.tensor([1.0, 0.5, 0.001]))
    # 1.91917 / 2.91917 = 0.65744 in the middle; both ends are cut off
    assert timestep.tolist() == [980.0, 657.0, 20.0]
    assert sigma.tolist() == pytest.approx([0.98, 0.657, 0.02], abs=1e-3)
    assert all(float(s) in grid.sigmas.tolist() for s in sigma)


def test_the_beta_density_turns_uniform() -> None:
    assert beta_shape(0, (4.0, 1.5), 500) == (4.0, 1.5)
    assert beta_shape(250, (4.0, 1.5), 500) == pytest.approx((2.5, 1.25))
    assert beta_shape(500, (4.0, 1.5), 500) == (1.0, 1.0)
    assert beta_shape(9000, (4.0, 1.5), 500) == (1.0, 1.0)
    drawn = beta_draw(20000, (4.0, 1.5), 7)
    assert float(drawn.mean()) == pytest.approx(4 / 5.5, abs=0.01)


def test_guidance_and_clean_latents() -> None:
    prompted, plain = torch.tensor(2.0), torch.tensor(1.5)
    assert float(guided(prompted, plain, 3.0)) == 3.5
    clean, noise = normal(2, 1, 1, 2, 2), normal(2, 1, 1, 2, 2, seed=4)
    sigma = torch.tensor([0.25, 0.9])
    x = noised(clean, sigma, noise)
    torch.testing.assert_close(clean_from(x, sigma, noise - clean), clean)


def test_the_matching_gradient_by_hand() -> None:
    def flat(*values: float) -> Tensor:
        return torch.tensor(values).view(1, 1, 1, 1, 2)

    made = torch.cat((flat(1.0, 3.0), flat(1.0, 1.0))).requires_grad_(True)
    fake, real = torch.cat((flat(2.0, 2.0), flat(1, 1))), torch.cat((flat(0.0, 0.0), flat(1, 1)))
    gradient = matching_gradient(made, fake, real)
    # (2 - 0) / mean(1, 3) = 1; the second sample is 0 / 0
    assert gradient.dtype == torch.float64
    assert gradient.flatten().tolist() == [1.0, 1.0, 0.0, 0.0]
    loss = matching_loss(made, gradient)
    assert float(loss.detach()) == pytest.approx(0.25)  # 0.5 * mean(1, 1, 0, 0)
    loss.backward()
    assert made.grad is not None
    torch.testing.assert_close(made.grad.double(), gradient / 4)


def test_adversarial_losses_by_hand() -> None:
    made, real = torch.tensor([[1.0]]), torch.tensor([[-2.0]])
    softplus_1, softplus_2 = math.log1p(math.exp(1)), math.log1p(math.exp(-2))
    assert float(gan.generator_loss(made)) == pytest.approx(softplus_1)
    # made should be high and real low: softplus(-1) + softplus(-2)
    assert float(gan.critic_loss(made, real)) == pytest.approx(softplus_1 - 1 + softplus_2)
    assert float(gan.r1_penalty(real, real + 0.5)) == pytest.approx(0.25)
    assert float(gan.critic_loss(real, made)) > float(gan.critic_loss(made, real))


def test_heads_see_half_of_each_side() -> None:
    features = torch.arange(24.0).view(1, 1, 1, 4, 6)
    assert gan.half_crop(features, (0.0, 0.0))[0, 0, 0].tolist() == [[0, 1, 2], [6, 7, 8]]
    assert gan.half_crop(features, (0.99, 0.99))[0, 0, 0].tolist() == [[15, 16, 17], [21, 22, 23]]
    head = gan.Head(8, 64)
    strides = [m.stride for m in head.layers if isinstance(m, torch.nn.Conv3d)]
    assert strides == [(2, 2, 2), (2, 2, 2), (2, 1, 1), (2, 1, 1)]
    assert head(normal(2, 8, 9, 12, 20)).shape == (2,)


def test_roll_outs_by_hand() -> None:
    """With velocity w x a step is a known factor, so that ends and gradients are known."""
    weight = torch.tensor(0.5, requires_grad=True)
    calls: list[float] = []

    def denoise(x: Tensor, timestep: Tensor) -> Tensor:
        calls.append(float(timestep[0]))
        return weight * x

    noise = normal(1, 1, 1, 8, 8)
    blocks = [block_noise((1, 1, 1, n, n), seeds.generator(2, n), 1 / 3) for n in (4, 8)]

    def rolled(exits: tuple[int, int, int]) -> Tensor:
        calls.clear()
        return roll_out(
            denoise, noise, lambda stage, _: blocks[stage - 1], SHIFTED, 2, exits, gradients=True
        )

    sigmas, timesteps = student_levels(SHIFTED, (1, 8, 8), 2)
    made = rolled((0, 0, 0))
    assert calls == pytest.approx([timesteps[k][0] for k in range(3)], abs=1e-3)
    factors = [1 - 0.5 * sigmas[k][0] for k in range(3)]
    x = noise_pyramid(noise, 3)[0] * factors[0]
    x = enter_stage(x, blocks[0], SHIFTED, 1) * factors[1]
    x = enter_stage(x, blocks[1], SHIFTED, 2) * factors[2]
    torch.testing.assert_close(made, x)

    made = rolled((1, 0, 1))
    assert calls == pytest.approx(
        [timesteps[0][0], timesteps[0][1], timesteps[1][0], timesteps[2][0], timesteps[2][1]],
        abs=1e-3,
    )
    # The last stage was left at its second step: gradients stop there, d made / d w = -s1 x1.
    (found,) = torch.autograd.grad(made.sum(), weight)
    x1 = made.detach() / (1 - 0.5 * sigmas[2][1])
    assert float(found) == pytest.approx(float(-(sigmas[2][1] * x1).sum()), rel=1e-4)


def test_the_average_starts_late_and_ramps_up() -> None:
    assert ema_decay(-1, 0.99) == 0.0
    assert ema_decay(0, 0.99) == pytest.approx(0.1)
    assert ema_decay(90, 0.99) == pytest.approx(0.91)
    assert ema_decay(10_000, 0.99) == 0.99
