"""Residual blocks, attention and resamplers of the Wan codec, with diffusers' numbers.

The temporal upsampler passes the video's first frame through, and to its convolution nothing came
before the second one. The temporal downsampler passes the first frame through too, and its
convolution begins with that frame.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from flythrough.models.fast.wan_convolutions import (
    Carried,
    CausalConv,
    Flow,
    Layer,
    Norm,
    channels_first,
    entered,
    frames_last,
    pictures,
    put,
    settled,
)


class ResBlock(Layer):
    """Norm, SiLU, convolution, twice, beside a shortcut."""

    shortcut: Tensor | None
    last_bias: Tensor

    def __init__(self, block: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.norm1, self.norm2 = Norm(block.norm1), Norm(block.norm2)
        self.conv1, self.conv2 = CausalConv(block.conv1, dtype), CausalConv(block.conv2, dtype)
        bias = block.conv2.bias.detach()
        if isinstance(block.conv_shortcut, nn.Identity):
            self.shortcut = None
        else:
            self.store("shortcut", block.conv_shortcut.weight.flatten(1), dtype)
            bias = bias.float() + block.conv_shortcut.bias.detach().float()
        self.store("last_bias", bias, torch.float32)

    def forward(self, flow: Flow, carried: Carried) -> Flow:
        stream, room = entered(flow, self.norm1, self.conv1, self.tools, carried)
        inner = self.conv1(room, carried)
        del room
        if self.shortcut is not None:
            stream = functional.linear(stream, self.shortcut)
        room, place = self.conv2.room(inner, inner.shape[:4], carried)
        self.tools.passes.join(inner, self.conv1.bias, None, self.norm2.gain, place)
        del inner
        return Flow(self.conv2(room, carried), self.last_bias, stream)


class Attention(Layer):
    """One head over the pixels of each frame."""

    into: Tensor
    into_bias: Tensor
    out: Tensor
    out_bias: Tensor

    def __init__(self, block: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.norm = Norm(block.norm)
        self.store("into", block.to_qkv.weight.flatten(1), dtype)
        self.store("into_bias", block.to_qkv.bias, dtype)
        self.store("out", block.proj.weight.flatten(1), dtype)
        self.store("out_bias", block.proj.bias, torch.float32)

    def forward(self, flow: Flow, carried: Carried) -> Flow:
        del carried
        stream = settled(flow, self.tools.passes)
        normed = torch.empty_like(stream)
        self.tools.passes.join(stream, None, None, self.norm.gain, normed, silu=False)
        tokens = normed.flatten(0, 1).flatten(1, 2)[:, None]  # [BT,1,HW,C]
        query, key, value = functional.linear(tokens, self.into, self.into_bias).chunk(3, dim=-1)
        seen = functional.scaled_dot_product_attention(query, key, value)
        update = functional.linear(seen, self.out).view(stream.shape)
        return Flow(update, self.out_bias, stream)


class TimeUp(Layer):
    """Every frame but the video's first becomes two."""

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.store("weight", conv.weight, dtype)
        self.store("bias", conv.bias, dtype)

    def forward(self, stream: Tensor, carried: Carried) -> Tensor:
        before = carried.frames.get(self)
        lead = 1 if before is None else 0
        rest = stream[:, lead:]
        batch, frames, *size = rest.shape
        buffer = stream.new_empty(batch, frames + 2, *size)
        put(buffer[:, :2], before)
        buffer[:, 2:] = rest
        carried.keep(self, buffer[:, -2:])
        if frames == 0:
            return stream
        made = functional.conv3d(channels_first(buffer), self.weight, self.bias)
        pairs = frames_last(made).unflatten(-1, (2, -1)).movedim(-2, 2)  # [B,T,2,H,W,C]
        found = stream.new_empty(batch, lead + 2 * frames, *size)
        found[:, :lead] = stream[:, :lead]
        found[:, lead:].unflatten(1, (frames, 2)).copy_(pairs)
        return found


class Upsample(Layer):
    """Twice the height and width by repeating pixels, then a 3x3 convolution.

    A repeated pixel is read by several taps, so that each of the four pixels that come from one
    place sees 2x2 different pixels under sums of the kernel's weights: four 2x2 kernels in one
    convolution of the small frames, 4/9 of the products, and no enlarged copy.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, resample: Any, dtype: torch.dtype) -> None:
        super().__init__()
        conv = resample.resample[1]
        self.time = TimeUp(resample.time_conv, dtype) if resample.mode == "upsample3d" else None
        self.store("weight", _four_kernels(conv.weight.detach().float()), dtype)
        self.store("bias", conv.bias, torch.float32)

    def forward(self, flow: Flow, carried: Carried) -> Flow:
        stream = settled(flow, self.tools.passes)
        if self.time is not None:
            stream = self.time(stream, carried)
        return Flow(pictures(stream, self.weight, padding=1), self.bias, doubled=True)


class TimeDown(Layer):
    """Every two frames behind the video's first become one."""

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.store("weight", conv.weight, dtype)
        self.store("bias", conv.bias, dtype)

    def forward(self, stream: Tensor, carried: Carried) -> Tensor:
        before = carried.frames.get(self)
        carried.keep(self, stream[:, -1:])
        given = stream if before is None else torch.cat([before, stream], dim=1)
        lead = 1 if before is None else 0
        if given.shape[1] < 3:
            return stream[:, :lead]
        made = functional.conv3d(channels_first(given), self.weight, self.bias, stride=(2, 1, 1))
        made = frames_last(made)
        return torch.cat([stream[:, :lead], made], dim=1) if lead else made


class Downsample(Layer):
    """Half the height and width by a 3x3 convolution, and half the frames where the block does."""

    weight: Tensor
    bias: Tensor

    def __init__(self, resample: Any, dtype: torch.dtype) -> None:
        super().__init__()
        conv = resample.resample[1]
        self.time = TimeDown(resample.time_conv, dtype) if resample.mode == "downsample3d" else None
        self.store("weight", conv.weight, dtype)
        self.store("bias", conv.bias, torch.float32)

    def forward(self, flow: Flow, carried: Carried) -> Flow:
        stream = settled(flow, self.tools.passes)
        stream = functional.pad(stream, (0, 0, 0, 1, 0, 1))
        stream = pictures(stream, self.weight, stride=2)
        if self.time is None:
            return Flow(stream, self.bias)
        self.tools.passes.join(stream, self.bias, None, None, None, target=stream)
        return Flow(self.time(stream, carried), None)


def _four_kernels(kernel: Tensor) -> Tensor:
    """[out,in,3,3] -> [4 out,in,2,2]: for the upper and lower, left and right pixel of a place."""
    upper = torch.stack([kernel[:, :, 0], kernel[:, :, 1] + kernel[:, :, 2]], dim=2)
    lower = torch.stack([kernel[:, :, 0] + kernel[:, :, 1], kernel[:, :, 2]], dim=2)
    found = []
    for rows in (upper, lower):
        left = torch.stack([rows[..., 0], rows[..., 1] + rows[..., 2]], dim=-1)
        right = torch.stack([rows[..., 0] + rows[..., 1], rows[..., 2]], dim=-1)
        found += [left, right]
    return torch.cat(found)
