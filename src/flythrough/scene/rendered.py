"""What a scene memory shows to a target camera."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_IN_FRONT = 0.9


@dataclass(frozen=True, eq=False)
class RenderedView:
    """T frames.

    Attributes:
        rgb: [T,3,H,W] float32 in [0,1]; a constant colour where unseen.
        depth: [T,H,W] z-depth in the target camera, 0 where unseen.
        visible: [T,H,W] in [0,1]; 0 or 1 as rendered, fractions after resizing.
    """

    rgb: Tensor
    depth: Tensor
    visible: Tensor

    def __len__(self) -> int:
        return len(self.rgb)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.rgb.shape[2], self.rgb.shape[3]

    def resized(self, size: tuple[int, int]) -> RenderedView:
        """Another (height, width): colours and visibility bilinear, depth nearest."""
        if size == self.size:
            return self
        visible = functional.interpolate(self.visible[:, None], size, mode="bilinear")[:, 0]
        return RenderedView(
            rgb=functional.interpolate(self.rgb, size, mode="bilinear"),
            depth=functional.interpolate(self.depth[:, None], size, mode="nearest-exact")[:, 0],
            visible=visible.clamp(0, 1),
        )


def concatenated(views: Sequence[RenderedView]) -> RenderedView:
    """The frames of several views one after the other."""
    return RenderedView(
        rgb=torch.cat([v.rgb for v in views]),
        depth=torch.cat([v.depth for v in views]),
        visible=torch.cat([v.visible for v in views]),
    )


def layered(first: RenderedView, second: RenderedView) -> RenderedView:
    """``first`` where it saw something; ``second`` elsewhere and where it is clearly in front.

    A joint z-buffer mixes two slightly misaligned textures pixel by pixel; this does not.
    """
    unseen = (first.visible < 0.5) & (second.visible > first.visible)
    in_front = (second.visible > 0.5) & (second.depth < _IN_FRONT * first.depth)
    return _where(unseen | in_front, second, first)


def underlaid(first: RenderedView, second: RenderedView) -> RenderedView:
    """``first``, and ``second`` only where ``first`` saw nothing."""
    use = (first.visible < 0.5) & (second.visible > first.visible)
    return _where(use, second, first)


def _where(use: Tensor, one: RenderedView, other: RenderedView) -> RenderedView:
    return RenderedView(
        rgb=torch.where(use[:, None], one.rgb, other.rgb),
        depth=torch.where(use, one.depth, other.depth),
        visible=torch.where(use, one.visible, other.visible),
    )
