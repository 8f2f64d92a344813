"""What a scene memory shows to a target camera."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_IN_FRONT = 0.9


@dataclass(frozen=True, eq=False)
class RenderedView:
    """T frames: ``rgb`` [T,3,H,W] in [0,1], z-``depth`` [T,H,W] (0 where unseen), ``visible``
    [T,H,W] in [0,1]."""

    rgb: Tensor
    depth: Tensor
    visible: Tensor


def layered(first: RenderedView, second: RenderedView) -> RenderedView:
    """``first`` where it saw something; ``second`` elsewhere and where it is clearly in front.

    One joint z-buffer would mix two slightly misaligned textures pixel by pixel.
    """
    unseen = (first.visible < 0.5) & (second.visible > first.visible)
    in_front = (second.visible > 0.5) & (second.depth < _IN_FRONT * first.depth)
    use = unseen | in_front
    return RenderedView(
        rgb=torch.where(use[:, None], second.rgb, first.rgb),
        depth=torch.where(use, second.depth, first.depth),
        visible=torch.where(use, second.visible, first.visible),
    )
