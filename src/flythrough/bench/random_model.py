"""Parts with random weights at true size, drawn on the device: speed does not depend on values."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from flythrough.bench.sizes import Size
from flythrough.models.adapters import TARGETS, attach_lora
from flythrough.models.catalog import ModelDefaults, ModelFolder
from flythrough.models.codec import VideoCodec
from flythrough.models.helios import HeliosTransformer
from flythrough.models.loading import LoadedModel
from flythrough.models.lora_files import LoraFile
from flythrough.models.taehv import TAEHV
from flythrough.models.taehv_config import TAEHVConfig
from flythrough.models.text import PromptEncoder
from flythrough.models.wan_codec import Codec, wan_codec
from flythrough.training.nano_files import SCHEDULER_CONFIG


def random_denoiser(
    config: dict[str, Any], device: torch.device, dtype: torch.dtype
) -> HeliosTransformer:
    """A denoiser whose parameters are drawn on ``device``; what loading keeps in float32 is so."""
    torch.manual_seed(0)
    with torch.device("meta"):
        net = HeliosTransformer(**config)
    wide = net._keep_in_fp32_modules or []
    for name, module in net.named_modules():
        for key, given in list(module._parameters.items()):
            if given is None:
                continue
            path = f"{name}.{key}".split(".")
            kept = torch.float32 if any(word in path for word in wide) else dtype
            drawn = _drawn(key, given.shape, name, device).to(kept)
            module._parameters[key] = nn.Parameter(drawn, requires_grad=False)
    return net.eval()


def _drawn(key: str, shape: torch.Size, module: str, device: torch.device) -> Tensor:
    """Weights as wide as keeps activations of unit size, small biases, norms around one."""
    values = torch.randn(shape, device=device)
    if "norm" in module and key == "weight":
        return 1 + 0.1 * values
    if key == "scale_shift_table":
        return values / shape[-1] ** 0.5
    if len(shape) == 1:
        return 0.02 * values
    return values / (values[0].numel() ** 0.5)


def add_random_adapter(net: HeliosTransformer, rank: int = 32) -> None:
    """A camera adapter as published: rank 32 on the four layers of each self attention."""
    source = torch.Generator().manual_seed(1)
    state: dict[str, Tensor] = {}
    for number, block in enumerate(net.blocks):
        for target in TARGETS:
            layer = cast(nn.Linear, block.get_submodule(f"attn1.{target}"))
            name = f"blocks.{number}.attn1.{target}"
            down = torch.randn(rank, layer.in_features, generator=source)
            state[f"{name}.lora_A.weight"] = down / layer.in_features**0.5
            up = torch.randn(layer.out_features, rank, generator=source)
            state[f"{name}.lora_B.weight"] = 0.05 * up / rank**0.5
    attach_lora(net, LoraFile(state=state, rank=rank, alpha=float(rank)))


def random_wan(size: Size, device: torch.device) -> Any:
    """diffusers' autoencoder in float32, with gains and biases that matter."""
    from diffusers import AutoencoderKLWan

    torch.manual_seed(2)
    with torch.device(device):
        net: Any = AutoencoderKLWan(base_dim=size.wan_width)
        for name, parameter in net.named_parameters():
            if name.endswith("gamma"):
                parameter.data.normal_(1, 0.1)
            elif parameter.ndim == 1:
                parameter.data.normal_(0, 0.02)
    return net.eval().requires_grad_(False)


def random_codec(
    size: Size, device: torch.device, *, fast: bool = False, dtype: torch.dtype | None = None
) -> Codec:
    """The Wan autoencoder or, if ``fast`` or the size says so, a TAEHV; in ``dtype``, float16 on a
    GPU and float32 elsewhere if None, as a run has it."""
    if dtype is None:
        dtype = torch.float16 if device.type == "cuda" else torch.float32
    if size.wan and not fast:
        return wan_codec(random_wan(size, device), dtype)
    torch.manual_seed(2)
    encoder, decoder = size.taehv
    small: Any = TAEHV(TAEHVConfig(encoder_width=encoder, decoder_widths=decoder))
    small = small.to(device=device, dtype=dtype, memory_format=torch.channels_last)
    return VideoCodec(small.eval().requires_grad_(False))


class RandomPrompts:
    """Stands for a text encoder: embeddings are given, one for each prompt."""

    def __init__(self, width: int, device: torch.device) -> None:
        self.width, self.device = width, device
        self._known: dict[str, Tensor] = {}

    def encode(self, prompts: list[str], max_length: int = 512) -> Tensor:
        """[B,max_length,width], the last half zero as behind a prompt's end."""
        for prompt in prompts:
            if prompt not in self._known:
                made = torch.randn(1, max_length, self.width, device=self.device)
                made[:, max_length // 2 :] = 0
                self._known[prompt] = made
        return torch.cat([self._known[prompt] for prompt in prompts])

    def release(self) -> None:
        """Nothing to free."""


def random_model(
    net: HeliosTransformer,
    size: Size,
    device: torch.device,
    *,
    fast_codec: bool = False,
    codec: Codec | None = None,
) -> LoadedModel:
    """A loaded model around ``net``, without files; ``codec`` None: one that is drawn."""
    width = int(net.config["text_dim"])
    folder = ModelFolder("random", Path("random"), ModelDefaults(height=size.height))
    return LoadedModel(
        folder=folder,
        transformer=net,
        codec=codec or random_codec(size, device, fast=fast_codec),
        prompts=cast(PromptEncoder, RandomPrompts(width, device)),
        scheduler=SCHEDULER_CONFIG,
        device=device,
    )
