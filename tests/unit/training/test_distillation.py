"""Stage 3 as a whole, at toy size: who learns what, and that roles stay apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_stages import LATENT, TEXT, tiny_network
from torch import Tensor

from flythrough import seeds
from flythrough.conditioning.corruption import CorruptionSettings
from flythrough.errors import InputError
from flythrough.models.helios import HeliosTransformer
from flythrough.sampling.dmd_schedule import PyramidConfig
from flythrough.training.helios import gan
from flythrough.training.helios.distill import CRITIC, Cast, DistillTask
from flythrough.training.helios.material import Material, conditioned, velocity
from flythrough.training.helios.networks import merged_state, prepare
from flythrough.training.helios.ode import OdeTask
from flythrough.training.helios.recipe_tables import Adapter, Dmd, Gan, Ode
from flythrough.training.helios.trajectories import (
    check_trajectories,
    make_trajectory,
    origin,
    read_trajectory,
    student_levels,
    trajectory_file,
    write_trajectory,
)
from flythrough.training.loop import LoopSettings
from flythrough.training.players import Player

CPU = torch.device("cpu")
SHIFTED = PyramidConfig(use_dynamic_shifting=True)
SIZE = (9, 8, 16)
LORA = Adapter(rank=4, alpha=4.0, patch_embedding="frozen", patch_history="lora")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeds.generator(seed, "toy", *shape))


class Source:
    """One batch of real latents near 0.5; remembers how it was asked."""

    def __init__(self) -> None:
        self.plain = torch.zeros(1, *TEXT)
        self.later: list[bool] = []

    def __call__(self, step: int, rank: int, *, later: bool = False) -> Material:
        self.later.append(later)
        draw = seeds.generator(1, "real", step, rank)
        return Material(
            past=0.5 + 0.1 * torch.randn(1, 16, 19, *LATENT[2:], generator=draw),
            prefix=0.5 + 0.1 * torch.randn(1, 16, 1, *LATENT[2:], generator=draw),
            target=0.5 + 0.1 * torch.randn(1, *LATENT, generator=draw),
            embedding=torch.randn(1, *TEXT, generator=draw),
        )


def player(name: str, weights: list[torch.nn.Parameter], rate: float, every: int = 1) -> Player:
    settings = LoopSettings(steps=1, learning_rate=rate, warmup=0, ema=0.0, weight_decay=0.0)
    made = Player(name, weights, settings, every=every)
    made.prepare(CPU)
    return made


def distillation(*, drop_text: float = 0.0, start: int = 0, steps: int = 2) -> DistillTask:
    generator, score = tiny_network(1), tiny_network(2)
    student = prepare(generator, LORA, name="trained", seed=1, checkpointing=False)
    frozen = Adapter(rank=4, alpha=4.0, patch_embedding="frozen", patch_history="frozen")
    critic = prepare(score, frozen, name=CRITIC, seed=2, checkpointing=False)
    torch.manual_seed(3)
    heads = gan.Heads(score, (0, 1), 64)
    players = (
        player("generator", student, 1e-2),
        player(CRITIC, [*critic, *heads.parameters()], 1e-2),
    )
    return DistillTask(
        Cast(generator, score, heads, players),
        Source(),
        SHIFTED,
        Dmd(steps=steps, critic_rank=4, critic_alpha=4.0),
        Gan(start=start, blocks=(0, 1), width=64),
        CorruptionSettings(drop_text=drop_text, drop_to_last=0.0, drop_old=0.0),
        SIZE,
        lambda _folder: None,
    )


def gradients(task: DistillTask) -> dict[str, bool]:
    """Which weights have gradients, by name."""
    return {
        name: value.grad is not None and bool(value.grad.any())
        for name, value in task.networks.named_parameters()
    }


def test_each_turn_moves_its_own_player_alone() -> None:
    task = distillation()
    task.losses("generator", 0, 0)["total"].backward()
    moved = {name for name, has in gradients(task).items() if has}
    assert moved
    assert all(name.startswith("generator.") and ".lora_" in name for name in moved)
    task.networks.zero_grad(set_to_none=True)
    task.losses(CRITIC, 0, 0)["total"].backward()
    moved = {name for name, has in gradients(task).items() if has}
    assert all(name.startswith(("score.", "heads.")) for name in moved)
    assert any(name.startswith("heads.") for name in moved)
    assert all(".lora_" in name for name in moved if name.startswith("score."))


def test_the_adversarial_pull_is_the_gradient_of_its_loss() -> None:
    """What the part adds to the gradient is the slope of 0.05 softplus(logit), found by finite
    differences. With one step a stage gradients pass through the whole roll-out."""
    with_part, without = distillation(steps=1), distillation(start=9, steps=1)
    for task in (with_part, without):
        task.losses("generator", 0, 0)["total"].backward()
    name = "generator.proj_out.lora_B.trained.weight"
    pull = [
        t.networks.get_parameter(name).grad.clone()  # type: ignore[union-attr]
        for t in (with_part, without)
    ]
    direction = pull[0] - pull[1]
    assert float(direction.abs().max()) > 0

    def loss(shift: float) -> float:
        task = distillation(steps=1)
        with torch.no_grad():
            unit = direction / direction.norm()
            task.networks.get_parameter(name).add_(shift * unit)
        return float(task.losses("generator", 0, 0)["adversarial"])

    slope = 0.05 * (loss(5e-4) - loss(-5e-4)) / 1e-3
    assert slope == pytest.approx(float(direction.norm()), rel=0.05)


def test_scores_are_base_with_and_without_the_critic() -> None:
    task = distillation()
    plain = tiny_network(2)
    scene = task.scene("generator", 0, 0)
    x, timestep, sigma = normal(1, *LATENT), torch.tensor([500.0]), torch.tensor([0.5])
    fake, real = task.scores(x, timestep, sigma, scene)
    prompted = x - 0.5 * velocity(plain, x, timestep, scene.judged)
    torch.testing.assert_close(fake, prompted, rtol=1e-4, atol=1e-5)  # LoRA is still zero
    bare = conditioned(scene.past, scene.prefix, task.source.plain)
    unprompted = x - 0.5 * velocity(plain, x, timestep, bare)
    wanted = prompted + 3 * (prompted - unprompted)
    torch.testing.assert_close(real, wanted, rtol=1e-4, atol=1e-5)


def test_generator_and_scores_share_noise_but_not_saturation() -> None:
    task = distillation()
    task.history = CorruptionSettings(drop_text=0, drop_to_last=0, drop_old=0, saturation_clean=0.0)
    scene = task.scene("generator", 3, 0)
    shown = torch.cat([scene.shown.history.long.latents, scene.shown.history.mid.latents], 2)  # type: ignore[union-attr]
    judged = scene.past[:, :, :18]
    mean = judged.mean(1, keepdim=True)
    factor = (shown - mean) / (judged - mean)
    for window in (factor[:, :, 1:9], factor[:, :, 9:18]):  # the same factor within a window
        assert float(window.median()) != pytest.approx(1.0, abs=1e-3)
        spread = window.quantile(0.9) - window.quantile(0.1)
        assert float(spread) < 1e-3


def test_an_empty_history_takes_twice_the_steps_on_every_rank() -> None:
    task = distillation(drop_text=1.0)
    scene = task.scene("generator", 0, 0)
    assert scene.empty
    assert not scene.past.any()
    assert not scene.prefix.any()
    assert task.source.later == [False]  # type: ignore[attr-defined]
    halves = distillation(drop_text=0.5)
    fates = [[halves.scene("generator", s, r).empty for r in (0, 1)] for s in range(6)]
    assert all(first == second for first, second in fates)
    assert {first for first, _ in fates} == {True, False}


def test_the_critic_follows_the_generator() -> None:
    task = distillation(start=10_000, steps=1)
    losses = []
    for step in range(12):
        loss = task.losses(CRITIC, step, 0)["total"]
        loss.backward()
        task.players[1].update(step, 0.0)
        losses.append(float(loss.detach()))
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])


def test_matching_pulls_what_is_made_towards_the_real_score() -> None:
    """With scores that know the answer, the generator's output moves to it."""

    class Known(DistillTask):
        def scores(self, x, timestep, sigma, scene):  # type: ignore[no-untyped-def]
            del timestep, sigma, scene
            return torch.zeros_like(x) + 1.0, torch.zeros_like(x) + 0.5  # fake 1, real 0.5

    task = distillation(start=10_000)
    task.__class__ = Known
    task.history = CorruptionSettings(drop_text=0, drop_to_last=0, drop_old=0, clean=1.0)

    def level() -> float:
        with torch.no_grad():
            scene = task.scene("generator", 0, 0)
            return float(task.made(CRITIC, 0, 0, scene).mean())

    before = level()
    for step in range(6):
        task.losses("generator", step, 0)["total"].backward()
        task.players[0].update(step, 0.0)
    assert level() < before - 0.05  # along real - fake


