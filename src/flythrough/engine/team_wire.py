"""Messages from the process that runs a rollout to those that share its denoiser: a header in JSON
through the CPU, tensors from card to card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

LEADER = 0
_FIRST = 4096
"""Bytes of a header that come at once; longer ones (a long prompt) take a second message."""
_LENGTH = 8


@dataclass(frozen=True)
class Wire:
    """The processes of a team as one of them sees them: ``headers`` is the group in which they wait
    for each other, ``cards`` the one that tensors on ``device`` go through, None being the default
    one."""

    device: torch.device
    headers: dist.ProcessGroup
    cards: dist.ProcessGroup | None


def send(header: Mapping[str, Any], tensors: Mapping[str, Tensor], wire: Wire) -> None:
    """Send both to all other processes; they are in :func:`receive`."""
    shapes = {
        name: [list(value.shape), str(value.dtype).removeprefix("torch.")]
        for name, value in tensors.items()
    }
    data = json.dumps({**header, "tensors": shapes}).encode()
    whole = len(data).to_bytes(_LENGTH, "little") + data
    first = torch.zeros(_FIRST, dtype=torch.uint8)
    first[: min(len(whole), _FIRST)] = _bytes(whole[:_FIRST])
    dist.broadcast(first, LEADER, group=wire.headers)
    if len(whole) > _FIRST:
        dist.broadcast(_bytes(whole[_FIRST:]), LEADER, group=wire.headers)
    for value in tensors.values():
        dist.broadcast(value.to(wire.device).contiguous(), LEADER, group=wire.cards)


def receive(wire: Wire) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The next header and its tensors, on this process's device; waits for them."""
    first = torch.zeros(_FIRST, dtype=torch.uint8)
    dist.broadcast(first, LEADER, group=wire.headers)
    head = bytes(first.tolist())
    length = int.from_bytes(head[:_LENGTH], "little")
    data = head[_LENGTH : _LENGTH + length]
    if len(data) < length:
        rest = torch.zeros(length - len(data), dtype=torch.uint8)
        dist.broadcast(rest, LEADER, group=wire.headers)
        data += bytes(rest.tolist())
    header = json.loads(data)
    tensors = {}
    for name, (shape, dtype) in header.pop("tensors").items():
        tensors[name] = torch.empty(shape, dtype=getattr(torch, dtype), device=wire.device)
        dist.broadcast(tensors[name], LEADER, group=wire.cards)
    return header, tensors


def all_well(fault: bool, wire: Wire) -> bool:
    """Whether no process reports a fault; all processes must ask."""
    count = torch.tensor([float(fault)])
    dist.all_reduce(count, group=wire.headers)
    return not count.item()


def _bytes(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)
