"""The tables of a recipe: what each key means, its default and its range.

Units are stated with each key; step counts are optimiser steps unless said otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from flythrough.errors import InputError

Patches = Literal["frozen", "lora", "full"]
Shift = Literal["off", "linear", "exponential"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """``seed``; ``batch``: clips a process and micro-batch; ``accumulate``: micro-batches a step;
    ``steps``: optimiser steps; ``save_every``: steps between checkpoints; ``precision`` of the
    arithmetic; ``checkpointing``: activations of a block are computed again in the backward pass;
    ``size``: height and width in pixels."""

    seed: int = 0
    batch: int = 1
    accumulate: int = 1
    steps: int = 1_000_000
    save_every: int = 500
    precision: Literal["bf16", "fp32"] = "bf16"
    checkpointing: bool = True
    size: tuple[int, ...] = (384, 640)

    def __post_init__(self) -> None:
        for name in ("batch", "accumulate", "steps", "save_every"):
            _least(name, getattr(self, name), 1)
        _within("seed", self.seed, 0, 2**63 - 1)
        if len(self.size) != 2 or any(side < 64 or side % 64 for side in self.size):
            raise InputError(
                f"size {list(self.size)} must be a height and a width that are multiples of 64 "
                "pixels, such as [384, 640]."
            )


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    """AdamW. ``learning_rate`` after ``warmup`` updates of linear rise; then ``constant`` or along
    a ``cosine`` to 2 % of itself; ``max_grad_norm``: gradients are scaled down to this norm."""

    learning_rate: float = 5e-5
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: int = 0
    betas: tuple[float, ...] = (0.9, 0.999)
    weight_decay: float = 1e-4
    eps: float = 1e-8
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        _within("learning_rate", self.learning_rate, 1e-12, 1.0)
        _least("warmup", self.warmup, 0)
        _within("weight_decay", self.weight_decay, 0.0, 1.0)
        _within("eps", self.eps, 1e-16, 1.0)
        _within("max_grad_norm", self.max_grad_norm, 1e-6, 1e6)
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"betas {list(self.betas)} must be two numbers in [0, 1).")


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """What is trained: LoRA of ``rank`` and ``alpha`` on every linear layer (A normal with
    deviation 1/rank, B zero), or, with rank 0, all weights. ``patch_embedding`` and
    ``patch_history`` (short, mid, long) say how the patch layers are trained beside LoRA."""

    rank: int = 0
    alpha: float = 0.0
    patch_embedding: Patches = "full"
    patch_history: Patches = "full"

    def __post_init__(self) -> None:
        _within("rank", self.rank, 0, 4096)
        if self.rank > 0 and self.alpha <= 0:
            raise InputError(
                f"alpha {self.alpha} must be positive; {self.rank}, the rank, is usual."
            )
        if self.rank == 0 and (self.patch_embedding, self.patch_history) != ("full", "full"):
            raise InputError(
                'With rank 0 every weight is trained, so both kinds of patches must be "full"; '
                "drop their keys."
            )


@dataclass(frozen=True, kw_only=True)
class Text:
    """``drop_caption``: share of clips trained with the negative prompt in place of their own;
    ``negative_prompt``: what guidance leads away from; ``max_length`` in tokens."""

    drop_caption: float = 0.0
    negative_prompt: str = ""
    max_length: int = 512

    def __post_init__(self) -> None:
        _within("drop_caption", self.drop_caption, 0.0, 1.0)
        _within("max_length", self.max_length, 1, 4096)


@dataclass(frozen=True, kw_only=True)
class Flow:
    """Stages 1 and 2. ``weighting``: density of noise levels, logit-normal(0, 1) or uniform;
    ``shift``: dynamic shift of the levels by token count; ``draws``: noise levels a step in each
    pyramid stage, coarse to fine (stage 2)."""

    weighting: Literal["logit_normal", "uniform"] = "uniform"
    shift: Shift = "off"
    draws: tuple[int, ...] = (1, 1, 1)

    def __post_init__(self) -> None:
        if len(self.draws) != 3 or min(self.draws) < 0 or sum(self.draws) == 0:
            raise InputError(
                f"draws {list(self.draws)} must be three counts, coarse to fine, not all zero."
            )


@dataclass(frozen=True, kw_only=True)
class Ode:
    """Stage 3a. ``trajectories`` of ``chunks`` chunks are sampled from the teacher in
    ``teacher_steps`` steps a stage with ``guidance``; ``levels``: steps a stage of the student in a
    first chunk, of which every second is a level of later chunks; ``sections``: chunks of a
    trajectory that count in one training step; ``weight`` of the loss."""

    trajectories: int = 100_000
    chunks: int = 5
    teacher_steps: int = 20
    guidance: float = 5.0
    levels: int = 4
    sections: int = 3
    weight: float = 80.0

    def __post_init__(self) -> None:
        for name in ("trajectories", "chunks", "teacher_steps", "sections"):
            _least(name, getattr(self, name), 1)
        _within("guidance", self.guidance, 1.0, 100.0)
        _within("weight", self.weight, 1e-6, 1e6)
        if self.levels < 2 or self.levels % 2:
            raise InputError(f"levels {self.levels} must be an even count, such as 4.")
        if self.sections > self.chunks:
            raise InputError(f"sections {self.sections} cannot exceed the {self.chunks} chunks.")


@dataclass(frozen=True, kw_only=True)
class Dmd:
    """Stage 3b. ``steps`` a pyramid stage, twice as many where the history is empty.

    The generator moves in every ``generator_every``-th step, the critic in each, with
    ``critic_learning_rate`` and ``critic_max_grad_norm``. The critic is LoRA of ``critic_rank`` and
    ``critic_alpha`` on the score network. ``guidance`` g of the real score: r_c + g (r_c - r_u).
    The generator's noise levels are Beta distributed, from ``beta_start`` to (1, 1) over
    ``beta_steps`` steps. ``timesteps``: lowest and highest of 1000.
    """

    steps: int = 2
    generator_every: int = 5
    critic_learning_rate: float = 4e-7
    critic_max_grad_norm: float = 10.0
    critic_rank: int = 256
    critic_alpha: float = 256.0
    guidance: float = 3.0
    beta_start: tuple[float, ...] = (4.0, 1.5)
    beta_steps: int = 500
    timesteps: tuple[float, ...] = (20.0, 980.0)

    def __post_init__(self) -> None:
        for name in ("steps", "generator_every", "critic_rank", "beta_steps"):
            _least(name, getattr(self, name), 1)
        _within("critic_learning_rate", self.critic_learning_rate, 1e-12, 1.0)
        _within("critic_max_grad_norm", self.critic_max_grad_norm, 1e-6, 1e6)
        _within("critic_alpha", self.critic_alpha, 1e-6, 1e6)
        _within("guidance", self.guidance, 0.0, 100.0)
        if len(self.beta_start) != 2 or min(self.beta_start) <= 0:
            raise InputError(f"beta_start {list(self.beta_start)} must be two positive numbers.")
        low_high = self.timesteps
        if len(low_high) != 2 or not 0 < low_high[0] < low_high[1] < 1000:
            raise InputError(f"timesteps {list(low_high)} must be low < high within (0, 1000).")


@dataclass(frozen=True, kw_only=True)
class Gan:
    """Adversarial part of stage 3b, from step ``start`` on. Heads of ``width`` channels sit on the
    outputs of ``blocks`` of the critic and on its velocity; ``generator_weight`` and
    ``critic_weight`` of the softplus losses, ``r1_weight`` of the approximate R1 penalty whose
    perturbation has deviation ``r1_sigma``."""

    start: int = 1000
    blocks: tuple[int, ...] = (5, 15, 25, 35)
    width: int = 768
    generator_weight: float = 0.05
    critic_weight: float = 0.01
    r1_weight: float = 100.0
    r1_sigma: float = 0.1

    def __post_init__(self) -> None:
        _least("start", self.start, 0)
        if self.width < 32 or self.width % 32:
            raise InputError(f"width {self.width} must be a multiple of 32.")
        if min(self.blocks, default=0) < 0:
            raise InputError(f"blocks {list(self.blocks)} must be counts from 0.")
        for name in ("generator_weight", "critic_weight", "r1_weight", "r1_sigma"):
            _within(name, getattr(self, name), 0.0, 1e6)


@dataclass(frozen=True, kw_only=True)
class Ema:
    """Moving average of the trained weights: ``decay``, and the update it starts at."""

    decay: float
    start: int = 0

    def __post_init__(self) -> None:
        _within("decay", self.decay, 0.0, 0.999999)
        _least("start", self.start, 0)


@dataclass(frozen=True, kw_only=True)
class Validation:
    """How the trained model is to be sampled; written into the exported folder. ``steps`` one
    count, or one a pyramid stage; classifier-free ``guidance``; dynamic ``shift``."""

    steps: tuple[int, ...]
    guidance: float = 1.0
    shift: Literal["linear", "exponential"] = "linear"

    def __post_init__(self) -> None:
        if not self.steps or min(self.steps) < 1:
            raise InputError(f"steps {list(self.steps)} must be positive counts.")
        _within("guidance", self.guidance, 1.0, 100.0)


@dataclass(frozen=True, kw_only=True)
class Worlds:
    """Training clips rendered from procedural worlds (and photographs on planes): ``chunks`` of 33
    frames a clip, ``clips`` a refill, a refill ``every`` so many steps, ``capacity`` clips kept."""

    chunks: int = 2
    clips: int = 6
    every: int = 4
    capacity: int = 512

    def __post_init__(self) -> None:
        for item in fields(self):
            _least(item.name, getattr(self, item.name), 1)


def _least(name: str, value: int, least: int) -> None:
    if value < least:
        raise InputError(f"{name} {value} is out of range; give at least {least}.")


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InputError(f"{name} {value} is out of range; give {low:g} to {high:g}.")
