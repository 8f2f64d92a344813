"""Training material for the denoiser: a rolling store of encoded clips on the device.

World clips are rendered, encoded chunk by chunk exactly as at inference (each 33-frame window on
its own) and kept for a few steps, so that rendering never holds up the network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from flythrough.models.codec import VideoCodec

CHUNK = 33


@dataclass(frozen=True, eq=False)
class EncodedClips:
    """Latents of N clips of C chunks.

    ``prefix`` [N,16,1,h,w] (first frame), ``steady`` [N,16,1,h,w] (first frame held still),
    ``chunks`` [N,C,16,9,h,w], ``tokens`` int64 [N,L] with ``mask`` [N,L] (captions), and for camera
    training ``warps`` [N,C,16,9,h,w] with ``visible`` [N,C,9,h,w], else None.
    """

    prefix: Tensor
    steady: Tensor
    chunks: Tensor
    tokens: Tensor
    mask: Tensor
    warps: Tensor | None = None
    visible: Tensor | None = None

    def fields(self) -> dict[str, Tensor]:
        """The tensors that are present, by name."""
        return {k: v for k, v in vars(self).items() if v is not None}

    def picked(self, index: Tensor) -> EncodedClips:
        """The clips at ``index`` [n]."""
        return EncodedClips(**{k: v[index] for k, v in self.fields().items()})


def encode_chunks(codec: VideoCodec, video: Tensor) -> Tensor:
    """Video [N,3,33 C,H,W] in [0,1] -> [N,C,16,9,h,w], every chunk encoded on its own."""
    count = video.shape[2] // CHUNK
    windows = [codec.encode(video[:, :, CHUNK * i : CHUNK * (i + 1)]) for i in range(count)]
    return torch.stack(windows, dim=1)


class Storable(Protocol):
    """A value whose tensors share their first axis, the clips."""

    def fields(self) -> dict[str, Tensor]: ...


Clips = TypeVar("Clips", bound=Storable)
Refill = Callable[[int, int], EncodedClips]
"""(number, rank) -> freshly encoded clips, always as many, a function of both numbers."""


class LatentStore(Generic[Clips]):
    """A ring of encoded clips; the newest overwrite the oldest.

    Args:
        capacity: most clips that are kept.
        make: builds what :meth:`draw` gives from its tensors by name.
    """

    def __init__(self, capacity: int, make: Callable[..., Clips]) -> None:
        self.capacity, self.make = capacity, make
        self.size = 0
        self._next = 0
        self._ring: dict[str, Tensor] = {}

    def add(self, clips: Clips, place: int | None = None) -> None:
        """Put clips into the ring, from ``place`` on if given."""
        if place is not None:
            self._next = place % self.capacity
        for name, values in clips.fields().items():
            if name not in self._ring:
                shape = (self.capacity, *values.shape[1:])
                dtype = torch.float16 if values.is_floating_point() else values.dtype
                self._ring[name] = torch.zeros(shape, dtype=dtype, device=values.device)
            count = len(values)
            index = (self._next + torch.arange(count, device=values.device)) % self.capacity
            self._ring[name][index] = values.to(self._ring[name].dtype)
        self._next = (self._next + count) % self.capacity
        self.size = min(self.capacity, self.size + count)

    def draw(self, batch: int, generator: torch.Generator) -> Clips:
        """``batch`` clips drawn with replacement, floats as float32."""
        device = next(iter(self._ring.values())).device
        index = torch.randint(self.size, (batch,), generator=generator, device=generator.device)
        index = index.to(device)
        picked = {name: ring[index] for name, ring in self._ring.items()}
        return self.make(
            **{k: v.float() if v.is_floating_point() else v for k, v in picked.items()}
        )
