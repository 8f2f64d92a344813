"""The Wan autoencoder in half precision, many latents at a time: the fast twin of ``WanCodec``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from flythrough.models.fast.settings import CodecSettings
from flythrough.models.fast.wan_convolutions import Carried, Tools
from flythrough.models.fast.wan_network import FastDecoder, FastEncoder, equip, why_not_codec
from flythrough.models.fast.wan_passes import choose_passes
from flythrough.models.wan_codec import WanCodec

_LARGEST = 2**30
"""Values of the largest tensor that a convolution over space and time sees; libraries count up to
2^31 and one needs room beside. Folded frames are three times as many, but a batch of pictures,
which libraries cut."""
_FOLDED, _UNFOLDED = 5, 3
"""Tensors of full height, width and least channels that are alive at once: the stream, a
convolution's input (three frames of each side by side if folded) and its result."""
_CARRIED = 27
"""Frames of that size that all layers together keep for the next pass."""
_SHARE = 8
"""A pass may take one part in so many of the device's memory."""
_LEAST = 2 << 30


class FastWanCodec(WanCodec):
    """The interface of :class:`WanCodec` over the weights of the same network.

    Nothing of ``net`` is kept but a copy of its weights in ``dtype``. Passes are cut by the
    size of the frames and the device's memory alone, so that they do not depend on what else runs.

    Args:
        net: diffusers' ``AutoencoderKLWan``, one that ``why_not_codec`` has nothing against.

    Attributes:
        card_bytes: memory of the GPU that a network without memory of its own is planned for; None:
            of the one that is here.
    """

    card_bytes: int | None = None

    def __init__(self, net: Any, dtype: torch.dtype, settings: CodecSettings | None = None) -> None:
        super().__init__(net)
        assert why_not_codec(net) is None
        self.settings = settings or CodecSettings()
        self.width = int(net.config.base_dim)
        self.config = net.config
        self.net = nn.ModuleDict(
            {"encoder": FastEncoder(net, dtype), "decoder": FastDecoder(net, dtype)}
        ).eval()
        self._dtype = dtype
        self._equip()

    @property
    def latent_channels(self) -> int:
        return int(self.config.z_dim)

    @property
    def spatial(self) -> int:
        return int(self.config.scale_factor_spatial)

    @property
    def temporal(self) -> int:
        return int(self.config.scale_factor_temporal)

    @property
    def dtype(self) -> torch.dtype:
        return self._dtype

    @property
    def device(self) -> torch.device:
        return next(self.net.buffers()).device

    def to(self, device: torch.device | str) -> FastWanCodec:
        """Move the weights and return this codec."""
        self.net.to(device)
        self._equip()
        return self

    def latents_per_pass(self, height: int, width: int) -> int:
        """How many latents of a video of this size go through together."""
        if self.settings.latents_per_pass is not None:
            return self.settings.latents_per_pass
        frame = self.width * height * width
        alive = _FOLDED if self.width <= self.settings.folded else _UNFOLDED
        room = (self._budget() / (frame * self.dtype.itemsize) - _CARRIED) / alive
        return max(1, int(min(room, _LARGEST / frame - 2) // self.temporal))

    def _budget(self) -> float:
        if self.card_bytes is not None:
            return max(_LEAST, self.card_bytes / _SHARE)
        if self.device.type == "cuda" or (self.device.type == "meta" and torch.cuda.is_available()):
            device = self.device if self.device.type == "cuda" else torch.device("cuda")
            total = torch.cuda.get_device_properties(device).total_memory
            return max(_LEAST, total / _SHARE)
        return _LEAST

    def _equip(self) -> None:
        passes = choose_passes(self.settings.kernels, self.device)
        equip(self.net, Tools(passes, self.settings.folded))

    def _mode(self, pixels: Tensor) -> Tensor:
        count = self.temporal * self.latents_per_pass(*pixels.shape[-2:])
        rest = pixels[:, :, count - self.temporal + 1 :]
        pieces = [pixels[:, :, : count - self.temporal + 1]]
        return self._passes(self.net["encoder"], pieces + _cut(rest, count))

    def _frames(self, raw: Tensor) -> Tensor:
        height, width = (side * self.spatial for side in raw.shape[-2:])
        pieces = _cut(raw, self.latents_per_pass(height, width))
        return self._passes(self.net["decoder"], pieces).clamp_(-1, 1)

    def _passes(self, net: nn.Module, pieces: list[Tensor]) -> Tensor:
        carried, found = Carried(), []
        for number, piece in enumerate(pieces):
            carried.more = number + 1 < len(pieces)
            found.append(net(piece, carried))
        return found[0] if len(found) == 1 else torch.cat(found, dim=2)


def _cut(x: Tensor, count: int) -> list[Tensor]:
    """``x`` [B,C,T,...] in parts of ``count``; none of an empty one."""
    return list(x.split(count, dim=2)) if x.shape[2] else []
