"""Every random number of a published warp-led run, by the purpose it serves.

The published pipeline draws all of them from one generator, in one order; the project asks for
each by its purpose. Marks in the published stream bridge the two, whatever order the project asks
in.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor

from flythrough.conditioning.condition_noise import draw_condition_noise
from flythrough.models.loading import LoadedModel
from flythrough.models.wan_codec import WanCodec
from flythrough.sampling.noise import reference_block_noise

Purpose = tuple[str | int, ...]
GAMMA = 1 / 3
STAGES = 3


class PublishedStream:
    """The generator's state at the start of every draw of a run of ``chunks`` chunks.

    Args:
        size: (h, w) of the latents.
        warp_noise, image_noise: as in the published call; each shifts what follows.
    """

    def __init__(
        self,
        seed: int,
        size: tuple[int, int],
        chunks: int,
        *,
        warp_noise: bool = True,
        image_noise: bool = False,
    ) -> None:
        self._source = torch.Generator().manual_seed(seed)
        self._marks: dict[Purpose, torch.Generator] = {}
        one, chunk = (1, 16, 1, *size), (1, 16, 9, *size)
        self._normal(("photo",), one)
        self._normal(("still",), chunk)
        if image_noise:
            self._condition(("prefix-noise",), one)
            self._condition(("condition-noise", 0), one)
        for k in range(chunks):
            self._normal((k, "start-noise"), chunk)
            if k == 0 and warp_noise and not image_noise:
                self._condition(("prefix-noise",), one)
            self._normal((k, "first frame, unused"), one)
            self._normal((k, "warp"), chunk)
            if warp_noise:
                self._condition((k, "warp-noise"), chunk)
            for stage in range(1, STAGES):
                factor = 2 ** (STAGES - 1 - stage)
                shape = (1, 16, 9, size[0] // factor, size[1] // factor)
                self._mark((k, "block-noise", stage))
                reference_block_noise(shape, self._source, GAMMA)

    def generator(self, _seed: int, *purpose: str | int) -> torch.Generator:
        """Stands for ``seeds.generator``."""
        return self._marks[purpose].clone_state()

    def _mark(self, purpose: Purpose) -> None:
        self._marks[purpose] = self._source.clone_state()

    def _normal(self, purpose: Purpose, shape: tuple[int, ...]) -> None:
        self._mark(purpose)
        torch.randn(shape, generator=self._source)

    def _condition(self, purpose: Purpose, shape: tuple[int, ...]) -> None:
        self._mark(purpose)
        draw_condition_noise(shape, self._source)


class SampledCodec(WanCodec):
    """Draws latents from the posterior as published: of the photo, the still, chunk after chunk."""

    def __init__(self, codec: WanCodec, stream: PublishedStream, patch: pytest.MonkeyPatch) -> None:
        super().__init__(codec.net)
        self._stream, self._warps, self._still = stream, 0, False
        self._drawn: torch.Generator | None = None
        patch.setattr(
            DiagonalGaussianDistribution, "mode", lambda posterior: posterior.sample(self._drawn)
        )

    def encode(self, video: Tensor) -> Tensor:
        purpose: Purpose = ("photo",) if video.shape[2] == 1 else (self._warps, "warp")
        if self._still:
            purpose = ("still",)
        self._warps += purpose[-1] == "warp"
        self._drawn = self._stream.generator(0, *purpose)
        return super().encode(video)

    def encode_still(self, image: Tensor) -> Tensor:
        self._still = True
        latents = super().encode_still(image)
        self._still = False
        return latents


def sampling_model(
    model: LoadedModel, stream: PublishedStream, patch: pytest.MonkeyPatch
) -> LoadedModel:
    """``model`` with a codec that draws from ``stream``."""
    assert isinstance(model.codec, WanCodec)
    return replace(model, codec=SampledCodec(model.codec, stream, patch))
