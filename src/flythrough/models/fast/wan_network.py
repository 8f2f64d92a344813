"""The Wan codec's encoder and decoder from the layers of ``wan_layers``, for many frames at once.

``tests/parity/test_fast_codec.py`` holds them to diffusers' ``AutoencoderKLWan``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from flythrough.models.fast.wan_convolutions import (
    Carried,
    ConvIn,
    ConvOut,
    Flow,
    Layer,
    Tools,
    frames_last,
)
from flythrough.models.fast.wan_layers import Attention, Downsample, ResBlock, Upsample


def why_not_codec(net: Any) -> str | None:
    """Why these layers cannot stand for ``net``, or None if they can."""
    config = net.config
    if config.is_residual:
        return "its blocks have averaging shortcuts (Wan 2.2)"
    if config.patch_size not in (None, 1):
        return "it works on patches of pixels"
    if config.attn_scales:
        return "it has attention outside its middle"
    if config.scale_factor_temporal != 4:
        return f"a latent covers {config.scale_factor_temporal} frames, not 4"
    return None


class FastDecoder(nn.Module):
    """Latents as the network has them (not normalised) to pixels in [-1, 1]."""

    post: Tensor
    post_bias: Tensor

    def __init__(self, net: Any, dtype: torch.dtype) -> None:
        super().__init__()
        decoder = net.decoder
        self.dtype = dtype
        self.register_buffer("post", net.post_quant_conv.weight.detach().flatten(1).float())
        self.register_buffer("post_bias", net.post_quant_conv.bias.detach().float())
        self.conv_in = ConvIn(decoder.conv_in, dtype)
        layers = _middle(decoder.mid_block, dtype)
        for block in decoder.up_blocks:
            layers += [ResBlock(one, dtype) for one in block.resnets]
            layers += [Upsample(one, dtype) for one in block.upsamplers or ()]
        self.layers = nn.ModuleList(layers)
        self.conv_out = ConvOut(decoder.norm_out, decoder.conv_out, dtype)

    def forward(self, latents: Tensor, carried: Carried) -> Tensor:
        """[B,z,L,h,w] float32 to [B,3,T,8h,8w] float32; T is 4L, and 3 less in the first pass."""
        mixed = functional.linear(frames_last(latents), self.post, self.post_bias)
        flow = self.conv_in(mixed.to(self.dtype), carried)
        for layer in self.layers:
            flow = layer(flow, carried)
        return self.conv_out(flow, carried).permute(0, 4, 1, 2, 3)


class FastEncoder(nn.Module):
    """Pixels in [-1, 1] to the mean of the posterior (not normalised)."""

    quant: Tensor
    quant_bias: Tensor

    def __init__(self, net: Any, dtype: torch.dtype) -> None:
        super().__init__()
        encoder, channels = net.encoder, int(net.config.z_dim)
        self.dtype = dtype
        # the posterior's deviation, the second half of the channels, is not asked for
        self.register_buffer("quant", net.quant_conv.weight.detach().flatten(1)[:channels].float())
        self.register_buffer("quant_bias", net.quant_conv.bias.detach()[:channels].float())
        self.conv_in = ConvIn(encoder.conv_in, dtype)
        layers: list[Layer] = []
        for one in encoder.down_blocks:
            kind = ResBlock if hasattr(one, "conv1") else Downsample
            layers.append(kind(one, dtype))
        self.layers = nn.ModuleList(layers + _middle(encoder.mid_block, dtype))
        self.conv_out = ConvOut(encoder.norm_out, encoder.conv_out, dtype)

    def forward(self, video: Tensor, carried: Carried) -> Tensor:
        """[B,3,T,H,W] to [B,z,L,H/8,W/8] float32; T is 4L, and 3 less in the first pass."""
        flow: Flow = self.conv_in(frames_last(video).to(self.dtype), carried)
        for layer in self.layers:
            flow = layer(flow, carried)
        moments = self.conv_out(flow, carried)
        return functional.linear(moments, self.quant, self.quant_bias).permute(0, 4, 1, 2, 3)


def equip(net: nn.Module, tools: Tools) -> None:
    """Tell every layer how to compute."""
    for module in net.modules():
        if isinstance(module, Layer):
            module.tools = tools


def _middle(block: Any, dtype: torch.dtype) -> list[Layer]:
    layers: list[Layer] = [ResBlock(block.resnets[0], dtype)]
    for attention, resnet in zip(block.attentions, block.resnets[1:], strict=True):
        if attention is not None:
            layers.append(Attention(attention, dtype))
        layers.append(ResBlock(resnet, dtype))
    return layers
