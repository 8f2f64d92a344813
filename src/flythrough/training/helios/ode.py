"""Stage 3a: the student learns to reach the end of a teacher's pyramid stage in one step.

Regression on stored trajectories before any distribution matching (ODE initialisation, arXiv
2603.04379): from a latent at one of the student's own noise levels, the end that its velocity
points to shall be the end that the teacher reached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from flythrough import seeds
from flythrough.models.helios import HeliosTransformer
from flythrough.sampling.dmd_schedule import PyramidConfig
from flythrough.sampling.solvers import Size
from flythrough.training.denoiser import Conditioned
from flythrough.training.helios.clip_folder import windows_around
from flythrough.training.helios.material import conditioned, velocity
from flythrough.training.helios.recipe_tables import Ode
from flythrough.training.helios.trajectories import read_trajectory, student_levels
from flythrough.training.players import Player


class OdeTask:
    """One network, one player.

    Args:
        files: stored trajectories.
        size: frames, height and width of a chunk's latents.
        ranks: processes times micro-batches.
    """

    name = "helios-3a"

    def __init__(
        self,
        network: HeliosTransformer,
        player: Player,
        files: Sequence[Path],
        pyramid: PyramidConfig,
        size: Size,
        settings: Ode,
        export: Callable[[Path], None],
        *,
        batch: int = 1,
        seed: int = 0,
        ranks: int = 1,
    ) -> None:
        self.networks = nn.ModuleDict({"transformer": network})
        self.players = (player,)
        self.network, self.pyramid, self.settings = network, pyramid, settings
        self._files, self._export = tuple(files), export
        self._batch, self._seed, self._ranks = batch, seed, ranks
        self.sigmas, self.timesteps = student_levels(pyramid, size, settings.levels)
        self._order = lru_cache(maxsize=2)(self._new_order)

    def export(self, folder: Path) -> None:
        self._export(folder)

    def shards(self) -> list[tuple[nn.Module, Iterable[nn.Module]]]:
        return [(self.network, self.network.blocks)]

    def losses(self, player: str, step: int, rank: int) -> dict[str, Tensor]:
        del player
        device = next(self.network.parameters()).device
        source = seeds.generator(self._seed, "helios", "ode", step, rank)
        first = (step * self._ranks + rank) * self._batch
        stored = [self._stored(number) for number in range(first, first + self._batch)]
        counts = [len(one["end0"]) for one in stored]
        # Which chunks count: for each trajectory other ones, none twice.
        chosen = [torch.randperm(n, generator=source)[: self.settings.sections] for n in counts]
        text = torch.stack([one["prompt_embeds"] for one in stored]).to(device)
        found: dict[str, list[Tensor]] = {}
        final = f"end{self.pyramid.stages - 1}"
        for section in range(min(len(c) for c in chosen)):
            places = [int(c[section]) for c in chosen]
            pairs = zip(stored, places, strict=True)
            befores = [windows_around(one[final], place)[:2] for one, place in pairs]
            past, prefix = (torch.stack(parts).to(device) for parts in zip(*befores, strict=True))
            given = conditioned(past, prefix, text)
            for stage in range(self.pyramid.stages):
                levels = torch.tensor([self._level(place, source) for place in places])
                loss = self._loss(stored, places, levels, stage, given, device)
                found.setdefault(f"stage{stage}", []).append(loss)
        means = {name: torch.stack(parts).mean() for name, parts in found.items()}
        total = torch.stack(list(means.values())).mean()
        return {**{name: value.detach() for name, value in means.items()}, "total": total}

    def _level(self, chunk: int, source: torch.Generator) -> int:
        """Any level for a first chunk, every second for later ones, as the sampler steps."""
        count = self.settings.levels if chunk == 0 else self.settings.levels // 2
        pick = int(torch.randint(count, (1,), generator=source))
        return pick if chunk == 0 else 2 * pick

    def _loss(
        self,
        stored: Sequence[dict[str, Tensor]],
        places: Sequence[int],
        levels: Tensor,
        stage: int,
        given: Conditioned,
        device: torch.device,
    ) -> Tensor:
        items = list(zip(stored, places, levels.tolist(), strict=True))
        x = torch.stack([one[f"level{stage}"][c, n] for one, c, n in items]).to(device)
        end = torch.stack([one[f"end{stage}"][c] for one, c, _ in items]).to(device)
        sigma = torch.tensor([self.sigmas[stage][n] for n in levels], dtype=torch.float64)
        timestep = torch.tensor([self.timesteps[stage][n] for n in levels], device=device)
        moved = velocity(self.network, x, timestep.float(), given)
        return self.settings.weight * end_loss(x, moved, sigma.to(device), end)

    def _stored(self, number: int) -> dict[str, Tensor]:
        epoch, place = divmod(number, len(self._files))
        return read_trajectory(self._files[self._order(epoch)[place]])

    def _new_order(self, epoch: int) -> list[int]:
        source = seeds.generator(self._seed, "ode-epoch", epoch)
        return [int(i) for i in torch.randperm(len(self._files), generator=source)]


def end_loss(x: Tensor, velocity: Tensor, sigma: Tensor, end: Tensor) -> Tensor:
    """0.5 * MSE(x - sigma v, end) in float64; ``sigma`` [B], the others [B,C,T,h,w]."""
    level = sigma.double()[:, None, None, None, None]
    predicted = x.double() - level * velocity.double()
    return 0.5 * functional.mse_loss(predicted, end.double()).float()
