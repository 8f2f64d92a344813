"""Warp-as-History's own recipe: the history of a training item, its noisy points and its loss.

A LoRA on the stage that sees the warp, trained by flow matching on a few clips (arXiv 2605.15182).
The past of an item is one still frame, whatever the clip's place in its video; conditions carry the
same noise as at inference. Everything is drawn from one generator in the published order: warp
noise, anchor noise; then the item's noise and one number a stage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from flythrough.conditioning.condition_noise import (
    CONDITION_SIGMAS,
    SigmaRange,
    with_condition_noise,
)
from flythrough.conditioning.warped_history import WarpHistorySettings, warped_history
from flythrough.errors import InputError
from flythrough.models.history_tokens import History
from flythrough.sampling.dmd_schedule import (
    PyramidConfig,
    dmd_schedule,
    shift_mu,
    stage_size,
    token_count,
)
from flythrough.sampling.flow_items import FlowItem, flow_items, flow_items_at

PUBLISHED_THRESHOLD = 0.5
"""The visibility below which the published trainer leaves tokens out, whatever its flag says: the
flag (0.1, as at inference) never reaches the network. The released adapters were made with it."""

LevelSampling = Literal["training_density", "first", "first_second_interval"]
Velocity = Callable[[Tensor, Tensor], Tensor]
"""(x [B,C,T,h,w], timestep [B]) -> velocity of the stage's segment."""


@dataclass(frozen=True, kw_only=True)
class LevelSettings:
    """At which noise levels an item is trained.

    Attributes:
        stages: pyramid stages of one item; their losses are averaged.
        sampling: anywhere on the stage's grid, its noisiest point, or between the first two levels
            that inference visits with ``steps`` steps.
        shift: move a drawn grid point by the shift of the stage's own size.

    Raises:
        InputError: no stage, no such sampling, or a shift that would have no effect.
    """

    stages: tuple[int, ...] = (0,)
    sampling: LevelSampling = "training_density"
    shift: bool = False
    steps: int = 2

    def __post_init__(self) -> None:
        if not self.stages:
            raise InputError("no pyramid stage was chosen for training; name at least one")
        if self.sampling not in ("training_density", "first", "first_second_interval"):
            raise InputError(
                f"noise level sampling {self.sampling!r} is unknown; choose training_density, "
                "first or first_second_interval"
            )
        if self.shift and self.sampling == "first_second_interval":
            raise InputError(
                "the levels between two inference steps are shifted already, so that shift has no "
                "effect; leave it off"
            )


def training_history(
    prefix: Tensor,
    still: Tensor,
    warp: Tensor,
    visible: Tensor,
    source: torch.Generator,
    *,
    settings: WarpHistorySettings,
    noise: SigmaRange | None = CONDITION_SIGMAS,
) -> tuple[History, Tensor]:
    """History and target indices of an item, by the function that inference uses.

    Args:
        prefix: latent of the condition frame [B,16,1,h,w]; ``still``: of that frame held still.
        warp: [B,16,9,h,w] with ``visible`` [B,9,h,w] in [0,1].
        source: one draw of warp noise, then one of anchor noise; not used if ``noise`` is None.

    Raises:
        InputError: shapes that do not belong together.
    """
    if noise is not None:
        warp = with_condition_noise(warp, source, noise)
        prefix = with_condition_noise(prefix, source, noise)
    return warped_history(prefix, still, warp, visible, settings=settings)


def draw_items(
    clean: Tensor,
    source: torch.Generator,
    config: PyramidConfig,
    settings: LevelSettings | None = None,
) -> dict[int, FlowItem]:
    """Noisy points of the target ``clean`` [B,16,9,h,w], one for every stage of ``settings``.

    All stages share one noise, drawn first at full size.
    """
    s = settings or LevelSettings()
    noise = torch.randn(clean.shape, generator=source, device=source.device).to(clean)
    return {stage: _item(clean, noise, stage, source, config, s) for stage in s.stages}


def flow_loss(velocity: Velocity, items: dict[int, FlowItem]) -> dict[str, Tensor]:
    """Mean squared error of the velocity of every stage, and ``total``, their mean."""
    losses = {
        f"stage{stage}": functional.mse_loss(
            velocity(item.x, item.timestep).float(), item.target.float()
        )
        for stage, item in items.items()
    }
    return {**losses, "total": torch.stack(list(losses.values())).mean()}


def _item(
    clean: Tensor,
    noise: Tensor,
    stage: int,
    source: torch.Generator,
    config: PyramidConfig,
    settings: LevelSettings,
) -> FlowItem:
    if settings.sampling == "first":
        u = torch.zeros(len(clean), device=clean.device)
        return flow_items(clean, noise, stage, u, config, shift=settings.shift)
    u = torch.rand(len(clean), generator=source, device=source.device).to(clean.device)
    if settings.sampling == "training_density":
        return flow_items(clean, noise, stage, u, config, shift=settings.shift)
    high, low = _first_levels(clean.shape[2:], stage, config, settings.steps)
    return flow_items_at(clean, noise, stage, high + (low - high) * u, config)


def _first_levels(
    size: Sequence[int], stage: int, config: PyramidConfig, steps: int
) -> tuple[float, float]:
    frames, height, width = size
    mu = shift_mu(config, token_count(*stage_size(config, (frames, height, width), stage)))
    schedule = dmd_schedule(config, stage, steps, mu=mu)
    return schedule.sigmas[0], schedule.next_sigmas[0]