def teacher() -> HeliosTransformer:
    return tiny_network(5).requires_grad_(False)


SETTINGS = Ode(trajectories=1, chunks=2, teacher_steps=3, guidance=2.0, sections=2)
ORIGIN = origin(SETTINGS, SIZE, SHIFTED, "digest")


def trajectory() -> dict[str, Tensor]:
    text, plain = normal(1, *TEXT), torch.zeros(1, *TEXT)
    return make_trajectory(teacher(), text, plain, SIZE, SHIFTED, SETTINGS, seed=3)


def test_a_trajectory_holds_the_students_levels_of_each_stage(tmp_path: Path) -> None:
    found = trajectory()
    assert found["level0"].shape == (2, 4, 16, 9, 2, 4)
    assert found["level2"].shape == (2, 4, 16, 9, 8, 16)
    assert found["end1"].shape == (2, 16, 9, 4, 8)
    again = trajectory()
    assert all(torch.equal(value, again[name]) for name, value in found.items())
    # The levels of a stage lie on one path: noise falls towards the end.
    gaps = (found["level0"] - found["end0"][:, None]).square().mean((2, 3, 4, 5))
    assert bool((gaps[:, 1:] <= gaps[:, :-1]).all())  # equal over CFG-Zero*'s zeroed first step
    assert bool((gaps[:, -1] < 0.5 * gaps[:, 0]).all())
    file = trajectory_file(tmp_path, 7)
    write_trajectory(file, found, torch.float32, ORIGIN)
    check_trajectories(tmp_path, 9, ORIGIN)
    for change in ({"levels": 6}, {"teacher": "other"}, {"guidance": 3.0}):
        with pytest.raises(InputError, match=f"was made with {next(iter(change))} = "):
            check_trajectories(tmp_path, 9, {**ORIGIN, **change})
    check_trajectories(tmp_path, 7, {**ORIGIN, "levels": 6})  # number 7 is not asked for
    check_trajectories(tmp_path / "none", 9, ORIGIN)
    read = read_trajectory(file)
    assert all(torch.equal(value, read[name]) for name, value in found.items())


