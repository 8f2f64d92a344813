"""A critic of picture patches: it teaches the codec's decoder the detail that averages leave out.

A squared or absolute error is least for the mean of all pictures that a latent may stand for, which
is soft. The critic sees a picture beside its own blurred copy, so it judges whether the detail fits
what is known; hinge losses (Lim and Ye 2017), and the distance of its features (Wang et al. 2018,
pix2pixHD) as a loss that also pulls the detail to its place. Groups are normalised, not spectra:
nothing is kept but parameters, so a stopped run goes on exactly. The share of the adversarial term
follows its gradient at the decoder's last layer (Esser et al. 2021, VQGAN, equation 7).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

_BLUR = 4
_MOST = 10.0


class PatchCritic(nn.Module):
    """Pictures [N,3,H,W] in [0,1] to features of four layers and scores [N,1,H/8,W/8]."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        widths = (6, width, 2 * width, 4 * width)
        self.layers = nn.ModuleList()
        for before, after in pairwise(widths):
            self.layers.append(_layer(before, after, stride=2))
        self.layers.append(_layer(widths[-1], widths[-1], stride=1))
        self.score = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def forward(self, pictures: Tensor, known: Tensor) -> tuple[list[Tensor], Tensor]:
        """``known`` [N,3,H,W]: the true pictures, of which the critic sees the blurred copy."""
        small = functional.avg_pool2d(known, _BLUR)
        blurred = functional.interpolate(small, size=pictures.shape[-2:], mode="bilinear")
        x = torch.cat((pictures, blurred), dim=1) * 2 - 1
        features = []
        for layer in self.layers:
            x = layer(x)
            features.append(x)
        return features, self.score(x)

    def judged_fixed(self, pictures: Tensor, known: Tensor) -> tuple[list[Tensor], Tensor]:
        """As ``forward``; gradients reach the pictures, not the critic."""
        fixed = {name: value.detach() for name, value in self.named_parameters()}
        result: tuple[list[Tensor], Tensor] = functional_call(self, fixed, (pictures, known))
        return result


def _layer(before: int, after: int, stride: int) -> nn.Module:
    kernel = 4 if stride == 2 else 3
    return nn.Sequential(
        nn.Conv2d(before, after, kernel, stride=stride, padding=1),
        nn.GroupNorm(8, after),
        nn.LeakyReLU(0.2),
    )


def adversarial_losses(critic: PatchCritic, made: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Losses of both sides for pictures [N,3,H,W]: ``critic`` trains the critic alone;
    ``adversarial`` and ``features`` the network that made the pictures alone."""
    features, score = critic.judged_fixed(made, truth)
    real_features, real_score = critic(truth, truth)
    fake_score = critic(made.detach(), truth)[1]
    hinge = functional.relu(1 - real_score).mean() + functional.relu(1 + fake_score).mean()
    apart = [
        (mine - its.detach()).abs().mean() / its.detach().abs().mean().clamp_min(1e-3)
        for mine, its in zip(features, real_features, strict=True)
    ]
    return {
        "critic": hinge / 2,
        "adversarial": -score.mean(),
        "features": torch.stack(apart).mean(),
    }


def balance(reconstruction: Tensor, adversarial: Tensor, layer: Tensor) -> Tensor:
    """The factor that makes the adversarial gradient at ``layer`` as long as the other, at most
    10; scalar without gradient."""
    ours = torch.autograd.grad(reconstruction, layer, retain_graph=True)[0].norm()
    theirs = torch.autograd.grad(adversarial, layer, retain_graph=True)[0].norm()
    return (ours / theirs.clamp_min(1e-6)).clamp_max(_MOST).detach()
