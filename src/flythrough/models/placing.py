"""Where weights lie: on the device, or in host memory from where layers visit the device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from flythrough.models.wan_codec import Codec


def stream_layers(net: nn.Module, device: torch.device, *, prefetch: bool) -> None:
    """Keep ``net`` in host memory; each layer comes to ``device`` when it runs, and leaves.

    Call it last: adapters that are attached later would stay behind.

    Args:
        prefetch: bring the next layer while one runs. It needs a GPU, and page-locked host memory
            for all weights, which takes a while once.
    """
    from diffusers.hooks.group_offloading import apply_group_offloading

    apply_group_offloading(
        net,
        onload_device=device,
        offload_device=torch.device("cpu"),
        offload_type="leaf_level",
        use_stream=prefetch and device.type == "cuda",
    )


class _PlacedCodec(ABC):
    """A codec whose calls go through :meth:`_call`, which sees to where they run."""

    codec: Codec

    @property
    def latent_channels(self) -> int:
        return self.codec.latent_channels

    @property
    def spatial(self) -> int:
        return self.codec.spatial

    @property
    def temporal(self) -> int:
        return self.codec.temporal

    def encode(self, video: Tensor) -> Tensor:
        return self._call(self.codec.encode, video)

    def encode_still(self, image: Tensor) -> Tensor:
        return self._call(self.codec.encode_still, image)

    def decode(self, latents: Tensor) -> Tensor:
        return self._call(self.codec.decode, latents)

    @abstractmethod
    def _call(self, work: Callable[[Tensor], Tensor], given: Tensor) -> Tensor:
        """``work`` of ``given``."""


class ElsewhereCodec(_PlacedCodec):
    """A codec on a device of its own; what it gives comes to the device that asks."""

    def __init__(self, codec: Codec, there: torch.device, here: torch.device) -> None:
        self.codec, self.there, self._here = codec.to(there), there, here

    def to(self, device: torch.device | str) -> ElsewhereCodec:
        """Give results to another device from now on; the codec stays."""
        self._here = torch.device(device)
        return self

    def _call(self, work: Callable[[Tensor], Tensor], given: Tensor) -> Tensor:
        with current(self.there):
            return work(given.to(self.there)).to(self._here)


def current(device: torch.device) -> AbstractContextManager[object]:
    """Within the block ``device`` is the current GPU, as kernels outside torch expect."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


class VisitingCodec(_PlacedCodec):
    """A codec that lies in host memory and comes to the device for each call."""

    def __init__(self, codec: Codec, device: torch.device) -> None:
        self.codec, self._device = codec, device

    def to(self, device: torch.device | str) -> VisitingCodec:
        """Come to another device from now on."""
        self._device = torch.device(device)
        return self

    def _call(self, work: Callable[[Tensor], Tensor], given: Tensor) -> Tensor:
        self.codec.to(self._device)
        try:
            return work(given)
        finally:
            self.codec.to("cpu")
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
