"""The published run, replayed: its tiny codec, its conversions and its order of random draws."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor

from flythrough.conditioning.condition_noise import CONDITION_SIGMAS, draw_condition_noise, noised
from flythrough.conditioning.visibility import visibility_to_latent

GOLDEN = Path(__file__).parents[1] / "golden"
CHUNK = 33


@cache
def codec() -> AutoencoderKLWan:
    made = AutoencoderKLWan.from_pretrained(GOLDEN / "history" / "vae")
    made.requires_grad_(requires_grad=False)
    return made.eval()


@cache
def posterior(video: bytes, shape: tuple[int, ...]) -> DiagonalGaussianDistribution:
    """Kept per video, since many variants of one run encode the same."""
    pixels = torch.frombuffer(bytearray(video), dtype=torch.float32).view(shape)
    return codec().encode(pixels).latent_dist


def encode(video: Tensor, source: torch.Generator) -> Tensor:
    """[1,3,T,H,W] in [-1,1] -> normalised latents, sampled from the posterior."""
    config = codec().config
    mean = torch.tensor(config.latents_mean).view(1, -1, 1, 1, 1)
    deviation = torch.tensor(config.latents_std).view(1, -1, 1, 1, 1)
    drawn = posterior(video.contiguous().numpy().tobytes(), tuple(video.shape)).sample(source)
    return (drawn - mean) * (1 / deviation)


def pictures(frames: np.ndarray) -> Tensor:
    """8-bit [T,H,W,3] -> [1,3,T,H,W] in [-1,1]."""
    return (torch.from_numpy(frames).float() / 255 * 2 - 1).permute(3, 0, 1, 2)[None]


def visibility(mask: np.ndarray, size: tuple[int, int]) -> Tensor:
    """8-bit [T,H,W] -> [1,9,h,w]."""
    return visibility_to_latent(torch.from_numpy(mask).float()[None] / 255, size)


@dataclass
class PublishedDraws:
    """Conditions in the order in which the published pipeline draws them from one generator."""

    source: torch.Generator
    warp_noise: bool = True
    image_noise: bool = False
    sigmas: tuple[float, float] = CONDITION_SIGMAS
    clean_image: Tensor = field(init=False)
    image: Tensor = field(init=False)
    still: Tensor = field(init=False)
    _prefix: Tensor | None = field(init=False, default=None)

    def start(self, image: np.ndarray) -> None:
        """Encode the photo alone and held still for a chunk; noise both if asked to."""
        still = pictures(image[None])
        self.clean_image = encode(still, self.source)
        self.image = self.clean_image
        self.still = encode(still.repeat(1, 1, CHUNK, 1, 1), self.source)[:, :, -1:]
        if self.image_noise:
            self.image = self._noised(self.image, CONDITION_SIGMAS)
            self.still = self._noised(self.still, CONDITION_SIGMAS)

    def prefix(self) -> Tensor:
        """The anchor of the warped history: noised once, in the first chunk."""
        if self._prefix is None:
            noisy = self.warp_noise and not self.image_noise
            self._prefix = self._noised(self.image, self.sigmas) if noisy else self.image
        return self._prefix

    def warp(self, frames: np.ndarray) -> Tensor:
        """Encode a chunk's warp, after the encoding of its first frame that nobody uses."""
        video = pictures(frames)
        encode(video[:, :, :1], self.source)
        latents = encode(video, self.source)
        return self._noised(latents, self.sigmas) if self.warp_noise else latents

    def _noised(self, latents: Tensor, sigmas: tuple[float, float]) -> Tensor:
        sigma, noise = draw_condition_noise(latents.shape, self.source, sigmas)
        return noised(latents, sigma, noise)
