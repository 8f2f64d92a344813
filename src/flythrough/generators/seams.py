"""Softening the jump where a new chunk begins.

Each chunk is decoded on its own, so its first frame knows nothing of the frame before: detail,
colour and place of what was generated all step there. Earlier chunks are never changed (they may
have been shown already), so the new chunk begins a little nearer to the old one and lets go of it
over its first frames. Only the picture's coarse part is moved: detail stays that of the new chunk.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

FRAMES = 6
"""Frames of the new chunk that are changed."""
GAIN = 0.7
"""Share of the step that is taken away. All of it would carry the old chunk's errors further."""
SIGMA = 1 / 48
"""Width of the Gaussian that tells coarse from fine, as a share of the height ..."""
LEAST_SIGMA = 4.0
"""... and in pixels at least: half a latent, below which detail is the codec's own."""


def softened(video: Tensor, before: Tensor) -> Tensor:
    """``video`` [1,3,T,H,W] in [0,1] with its first frames led over from ``before`` [1,3,n,H,W].

    The border's step is what remains of the difference between the two frames there after motion
    is taken off: half of the last change before the border plus half of the first one behind it,
    which is what the picture would have changed by anyway. Its coarse part is given to the new
    frames with a weight that falls from ``GAIN`` to 0 along half a cosine.

    Needs two frames on either side.
    """
    last, first = before[:, :, -1], video[:, :, 0]
    expected = 0.5 * (last - before[:, :, -2]) + 0.5 * (video[:, :, 1] - first)
    step = blurred(last + expected - first, max(LEAST_SIGMA, SIGMA * video.shape[-2]))
    count = min(FRAMES, video.shape[2])
    phase = torch.arange(count, device=video.device, dtype=video.dtype) / FRAMES
    weight = GAIN * 0.5 * (1 + torch.cos(math.pi * phase))
    led = video[:, :, :count] + step[:, :, None] * weight[:, None, None]
    return torch.cat([led.clamp(0, 1), video[:, :, count:]], dim=2)


def blurred(picture: Tensor, sigma: float) -> Tensor:
    """``picture`` [B,C,H,W] through a Gaussian of ``sigma`` pixels; edges are repeated."""
    radius = max(1, math.ceil(3 * sigma))
    places = torch.arange(-radius, radius + 1, device=picture.device, dtype=picture.dtype)
    kernel = torch.exp(-0.5 * (places / sigma) ** 2)
    kernel = kernel / kernel.sum()
    count, channels, height, width = picture.shape
    planes = picture.reshape(count * channels, 1, height, width)
    padded = functional.pad(planes, (radius, radius, radius, radius), mode="replicate")
    across = functional.conv2d(padded, kernel.view(1, 1, 1, -1))
    return functional.conv2d(across, kernel.view(1, 1, -1, 1)).reshape(picture.shape)
