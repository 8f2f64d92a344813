"""The Wan 2.1 autoencoder of the published Helios folders, behind the interface of the small codec.

The network is diffusers' ``AutoencoderKLWan``. The denoiser sees its latents normalised per channel
(Helios section 1.5): (z - mean) / std.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from flythrough.disk import read_json
from flythrough.errors import InputError, WeightsError
from flythrough.models.codec import VideoCodec, load_codec
from flythrough.models.taehv import TAEHV

CLASS_NAME = "AutoencoderKLWan"
_STILL_FRAMES = 33


class Codec(Protocol):
    """What generators ask of a codec: video [B,3,T,H,W] in [0,1], T = 4k + 1, and normalised
    latents [B,C,k+1,h,w], both float32."""

    @property
    def latent_channels(self) -> int: ...

    @property
    def spatial(self) -> int:
        """Pixels along an axis that one latent pixel covers."""
        ...

    @property
    def temporal(self) -> int:
        """Frames that a latent covers (all but the first)."""
        ...

    def encode(self, video: Tensor) -> Tensor: ...

    def encode_still(self, image: Tensor) -> Tensor:
        """The latent [B,C,1,h,w] in which a long still of ``image`` [B,3,1,H,W] settles."""
        ...

    def decode(self, latents: Tensor) -> Tensor: ...

    def to(self, device: torch.device | str) -> Codec:
        """Move the network (in place) and return the codec."""
        ...


class WanCodec:
    """Encoding takes the posterior's mean; the published pipelines draw a sample from it."""

    def __init__(self, net: Any) -> None:
        self.net: Any = net
        config = net.config
        shape = (1, config.z_dim, 1, 1, 1)
        self._mean = torch.tensor(config.latents_mean).view(shape)
        self._std = torch.tensor(config.latents_std).view(shape)

    @property
    def latent_channels(self) -> int:
        return int(self.net.config.z_dim)

    @property
    def spatial(self) -> int:
        return int(self.net.config.scale_factor_spatial)

    @property
    def temporal(self) -> int:
        return int(self.net.config.scale_factor_temporal)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.net.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights and of the arithmetic."""
        return next(self.net.parameters()).dtype

    def to(self, device: torch.device | str) -> WanCodec:
        """Move the network (in place) and return this codec."""
        self.net.to(device)
        return self

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        """Video [B,3,T,H,W] in [0,1] to latents [B,16,(T-1)/4+1,H/8,W/8].

        Raises:
            InputError: T is not one more than a multiple of 4.
        """
        if video.ndim != 5 or (video.shape[2] - 1) % self.temporal:
            raise InputError(
                f"video of shape {tuple(video.shape)} cannot be encoded; it must be "
                f"[B, 3, T, H, W] with T one more than a multiple of {self.temporal}, so cut or "
                "repeat frames."
            )
        latents = self._mode((video * 2 - 1).to(self.device, self.dtype))
        return (latents - self._mean.to(latents)) / self._std.to(latents)

    def encode_still(self, image: Tensor) -> Tensor:
        """The last latent of ``image`` [B,3,1,H,W] held for 33 frames."""
        return self.encode(image.expand(-1, -1, _STILL_FRAMES, -1, -1))[:, :, -1:]

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B,16,L,h,w] to video [B,3,4L-3,8h,8w] in [0,1]."""
        given = latents.to(self.device)
        video = self._frames(given * self._std.to(given) + self._mean.to(given))
        return (video.float() / 2 + 0.5).clamp(0, 1)

    def _mode(self, pixels: Tensor) -> Tensor:
        """Pixels in [-1,1] to the mean of the posterior, float32, not normalised."""
        found: Tensor = self.net.encode(pixels).latent_dist.mode()
        return found.float()

    def _frames(self, raw: Tensor) -> Tensor:
        """Latents that are not normalised to pixels in [-1,1]."""
        found: Tensor = self.net.decode(raw.to(self.dtype), return_dict=False)[0]
        return found


def wan_codec(net: Any, dtype: torch.dtype) -> WanCodec:
    """The codec around diffusers' autoencoder: in float32 as it is, in half precision the fast one,
    or the same layers in that type where the fast one cannot stand for them."""
    from flythrough.models.fast.wan_codec import FastWanCodec
    from flythrough.models.fast.wan_network import why_not_codec

    if dtype == torch.float32 or why_not_codec(net) is not None:
        return WanCodec(torch.nn.Module.to(net, dtype))
    return FastWanCodec(net, dtype)


def codec_of(net: Any, dtype: torch.dtype = torch.float32) -> VideoCodec | WanCodec:
    """The codec around a network of either kind, whose weights are of ``dtype``."""
    return VideoCodec(net) if isinstance(net, TAEHV) else wan_codec(net, dtype)


def load_any_codec(folder: Path, device: torch.device, dtype: torch.dtype = torch.float32) -> Codec:
    """The codec of a model folder, computing in ``dtype``: the small one, or the Wan autoencoder of
    the published ones.

    Raises:
        WeightsError: files are missing, unreadable or of another kind.
    """
    config = folder / "config.json"
    try:
        kind = read_json(config).get("_class_name")
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(f"{config} cannot be read ({error}); restore the file.") from error
    if kind != CLASS_NAME:
        return load_codec(folder, dtype=dtype).to(device)
    from diffusers import AutoencoderKLWan

    try:
        net = AutoencoderKLWan.from_pretrained(
            folder, torch_dtype=torch.float32, local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"The video codec in {folder} cannot be loaded ({' '.join(str(error).split())[:200]}); "
            "check the folder or download it again."
        ) from error
    return wan_codec(net.eval().requires_grad_(False), dtype).to(device)
