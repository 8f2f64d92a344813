"""Training of ST-Diff: flow matching with a noise level of its own for every region (WorldWarp).

A clip is rendered from one of its frames. Where the rendering shows something the network starts
from it, elsewhere from the truth; both get noise of different strength, per latent frame, and the
target is always the true clip. So it learns to pull a distorted rendering to the truth, to fill
holes, and to leave alone what is known (arXiv 2512.19678, section 4; specification 4).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from flythrough import seeds
from flythrough.models.st_diff import StDiff
from flythrough.sampling.asynchronous import TRAIN_LEVELS, noised_to, training_levels
from flythrough.training.recent_clips import RecentClips


@dataclass(frozen=True, eq=False)
class EncodedHints:
    """N clips as the network meets them.

    ``clean`` and ``hint`` [N,C,L,h,w]: latents of the clip, and of its history with what was
    rendered behind it; ``valid`` bool [N,L,h,w], constant on 2x2 patches; ``context`` int64 [N],
    latents of history; ``text`` [N,T,D], features of the captions.
    """

    clean: Tensor
    hint: Tensor
    valid: Tensor
    context: Tensor
    text: Tensor

    def fields(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return dict(vars(self))


Refill = Callable[[int, int], EncodedHints]
"""(step, rank) -> freshly encoded clips."""


@dataclass(frozen=True, kw_only=True)
class StDiffSettings:
    """Shape of a step.

    Attributes:
        independent, tied: shares of clips whose levels are drawn for each frame and region, and
            that have one level everywhere; the rest has two levels as the sampler visits them,
            what is invented at least as noisy as what was rendered.
        keep_context: share of clips whose history is given clean; it then takes no part in the
            loss.
        drop_caption: share of clips with an empty prompt, so that guidance works.
        target: ``velocity`` is noise - truth everywhere (published). ``consistent`` points from
            where the network stands to the truth; the two differ where a rendering is wrong.
        shift: of the 1000 levels that are drawn from.
    """

    batch: int = 16
    seed: int = 0
    refill_every: int = 4
    capacity: int = 1024
    independent: float = 0.4
    tied: float = 0.2
    keep_context: float = 0.9
    drop_caption: float = 0.1
    target: Literal["velocity", "consistent"] = "velocity"
    shift: float = 5.0


@dataclass(frozen=True, eq=False)
class StDiffItem:
    """A batch: ``x`` and ``target`` [B,C,L,h,w], ``level`` [B,L,h,w] in [0,1], and ``counts``
    bool [B,L,h,w], the cells that take part in the loss."""

    x: Tensor
    target: Tensor
    level: Tensor
    counts: Tensor


def draw_levels(
    valid: Tensor, source: torch.Generator, table: Tensor, settings: StDiffSettings
) -> Tensor:
    """Noise levels [B,L,h,w] for clips with ``valid`` bool [B,L,h,w]; ``table`` is falling."""
    batch, frames = valid.shape[:2]

    def places(count: int) -> Tensor:
        shape = (batch, count)
        return torch.randint(len(table), shape, generator=source, device=source.device)

    rendered, filled = places(frames), places(frames)
    pair = torch.cat([places(1), places(1)], dim=1).sort(dim=1).values
    same = places(1)
    kind = torch.rand(batch, 1, generator=source, device=source.device)
    own, tied = settings.independent, kind >= 1 - settings.tied
    rendered = torch.where(kind < own, rendered, torch.where(tied, same, pair[:, 1:]))
    filled = torch.where(kind < own, filled, torch.where(tied, same, pair[:, :1]))
    cells = torch.where(valid, rendered[..., None, None], filled[..., None, None])
    return table[cells]


def training_item(
    clips: EncodedHints, source: torch.Generator, table: Tensor, settings: StDiffSettings
) -> StDiffItem:
    """What the network is given, and what it shall say."""
    frames = clips.clean.shape[2]
    kept = torch.rand(len(clips.clean), generator=source, device=source.device)
    context = torch.where(kept < settings.keep_context, clips.context, 0)
    known = torch.arange(frames, device=context.device) < context[:, None]
    known = known[..., None, None].expand_as(clips.valid)
    level = draw_levels(clips.valid, source, table, settings).masked_fill(known, 0.0)
    shown = (clips.valid & ~known)[:, None]
    composed = torch.where(shown, clips.hint, clips.clean)
    noise = torch.randn(composed.shape, generator=source, device=composed.device)
    x = noised_to(composed, noise, level)
    if settings.target == "velocity":
        target = noise - clips.clean
    else:
        target = (x - clips.clean) / level[:, None].clamp(min=0.1)
    return StDiffItem(x, target, level, ~known)


class StDiffTask:
    """Flow matching over a store of encoded clips.

    Args:
        net: the network; all its weights are trained.
        empty: features [1,T,D] of the empty prompt.
        refill: makes new clips.
        export: writes the trained network below a folder.
    """

    name = "stdiff"

    def __init__(
        self,
        net: StDiff,
        empty: Tensor,
        refill: Refill,
        settings: StDiffSettings,
        export: Callable[[Path], None],
    ) -> None:
        self.net, self.empty, self.settings = net, empty, settings
        self.modules = nn.ModuleDict({"st_diff": net})
        self._export = export
        self.previewer: Callable[[Path, int], dict[str, float]] | None = None
        self.recent = RecentClips(
            refill,
            EncodedHints,
            capacity=settings.capacity,
            every=settings.refill_every,
            least=settings.batch,
        )
        self._table = training_levels(settings.shift).to(empty.device)

    def export(self, folder: Path) -> None:
        self._export(folder)

    def preview(self, folder: Path, step: int) -> dict[str, float]:
        return {} if self.previewer is None else self.previewer(folder, step)

    def loss(self, step: int, rank: int) -> dict[str, Tensor]:
        s = self.settings
        with torch.no_grad():
            store = self.recent.at(step, rank)
        source = seeds.generator(s.seed, "stdiff", step, rank, device=self.empty.device)
        clips = store.draw(s.batch, source)
        item = training_item(clips, source, self._table, s)
        drop = torch.rand(s.batch, 1, 1, generator=source, device=source.device) < s.drop_caption
        text = torch.where(drop, self.empty, clips.text)
        error = (self.velocity(item.x, item.level, text) - item.target).square().mean(1)
        shown = item.counts & clips.valid
        invented = item.counts & ~clips.valid
        return {
            "total": _mean(error, item.counts),
            "rendered": _mean(error.detach(), shown),
            "filled": _mean(error.detach(), invented),
        }

    def velocity(self, x: Tensor, level: Tensor, text: Tensor) -> Tensor:
        """One call of the network for cells at ``level`` [B,L,h,w]; float32 out."""
        tokens = TRAIN_LEVELS * level[..., ::2, ::2]
        velocity: Tensor = self.net(x, tokens, text)
        return velocity.float()


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean over chosen cells, 0 where there are none."""
    return (values * chosen).sum() / chosen.sum().clamp(min=1)
