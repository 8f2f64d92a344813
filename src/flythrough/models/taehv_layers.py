"""Layers of the tiny video autoencoder and the runner that carries their memory through time.

Every layer works on frames folded into the batch with *time outermost*: ``[T * N, C, H, W]``, row
``t * N + n``. A shift by one frame is then a shift by N rows, so the whole clip goes through each
convolution in one call while channels-last storage is kept for any batch size.

A layer that looks across frames takes and returns its memory. Running a clip in one piece and
running it in slices with the memory handed on are therefore one code path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

Memory = Tensor | None
Memories = tuple[Memory, ...]


class TimeLayer(nn.Module):
    """A layer that mixes frames: ``forward(x, batch, memory) -> (y, memory)``.

    ``x`` is [T*N, C, H, W] with ``batch`` N and ``y`` may have another T and C. ``memory`` is None
    at the start of a clip; it is never changed in place.
    """

    forward: Callable[[Tensor, int, Memory], tuple[Tensor, Memory]]


def conv(channels_in: int, channels_out: int, *, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    """3x3 convolution with one pixel of zero padding."""
    return nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=bias)


def _shifted(x: Tensor, batch: int, memory: Memory) -> Tensor:
    """Each frame's predecessor; the one before the first frame is ``memory`` or black."""
    first = torch.zeros_like(x[:batch]) if memory is None else memory.to(x.dtype)
    return torch.cat([first, x[:-batch]])


def _kept(frames: Tensor) -> Tensor:
    """A copy, so that remembering one frame does not keep a whole clip of activations alive."""
    return frames.clone()


class MemBlock(TimeLayer):
    """Residual block that also sees the previous frame's input to the same block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            conv(2 * channels, channels),
            nn.ReLU(inplace=True),
            conv(channels, channels),
            nn.ReLU(inplace=True),
            conv(channels, channels),
        )

    def forward(self, x: Tensor, batch: int, memory: Memory) -> tuple[Tensor, Memory]:
        y = self.conv(torch.cat([x, _shifted(x, batch, memory)], dim=1))
        return y.add_(x).relu_(), _kept(x[-batch:])


class SuperMemBlock(TimeLayer):
    """The "super" decoder's block: 7x7 depthwise filter, then a 4x wide pointwise network."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        double = 2 * channels
        self.conv = nn.Sequential(
            nn.Conv2d(double, double, 7, padding=3, groups=double, bias=False),
            nn.Conv2d(double, 4 * channels, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(4 * channels, channels, 1, bias=False),
        )

    def forward(self, x: Tensor, batch: int, memory: Memory) -> tuple[Tensor, Memory]:
        y = self.conv(torch.cat([x, _shifted(x, batch, memory)], dim=1))
        return y.add_(x), _kept(x[-batch:])


class TPool(TimeLayer):
    """Merges ``stride`` consecutive frames into one: stacked oldest first, then a 1x1 convolution.

    Frames that do not fill a group yet wait in the memory.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(channels * stride, channels, 1, bias=False)

    def forward(self, x: Tensor, batch: int, memory: Memory) -> tuple[Tensor, Memory]:
        if self.stride == 1:
            return self.conv(x), None
        if memory is not None:
            x = torch.cat([memory, x])
        groups = x.shape[0] // (batch * self.stride)
        used = groups * batch * self.stride
        rest = _kept(x[used:]) if used < x.shape[0] else None
        frames = x[:used].reshape(groups, self.stride, batch, *x.shape[1:])
        if groups == 0:
            return x[:0], rest
        merged = torch.cat([frames[:, j].flatten(0, 1) for j in range(self.stride)], dim=1)
        return self.conv(merged), rest


class TGrow(TimeLayer):
    """Splits a frame into ``stride`` frames: a 1x1 convolution whose channel groups are frames."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(channels, channels * stride, 1, bias=False)

    def forward(self, x: Tensor, batch: int, memory: Memory) -> tuple[Tensor, Memory]:
        del memory
        y = self.conv(x)
        return (y if self.stride == 1 else split_frames(y, batch, self.stride)), None


def split_frames(y: Tensor, batch: int, count: int) -> Tensor:
    """[T*N, count*C, H, W] to [T*count*N, C, H, W]; the first channel group is the first frame."""
    height, width = y.shape[-2:]
    pixels = y.permute(0, 2, 3, 1).reshape(-1, batch, height, width, count, y.shape[1] // count)
    frames = pixels.permute(0, 4, 1, 2, 3, 5).flatten(0, 2)
    return frames.permute(0, 3, 1, 2)


class SoftClamp(nn.Module):
    """3 tanh(z / 3): keeps latents inside the range the decoder was made for."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(z / 3) * 3


def run(
    layers: Iterable[nn.Module], x: Tensor, batch: int, memories: Memories | None
) -> tuple[Tensor, Memories]:
    """Send frames ``x`` [T*N, C, H, W] through ``layers``; hand in and get back their memories.

    ``memories`` holds one entry a layer (None for layers without any). If too few frames came in
    to fill a temporal group, the result has zero frames and the rest waits in the memories.
    """
    kept: list[Memory] = []
    for index, layer in enumerate(layers):
        memory = memories[index] if memories is not None else None
        if x.shape[0] == 0:  # nothing got this far: later layers keep what they had
            kept.append(memory)
        elif isinstance(layer, TimeLayer):
            x, memory = layer(x, batch, memory)
            kept.append(memory)
        else:
            x = layer(x)
            kept.append(None)
    return x, tuple(kept)
