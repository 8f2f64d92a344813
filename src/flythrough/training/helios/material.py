"""What every stage trains on: a target chunk, the latents before it, the anchor and the prompt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from flythrough import seeds
from flythrough.conditioning.corruption import CorruptionSettings, corrupt_history, drop_history
from flythrough.conditioning.history import native_history, target_indices
from flythrough.models.helios import HeliosTransformer
from flythrough.training.denoiser import Conditioned


@dataclass(frozen=True, eq=False)
class Material:
    """A batch: ``past`` [B,16,n,h,w], oldest first, ``prefix`` [B,16,1,h,w], ``target``
    [B,16,9,h,w], float32, and prompt features ``embedding`` [B,L,D]."""

    past: Tensor
    prefix: Tensor
    target: Tensor
    embedding: Tensor

    @property
    def size(self) -> tuple[int, int, int]:
        """Frames, height and width of the target."""
        frames, height, width = self.target.shape[2:]
        return frames, height, width


class Source(Protocol):
    """(step, rank) -> a batch, the same whenever it is asked for.

    ``plain`` [1,L,D] are the features of the negative prompt. ``later`` asks for chunks that have
    a past, where there are any.
    """

    plain: Tensor

    def __call__(self, step: int, rank: int, *, later: bool = False) -> Material: ...

    def prompt(self, number: int) -> Tensor:
        """Features [1,L,D] of one prompt, a function of ``number`` however many processes run."""
        ...


def flawed(
    material: Material, source: torch.Generator, settings: CorruptionSettings
) -> tuple[Tensor, Tensor]:
    """(past, prefix) as training shows them: dropped in part, then corrupted (Easy Anti-Drifting,
    Helios section on drifting)."""
    past, prefix = drop_history(material.past, material.prefix, source, settings)
    return corrupt_history(past, prefix, source, settings)


def conditioned(past: Tensor, prefix: Tensor, embedding: Tensor) -> Conditioned:
    """What the network is given, made by the functions that inference uses."""
    target = target_indices(len(past), device=past.device)
    return Conditioned(native_history(past, prefix), target, embedding)


def with_plain(
    material: Material, plain: Tensor, share: float, source: torch.Generator
) -> Material:
    """``share`` of the samples get the negative prompt's features; nothing is drawn for 0."""
    if share == 0:
        return material
    draw = torch.rand(len(material.target), generator=source, device=source.device)
    dropped = (draw < share)[:, None, None]
    return replace(material, embedding=torch.where(dropped, plain, material.embedding))


def velocity(network: HeliosTransformer, x: Tensor, timestep: Tensor, given: Conditioned) -> Tensor:
    """One call of the network, float32 in and out; latents enter in the type of its patches."""
    moved: Tensor = network(
        x, timestep, given.embedding, indices_hidden_states=given.target, history=given.history
    )
    return moved.float()


def draws(seed: int, step: int, rank: int, *purpose: str, device: torch.device) -> torch.Generator:
    """The generator of one purpose in one step of one process."""
    return seeds.generator(seed, "helios", *purpose, step, rank, device=device)
