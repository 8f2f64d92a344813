"""Causal convolutions of the Wan codec over many frames at once, and what flows between layers.

diffusers feeds one latent at a time and keeps the last frames of every convolution's input. Here a
pass takes any number of latents; what the next pass needs is kept in ``Carried`` under each layer.
Frames are [B,T,H,W,C], channels last in storage; zeros lie before the first frame.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from flythrough.models.fast.wan_passes import WanPasses

_TILE = 16
"""Channels that convolution kernels like to have a multiple of."""


@dataclass
class Carried:
    """The last frames before a pass, by layer; ``more``: another pass follows this one."""

    frames: dict[nn.Module, Tensor] = field(default_factory=dict)
    more: bool = False

    def keep(self, layer: nn.Module, frames: Tensor) -> None:
        """Remember ``frames`` for the next pass, if there is one."""
        if self.more:
            self.frames[layer] = frames.clone()
        else:
            self.frames.pop(layer, None)


@dataclass
class Flow:
    """What goes from layer to layer: ``stream`` and an ``update`` with ``bias`` that is still to be
    added to it, because the next layer does so on its way."""

    update: Tensor | None
    bias: Tensor | None
    stream: Tensor | None = None
    doubled: bool = False


@dataclass(frozen=True)
class Tools:
    """How layers compute: the work between convolutions, and up to how many channels a causal
    convolution takes three frames side by side as one picture of three times the channels."""

    passes: WanPasses
    folded: int


class Layer(nn.Module):
    """A layer with weights of its own, copied from one of diffusers'."""

    tools: Tools

    def store(self, name: str, value: Tensor, dtype: torch.dtype) -> None:
        """``value`` in ``dtype`` as a buffer; kernels of convolutions with channels last."""
        value = value.detach().to(dtype)
        if value.ndim == 5:
            value = value.contiguous(memory_format=torch.channels_last_3d)
        elif value.ndim == 4:
            value = value.contiguous(memory_format=torch.channels_last)
        self.register_buffer(name, value)


class Norm(Layer):
    """The gain of an RMS norm over channels."""

    gain: Tensor

    def __init__(self, norm: Any) -> None:
        super().__init__()
        gamma = norm.gamma.detach().flatten().float()
        self.store("gain", gamma * gamma.numel() ** 0.5, torch.float32)


class Padded(Layer):
    """A causal convolution whose input is written into ``room`` by whoever makes it."""

    width: int

    @property
    def folds(self) -> bool:
        """Whether three frames lie side by side."""
        return False

    def room(self, like: Tensor, shape: torch.Size, carried: Carried) -> tuple[Tensor, Tensor]:
        """(buffer, the part of it to write [B,T,H,W,C or 3C]) for frames of ``shape`` [B,T,H,W]."""
        batch, frames, height, width = shape
        before = carried.frames.get(self)
        if not self.folds:
            buffer = like.new_empty(batch, frames + 2, height, width, self.width)
            put(buffer[:, :2], before)
            return buffer, buffer[:, 2:]
        buffer = like.new_empty(batch, frames, height, width, 3 * self.width)
        oldest, middle, _ = buffer.split(self.width, dim=-1)
        put(middle[:, :1], None if before is None else before[:, 1:])
        put(oldest[:, :2], None if before is None else before[:, :frames])
        return buffer, buffer


class CausalConv(Padded):
    """A 3x3x3 convolution that sees no later frame; its bias is left to whoever reads on."""

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.width = int(conv.weight.shape[1])
        self.store("weight", conv.weight, dtype)
        self.store("bias", conv.bias, torch.float32)
        self._side_by_side: Tensor | None = None

    @property
    def folds(self) -> bool:
        return self.width <= self.tools.folded

    def forward(self, buffer: Tensor, carried: Carried) -> Tensor:
        """[B,T,H,W,out] without bias from a filled buffer."""
        if not self.folds:
            carried.keep(self, buffer[:, -2:])
            made = functional.conv3d(channels_first(buffer), self.weight, padding=(0, 1, 1))
            return frames_last(made)
        _, middle, newest = buffer.split(self.width, dim=-1)
        carried.keep(self, torch.cat([middle[:, -1:], newest[:, -1:]], dim=1))
        return pictures(buffer, self._folded_weight(), padding=1)

    def _folded_weight(self) -> Tensor:
        kernel = self._side_by_side
        if kernel is None or kernel.device != self.weight.device:
            kernel = self.weight.permute(0, 2, 1, 3, 4).flatten(1, 2)  # [out, 3 in, 3, 3]
            kernel = kernel.contiguous(memory_format=torch.channels_last)
            self._side_by_side = kernel
        return kernel


