"""Weights that a denoiser is trained from where nothing was trained before."""

from __future__ import annotations

import torch
from torch import nn

from flythrough.models.helios import HeliosTransformer
from flythrough.models.st_diff import StDiff


def average_predictor(net: HeliosTransformer | StDiff) -> None:
    """Small residual branches and a zero output, so that training begins as an average predictor.

    The gates start open, since no earlier training has settled them.
    """
    depth = len(net.blocks)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for name, parameter in net.blocks.named_parameters():
            if name.endswith(("to_out.0.weight", "ffn.net.2.weight")):
                parameter.mul_((2 * depth) ** -0.5)
            elif name.endswith("scale_shift_table"):
                parameter.zero_()
                parameter[:, (2, 5)] = 1.0
        nn.init.zeros_(net.proj_out.weight)
        nn.init.normal_(net.patch_embedding.weight, std=0.06)
        if net.patch_embedding.bias is not None:
            nn.init.zeros_(net.patch_embedding.bias)
