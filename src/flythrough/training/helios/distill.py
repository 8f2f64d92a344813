"""Stage 3b: adversarial hierarchical distillation (arXiv 2603.04379).

The generator makes a chunk in a few steps after a real history. Two scores judge it at full size:
the real one is Helios-Base with guidance, the fake one the same weights with the critic's LoRA
switched on, which follows the generator by flow matching on what it makes. Heads on the critic add
an adversarial term. The generator's history is noised and off in saturation, the scores' only
noised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from flythrough import seeds
from flythrough.conditioning.corruption import CorruptionSettings
from flythrough.models.adapters import set_lora_active
from flythrough.models.helios import HeliosTransformer
from flythrough.sampling.dmd_schedule import PyramidConfig
from flythrough.sampling.noise import block_noise
from flythrough.sampling.solvers import Size
from flythrough.training.denoiser import Conditioned
from flythrough.training.helios import gan
from flythrough.training.helios.material import (
    Material,
    Source,
    conditioned,
    draws,
    flawed,
    velocity,
    with_plain,
)
from flythrough.training.helios.recipe_tables import Dmd, Gan
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
from flythrough.training.players import Player

CRITIC = "critic"


@dataclass(frozen=True, eq=False)
class Scene:
    """A batch and what generator and scores see before it; ``empty``: no history at all."""

    material: Material
    shown: Conditioned
    past: Tensor
    prefix: Tensor
    empty: bool

    @property
    def judged(self) -> Conditioned:
        """What the scores see."""
        return conditioned(self.past, self.prefix, self.material.embedding)

    def repeated(self, times: int) -> Conditioned:
        """What the scores see, for ``times`` batches behind one another."""
        parts = (self.past, self.prefix, self.material.embedding)
        return conditioned(*(torch.cat([part] * times) for part in parts))


@dataclass(frozen=True, eq=False)
class Cast:
    """Who takes part: the few-step ``generator``; ``score``, which is Base with LoRA ``critic``
    attached; ``heads`` of the adversarial part, or None without one; and the players "generator",
    then "critic"."""

    generator: HeliosTransformer
    score: HeliosTransformer
    heads: gan.Heads | None
    players: tuple[Player, Player]


class DistillTask:
    """Generator and critic.

    Args:
        size: frames, height and width of a chunk's latents.
        drop_caption: share of samples with the negative prompt.
    """

    name = "helios-3b"

    def __init__(
        self,
        cast: Cast,
        source: Source,
        pyramid: PyramidConfig,
        dmd: Dmd,
        adversarial: Gan | None,
        history: CorruptionSettings,
        size: Size,
        export: Callable[[Path], None],
        *,
        seed: int = 0,
        drop_caption: float = 0.0,
    ) -> None:
        self.networks = nn.ModuleDict({"generator": cast.generator, "score": cast.score})
        if cast.heads is not None:
            self.networks["heads"] = cast.heads
        self.players = cast.players
        self.generator, self.score, self.heads = cast.generator, cast.score, cast.heads
        self.source, self.pyramid, self.dmd, self.adversarial = source, pyramid, dmd, adversarial
        self.history, self._export = history, export
        self._seed, self._drop_caption = seed, drop_caption
        self._device = source.plain.device
        limits = dmd.timesteps[0], dmd.timesteps[1]
        self.grid = ScoreGrid(pyramid, size, limits, self._device)

    def export(self, folder: Path) -> None:
        self._export(folder)

    def shards(self) -> list[tuple[nn.Module, Iterable[nn.Module]]]:
        made: list[tuple[nn.Module, Iterable[nn.Module]]] = [
            (self.generator, self.generator.blocks),
            (self.score, self.score.blocks),
        ]
        return made if self.heads is None else [*made, (self.heads, [])]

    def losses(self, player: str, step: int, rank: int) -> dict[str, Tensor]:
        scene = self.scene(player, step, rank)
        made = self.made(player, step, rank, scene)
        if player == CRITIC:
            return self._critic(made, scene, step, rank)
        return self._generator(made, scene, step, rank)

    def scene(self, player: str, step: int, rank: int) -> Scene:
        """The batch of a turn. Whether the history is empty is the same for all processes, because
        the number of steps depends on it."""
        fate = seeds.generator(self._seed, "empty", player, step)
        empty = bool(torch.rand(1, generator=fate) < self.history.drop_text)
        material = self.source(step, rank, later=not empty)
        source = draws(self._seed, step, rank, player, "caption", device=self._device)
        material = with_plain(material, self.source.plain, self._drop_caption, source)
        settings = replace(self.history, drop_text=1.0 if empty else 0.0)
        new = partial(draws, self._seed, step, rank, player, "history", device=self._device)
        drifted = flawed(material, new(), settings)
        past, prefix = flawed(material, new(), replace(settings, saturation_clean=1.0))
        shown = conditioned(*drifted, material.embedding)
        return Scene(material, shown, past, prefix, empty)

    def made(self, player: str, step: int, rank: int, scene: Scene) -> Tensor:
        """What the generator makes of the scene, with gradients in its own turn."""
        steps = self.dmd.steps * (2 if scene.empty else 1)
        leave = seeds.generator(self._seed, "exits", player, step)
        exits = torch.randint(steps, (self.pyramid.stages,), generator=leave).tolist()
        source = draws(self._seed, step, rank, player, "noise", device=self._device)
        noise = torch.randn(scene.material.target.shape, generator=source, device=self._device)
        return roll_out(
            lambda x, timestep: velocity(self.generator, x, timestep, scene.shown),
            noise,
            lambda _stage, shape: block_noise(shape, source, self.pyramid.gamma),
            self.pyramid,
            steps,
            exits,
            gradients=player != CRITIC,
        )

    def _generator(self, made: Tensor, scene: Scene, step: int, rank: int) -> dict[str, Tensor]:
        shape = beta_shape(step, self.dmd.beta_start, self.dmd.beta_steps)
        u = beta_draw(len(made), shape, seeds.fold(self._seed, "beta", step, rank))
        source = draws(self._seed, step, rank, "generator", "judge", device=self._device)
        timestep, sigma = self.grid.at(u.to(self._device))
        noise = torch.randn(made.shape, generator=source, device=self._device)
        fake, real = self.scores(noised(made.detach(), sigma, noise), timestep, sigma, scene)
        gradient = matching_gradient(made, fake, real)
        loss = matching_loss(made, gradient)
        losses = {"matching": loss.detach(), "gradient": gradient.abs().mean()}
        if self._fights(step):
            assert self.adversarial is not None
            value, direction = self._adversarial_gradient(made.detach(), scene, step, source)
            weight = self.adversarial.generator_weight
            pull = (made.double() * direction.double()).sum()
            # Its gradient is the adversarial one; its value is put right for the log.
            loss = loss + weight * (pull - pull.detach() + value)
            losses["adversarial"] = value
        return {**losses, "total": loss}

    @torch.no_grad()
    def scores(
        self, x: Tensor, timestep: Tensor, sigma: Tensor, scene: Scene
    ) -> tuple[Tensor, Tensor]:
        """Clean latents as fake and as real score see them in ``x``."""
        given = scene.judged
        fake = clean_from(x, sigma, velocity(self.score, x, timestep, given))
        set_lora_active(self.score, CRITIC, False)
        prompted = clean_from(x, sigma, velocity(self.score, x, timestep, given))
        plain = self.source.plain.expand(len(x), -1, -1)
        bare = replace(given, embedding=plain)
        unprompted = clean_from(x, sigma, velocity(self.score, x, timestep, bare))
        set_lora_active(self.score, CRITIC, True)
        return fake, guided(prompted, unprompted, self.dmd.guidance)

    def _adversarial_gradient(
        self, made: Tensor, scene: Scene, step: int, source: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Loss and its gradient with respect to ``made`` alone: no weight collects anything."""
        leaf = made.clone().requires_grad_(True)
        timestep, sigma = self._level(len(made), source)
        noise = torch.randn(made.shape, generator=source, device=self._device)
        logits = self._logits(noised(leaf, sigma, noise), timestep, scene.judged, step)
        loss = gan.generator_loss(logits)
        (direction,) = torch.autograd.grad(loss, leaf)
        return loss.detach(), direction

    def _critic(self, made: Tensor, scene: Scene, step: int, rank: int) -> dict[str, Tensor]:
        source = draws(self._seed, step, rank, CRITIC, "judge", device=self._device)
        timestep, sigma = self._level(len(made), source)
        noise = torch.randn(made.shape, generator=source, device=self._device)
        moved = velocity(self.score, noised(made, sigma, noise), timestep, scene.judged)
        loss = functional.mse_loss(moved, noise - made)
        losses = {"flow": loss.detach()}
        if self._fights(step):
            assert self.adversarial is not None
            told, penalty = self._discrimination(made, scene, step, source)
            a = self.adversarial
            loss = loss + a.critic_weight * told + a.r1_weight * penalty
            losses |= {"adversarial": told.detach(), "r1": penalty.detach()}
        return {**losses, "total": loss}

    def _discrimination(
        self, made: Tensor, scene: Scene, step: int, source: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """(loss, R1 penalty) from made, real and perturbed real latents in one pass."""
        assert self.adversarial is not None
        timestep, sigma = self._level(len(made), source)
        noise = torch.randn(made.shape, generator=source, device=self._device)
        shake = torch.randn(made.shape, generator=source, device=self._device)
        real = scene.material.target
        shaken = real + self.adversarial.r1_sigma * shake
        x = torch.cat([noised(z, sigma, noise) for z in (made, real, shaken)])
        logits = self._logits(x, timestep.repeat(3), scene.repeated(3), step)
        on_made, on_real, on_shaken = logits.chunk(3)
        return gan.critic_loss(on_made, on_real), gan.r1_penalty(on_real, on_shaken)

    def _logits(self, x: Tensor, timestep: Tensor, given: Conditioned, step: int) -> Tensor:
        assert self.heads is not None
        features = gan.critic_features(self.score, self.heads.blocks, x, timestep, given)
        place = torch.rand(2, generator=seeds.generator(self._seed, "crop", step)).tolist()
        logits: Tensor = self.heads(features, (place[0], place[1]))
        return logits

    def _level(self, batch: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
        """A uniform noise level: (timestep, sigma) [B]."""
        u = 1 - torch.rand(batch, generator=source, device=self._device)
        return self.grid.at(u)

    def _fights(self, step: int) -> bool:
        return self.adversarial is not None and step >= self.adversarial.start