class ConvIn(Layer):
    """The first convolution, of few channels: three frames side by side, filled up with zeros."""

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: Any, dtype: torch.dtype) -> None:
        super().__init__()
        kernel = conv.weight.detach().permute(0, 2, 1, 3, 4).flatten(1, 2)
        self.spare = -kernel.shape[1] % _TILE
        self.store("weight", functional.pad(kernel, (0, 0, 0, 0, 0, self.spare)), dtype)
        self.store("bias", conv.bias, torch.float32)

    def forward(self, frames: Tensor, carried: Carried) -> Flow:
        before = carried.frames.get(self)
        if before is None:
            before = torch.zeros_like(frames[:, :1]).expand(-1, 2, -1, -1, -1)
        joined = torch.cat([before, frames], dim=1)
        carried.keep(self, joined[:, -2:])
        count = frames.shape[1]
        parts = [joined[:, back : back + count] for back in range(3)]
        if self.spare:
            parts.append(frames.new_zeros(*frames.shape[:-1], self.spare))
        return Flow(pictures(torch.cat(parts, dim=-1), self.weight, padding=1), self.bias)


class ConvOut(Padded):
    """The norm and the last convolution, to few channels: each tap in time is a picture of its own,
    and the three are added one frame apart."""

    weight: Tensor
    bias: Tensor

    def __init__(self, norm: Any, conv: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.norm = Norm(norm)
        self.width, self.outputs = int(conv.weight.shape[1]), int(conv.weight.shape[0])
        kernel = conv.weight.detach().transpose(1, 2).transpose(0, 1).flatten(0, 1)
        kernel = functional.pad(kernel, (0, 0) * 3 + (0, -kernel.shape[0] % _TILE))
        self.store("weight", kernel, dtype)
        self.store("bias", conv.bias, torch.float32)

    def forward(self, flow: Flow, carried: Carried) -> Tensor:
        """[B,T,H,W,outputs] float32."""
        stream, room = entered(flow, self.norm, self, self.tools, carried)
        frames = stream.shape[1]
        del stream
        carried.keep(self, room[:, -2:])
        taps = pictures(room, self.weight, padding=1)
        del room
        found = self.bias
        for back in range(3):
            part = slice(back * self.outputs, (back + 1) * self.outputs)
            found = taps[:, back : back + frames, ..., part].float() + found
        return found


def settled(flow: Flow, passes: WanPasses) -> Tensor:
    """The stream with its update added; ``flow`` gives up both."""
    return _joined(flow, passes, None, None)


def entered(
    flow: Flow, norm: Norm, conv: Padded, tools: Tools, carried: Carried
) -> tuple[Tensor, Tensor]:
    """(the settled stream, the filled buffer of ``conv``); ``flow`` gives up its tensors."""
    update = flow.update
    assert update is not None
    batch, frames, height, width, _ = update.shape
    if flow.doubled:
        height, width = 2 * height - 2, 2 * width - 2
    buffer, place = conv.room(update, torch.Size((batch, frames, height, width)), carried)
    del update
    return _joined(flow, tools.passes, norm.gain, place), buffer


def _joined(flow: Flow, passes: WanPasses, gain: Tensor | None, place: Tensor | None) -> Tensor:
    update, stream = flow.update, flow.stream
    assert update is not None
    flow.update = flow.stream = None
    target = stream if stream is not None else update
    if flow.doubled:
        batch, frames, height, width, parts = update.shape
        target = update.new_empty(batch, frames, 2 * height - 2, 2 * width - 2, parts // 4)
    changed = flow.bias is not None or stream is not None or flow.doubled
    if changed or gain is not None:
        written = target if changed else None
        passes.join(update, flow.bias, stream, gain, place, target=written, doubled=flow.doubled)
    return target


def pictures(frames: Tensor, weight: Tensor, *, padding: int = 0, stride: int = 1) -> Tensor:
    """A convolution of every frame: [B,T,H,W,C] -> [B,T,h,w,out]."""
    flat = frames.flatten(0, 1).permute(0, 3, 1, 2)
    made = functional.conv2d(flat, weight, padding=padding, stride=stride)
    return made.permute(0, 2, 3, 1).contiguous().unflatten(0, frames.shape[:2])


def channels_first(frames: Tensor) -> Tensor:
    """A view [B,C,T,H,W] with channels last in storage."""
    return frames.permute(0, 4, 1, 2, 3)


def frames_last(made: Tensor) -> Tensor:
    """[B,C,T,H,W] -> [B,T,H,W,C], a view where channels are last in storage."""
    return made.permute(0, 2, 3, 4, 1).contiguous()


def put(place: Tensor, frames: Tensor | None) -> None:
    if frames is None:
        place.zero_()
    else:
        place.copy_(frames)
