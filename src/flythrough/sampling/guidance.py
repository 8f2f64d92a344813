"""Guidance: two predictions, with and without the prompt, become one velocity."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from flythrough.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """How far to lean towards the prompt.

    Attributes:
        scale: 1 uses the prompted prediction alone (the network then runs once a step); above 1
            the difference to the unprompted one is enlarged (Ho and Salimans 2022, eq. 6).
        zero_star: first scale the unprompted prediction by its least-squares fit to the prompted
            one (CFG-Zero*, Fan et al. 2025, eq. 9).
        zero_steps: with ``zero_star``, the first so many steps of the first stage use velocity 0
            (zero-init of the same paper).

    Raises:
        InputError: a scale below 1, or a negative step count.
    """

    scale: float = 1.0
    zero_star: bool = False
    zero_steps: int = 0

    def __post_init__(self) -> None:
        if not 1.0 <= self.scale <= 100.0:
            raise InputError(
                f"The guidance scale is {self.scale:g} but must lie between 1 (no guidance) and "
                "100; Helios was published with 5."
            )
        if self.zero_steps < 0:
            raise InputError(f"{self.zero_steps} zeroed steps were asked for; give 0 or more.")

    @property
    def active(self) -> bool:
        """Whether the unprompted prediction is needed at all."""
        return self.scale > 1.0

    def combined(self, prompted: Tensor, plain: Tensor, stage: int, step: int) -> Tensor:
        """The velocity of one step from both predictions [B,...]."""
        if not self.zero_star:
            return plain + self.scale * (prompted - plain)
        if stage == 0 and step < self.zero_steps:
            return prompted * 0.0
        fitted = plain * projection(prompted, plain)
        return fitted + self.scale * (prompted - fitted)


def projection(target: Tensor, source: Tensor) -> Tensor:
    """Per sample, the factor [B,1,...] that brings ``source`` closest to ``target`` [B,...]."""
    wanted, given = target.flatten(1).float(), source.flatten(1).float()
    factor = (wanted * given).sum(1) / (given.square().sum(1) + 1e-8)
    return factor.view(-1, *[1] * (target.ndim - 1)).to(target.dtype)
