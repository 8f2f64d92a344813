"""Values put where a tensor lies: on its device, with its memory layout and its shards."""

from __future__ import annotations

import torch
from torch import Tensor


def like(target: Tensor, value: Tensor) -> Tensor:
    """``value`` on the device, and with the shards and memory layout, of ``target``."""
    if hasattr(target, "device_mesh"):
        from torch.distributed.tensor import DTensor, distribute_tensor

        assert isinstance(target, DTensor)
        there = value.to(target.device)
        return distribute_tensor(there, target.device_mesh, target.placements)
    # Fused optimisers walk through memory: moments need the layout of their parameter.
    return torch.empty_like(target, dtype=value.dtype, requires_grad=False).copy_(value)


def placed(moments: dict[str, Tensor], parameter: Tensor) -> dict[str, Tensor]:
    """Adam's state as a fused optimiser needs it: all on the device of ``parameter``, moments
    in its memory layout and shards (else they meet the wrong weights without an error)."""
    return {
        key: value.to(parameter.device) if key == "step" else like(parameter, value)
        for key, value in moments.items()
    }
