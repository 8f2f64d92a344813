"""Differentiable picture losses: gradients, detail, multi-scale SSIM (Wang et al. 2003)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_C1, _C2 = 0.01**2, 0.03**2
_DETAIL_FLOOR = 0.01  # less structure than this is noise


def gradient_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute difference of horizontal and vertical finite differences; [N,3,H,W]."""
    across = (predicted.diff(dim=-1) - truth.diff(dim=-1)).abs().mean()
    down = (predicted.diff(dim=-2) - truth.diff(dim=-2)).abs().mean()
    return across + down


def _fine_structure(images: Tensor) -> Tensor:
    """|Laplacian| of the brightness [N,1,H-2,W-2] of [N,3,H,W]."""
    kernel = images.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    return functional.conv2d(images.mean(1, keepdim=True), kernel).abs()


def detail_ratio(made: Tensor, truth: Tensor) -> float:
    """Fine structure of pictures [N,3,H,W] over that of the truth; 1 where it is as much."""
    own, true = _fine_structure(made).mean(), _fine_structure(truth).mean()
    return float(own / true.clamp_min(1e-6))


def detail_loss(predicted: Tensor, truth: Tensor, window: int = 8, scales: int = 2) -> Tensor:
    """How far the amount of fine structure around each place is from the truth's, as the mean
    |log ratio| over ``scales`` octaves of [N,3,H,W] in [0,1].

    Errors of pixels are least for the mean of what a latent may stand for, which is soft. This
    term asks for the right amount of detail in each window and leaves its phase to the others.
    """
    predicted, truth = predicted.float(), truth.float()
    total = torch.zeros((), device=predicted.device)
    for _ in range(scales):
        own, true = (
            functional.avg_pool2d(_fine_structure(x), window, stride=window // 2) + _DETAIL_FLOOR
            for x in (predicted, truth)
        )
        total = total + (own.log() - true.log()).abs().mean()
        predicted, truth = functional.avg_pool2d(predicted, 2), functional.avg_pool2d(truth, 2)
    return total / scales


def chroma(images: Tensor) -> Tensor:
    """Colour without brightness: the Cb and Cr of BT.601 [N,2,H,W] in [-0.5,0.5] of [N,3,H,W].

    Errors in brightness outweigh errors in colour in any loss on RGB, so a codec can lose a whole
    colour axis; a term on these two channels prevents that.
    """
    red, green, blue = images.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return torch.stack(((blue - luma) / 1.772, (red - luma) / 1.402), dim=1)


def ssim(predicted: Tensor, truth: Tensor, window: int = 7) -> Tensor:
    """Mean structural similarity of [N,3,H,W] in [0,1] with a uniform window, in [-1,1]."""
    predicted, truth = predicted.float(), truth.float()

    def mean(x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, window, stride=1)

    mean_p, mean_t = mean(predicted), mean(truth)
    var_p = mean(predicted * predicted) - mean_p**2
    var_t = mean(truth * truth) - mean_t**2
    cov = mean(predicted * truth) - mean_p * mean_t
    luminance = (2 * mean_p * mean_t + _C1) / (mean_p**2 + mean_t**2 + _C1)
    structure = (2 * cov + _C2) / (var_p + var_t + _C2)
    return (luminance * structure).mean()


def multi_scale_ssim(predicted: Tensor, truth: Tensor, scales: int = 3) -> Tensor:
    """Mean of :func:`ssim` over ``scales`` octaves of [N,3,H,W]."""
    total = torch.zeros((), device=predicted.device)
    for _ in range(scales):
        total = total + ssim(predicted, truth)
        predicted, truth = functional.avg_pool2d(predicted, 2), functional.avg_pool2d(truth, 2)
    return total / scales


def psnr(predicted: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB per leading element of [N,...] in [0,1]."""
    error = (predicted.float() - truth.float()).square().flatten(1).mean(1)
    return -10 * torch.log10(error.clamp_min(1e-10))
