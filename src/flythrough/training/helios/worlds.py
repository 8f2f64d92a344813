"""Clips of procedural worlds, and of photographs on planes, as material: nano's own data."""

from __future__ import annotations

import torch
from torch import Tensor

from flythrough import seeds
from flythrough.models.text import PromptEncoder
from flythrough.training.denoiser import past_of
from flythrough.training.helios.material import Material, draws
from flythrough.training.helios.recipe_tables import Worlds
from flythrough.training.latents import EncodedClips, Refill
from flythrough.training.recent_clips import RecentClips


class WorldSource:
    """A store of recent clips for every rank that is asked for (a process's micro-batches have one
    each, see ``trainer``); the chunk is the same for a whole step.

    Args:
        refill: makes clips with captions.
        prompts: the frozen text encoder.
        plain: features of the negative prompt.
        batch, seed: clips a draw, and what it is drawn from.
    """

    def __init__(
        self,
        refill: Refill,
        prompts: PromptEncoder,
        plain: Tensor,
        settings: Worlds,
        *,
        batch: int,
        seed: int,
    ) -> None:
        self.plain = plain
        self._refill, self._prompts, self._settings = refill, prompts, settings
        self._batch, self._seed = batch, seed
        self._stores: dict[int, RecentClips[EncodedClips]] = {}

    def __call__(self, step: int, rank: int, *, later: bool = False) -> Material:
        store = self._stores.get(rank)
        if store is None:
            store = self._stores[rank] = self._new_store()
        with torch.no_grad():
            ring = store.at(step, rank)
            device = self.plain.device
            clips = ring.draw(self._batch, draws(self._seed, step, rank, "clips", device=device))
            chunks = clips.chunks.shape[1]
            first = 1 if later and chunks > 1 else 0
            pick = seeds.generator(self._seed, "chunk", step)
            chunk = int(torch.randint(first, chunks, (1,), generator=pick))
            return Material(
                past=past_of(clips, chunk),
                prefix=clips.prefix,
                target=clips.chunks[:, chunk],
                embedding=self._prompts.embed(clips.tokens, clips.mask).float(),
            )

    def prompt(self, number: int) -> Tensor:
        turn, place = divmod(number, self._batch)
        return self(turn, 0).embedding[place : place + 1]

    def _new_store(self) -> RecentClips[EncodedClips]:
        s = self._settings
        return RecentClips(
            self._refill, EncodedClips, capacity=s.capacity, every=s.every, least=self._batch
        )
