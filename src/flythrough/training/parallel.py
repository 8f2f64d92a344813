"""Many processes as one batch: replicas whose gradients are averaged, or shards of one network.

``ddp`` keeps a replica in every process (torch's DistributedDataParallel, whose averaging overlaps
with the backward pass). ``fsdp`` (torch's ``fully_shard``) keeps a share of every weight, gradient
and optimiser state in each process and gathers a layer when it runs, so that networks train that
no card could hold. Parameters that are shards look like whole ones except where their values are
read or set: that is what :func:`whole` and :func:`fill` are for.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from flythrough.errors import InputError
from flythrough.training.loop import rank_and_world
from flythrough.training.placing import like

Strategy = Literal["ddp", "fsdp"]

Losses = Callable[[int, int], dict[str, Tensor]]
"""(step, rank) -> scalar losses, ``total`` among them."""


def check_strategy(strategy: str) -> None:
    """Refuse names that are no strategy.

    Raises:
        InputError: another name than ``ddp`` or ``fsdp``.
    """
    if strategy not in ("ddp", "fsdp"):
        raise InputError(f"The parallel strategy {strategy!r} is unknown; give ddp or fsdp.")


def shard(network: nn.Module, layers: Iterable[nn.Module], device: torch.device) -> None:
    """Split the weights of ``network`` over all processes, in place; ``layers`` are gathered one
    by one. Without other processes nothing changes.

    To be called before optimisers are made, because parameters are replaced.
    """
    world = rank_and_world()[1]
    if world == 1:
        return
    # Outputs that are views must not be changed in place; nothing here does.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
    mesh = init_device_mesh(device.type, (world,))
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(network, mesh=mesh)


def whole(value: Tensor) -> Tensor:
    """The whole of a tensor that may be a shard; every process must take part."""
    value = value.detach()
    return value.full_tensor() if isinstance(value, DTensor) else value


def fill(target: Tensor, value: Tensor) -> None:
    """Put a whole ``value`` into a tensor that may be a shard; every process must take part."""
    with torch.no_grad():
        target.copy_(like(target, value))


class Turn(nn.Module):
    """The losses of one player as the forward pass of a module, as replicas need it: however often
    the networks run within, averaging sees one pass, and weights that it left out are found."""

    def __init__(self, networks: nn.Module, losses: Losses) -> None:
        super().__init__()
        self.networks = networks
        self._losses = losses

    def forward(self, step: int, rank: int) -> dict[str, Tensor]:
        return self._losses(step, rank)


def replicated(networks: nn.Module, trained: Iterable[nn.Parameter], losses: Losses) -> Losses:
    """``losses`` with the gradients of ``trained`` averaged over processes during ``backward``.

    The trained weights of process 0 are sent to all others first.
    """
    turn = Turn(networks, losses)
    known = {id(parameter) for parameter in trained}
    left_out = [name for name, value in turn.named_parameters() if id(value) not in known]
    left_out += [name for name, _ in turn.named_buffers()]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(turn, left_out)
    return DistributedDataParallel(turn, find_unused_parameters=True)