def test_the_student_learns_where_the_teacher_ends(tmp_path: Path) -> None:
    file = trajectory_file(tmp_path, 0)
    write_trajectory(file, trajectory(), torch.float32, ORIGIN)
    net = tiny_network(5)
    weights = prepare(net, Adapter(), name="", seed=0, checkpointing=False)
    student = player("student", weights, 5e-3)
    task = OdeTask(net, student, [file], SHIFTED, SIZE, SETTINGS, lambda _folder: None)
    assert task.sigmas == student_levels(SHIFTED, SIZE, 4)[0]
    losses = []
    for step in range(12):
        loss = task.losses("student", step, 0)["total"]
        loss.backward()
        student.update(step, 0.0)
        losses.append(float(loss.detach()))
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])


def test_merged_weights_act_as_base_and_adapter_together() -> None:
    net = tiny_network(4)
    adapter = Adapter(rank=4, alpha=8.0, patch_embedding="lora", patch_history="full")
    weights = prepare(net, adapter, name="trained", seed=1, checkpointing=False)
    with torch.no_grad():
        for number, value in enumerate(weights):
            value.add_(0.05 * normal(*value.shape, seed=number))
    plain = tiny_network(9)
    plain.load_state_dict(merged_state(net, "trained", keep=True))
    given = conditioned(normal(1, 16, 19, 8, 16), normal(1, 16, 1, 8, 16), normal(1, *TEXT))
    x, timestep = normal(1, *LATENT), torch.tensor([300.0])
    with torch.no_grad():
        one, other = (velocity(n, x, timestep, given) for n in (net, plain))
        bare = velocity(tiny_network(4), x, timestep, given)
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    assert float((one - bare).abs().max()) > 0.01
