"""What a training step takes, known before any weight is read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from flythrough.conditioning.warped_history import WarpHistorySettings, warped_history
from flythrough.disk import read_json
from flythrough.engine.placement import free_bytes
from flythrough.errors import InputError
from flythrough.models.accounting import needed_by, weight_bytes
from flythrough.models.adapters import new_lora
from flythrough.models.expected import meta_network
from flythrough.models.helios import HeliosTransformer
from flythrough.models.needs import cast
from flythrough.rollout.chunk import LATENT_FRAMES

_COPIES = 5
"""Float32 copies of the adapter: itself, its average, its gradient and Adam's two moments."""
_GIB = 2**30
_LIBRARIES = 600 << 20
_SLACK = 1.1


@dataclass(frozen=True)
class StepNeed:
    """Bytes on the device during a step: the frozen ``base``, the ``adapter`` (with optimiser),
    ``activations`` and gradients; ``parameters`` of the adapter."""

    base: int
    adapter: int
    activations: int
    parameters: int

    @property
    def total(self) -> int:
        return self.base + self.adapter + self.activations + _LIBRARIES

    def sentence(self) -> str:
        """The need in words."""
        parts = f"{self.base / _GIB:.2f} GiB base weights, {self.adapter / _GIB:.2f} adapter and "
        parts += f"optimiser ({self.parameters / 1e6:.1f} M parameters), "
        parts += f"{self.activations / _GIB:.2f} activations"
        return f"a step needs about {self.total / _GIB:.2f} GiB: {parts}"

    def check(self, device: torch.device, checkpointing: bool) -> None:
        """Refuse what cannot fit.

        Raises:
            InputError: less memory is free.
        """
        free = free_bytes(device)
        if self.total * _SLACK > free:
            remedy = "a smaller --size or --band patch-mid"
            if not checkpointing:
                remedy = "--gradient-checkpointing or " + remedy
            raise InputError(
                f"Training needs about {self.total * _SLACK / _GIB:.1f} GiB on {device} but "
                f"{free / _GIB:.1f} GiB are free; use {remedy}, or another --device."
            )


def step_need(
    folder: Path,
    dtype: torch.dtype,
    latent: tuple[int, int, int],
    scale: int,
    history: WarpHistorySettings,
    *,
    rank: int,
    checkpointing: bool,
    text_length: int,
) -> StepNeed:
    """Run a step of one and of two layers on shapes alone, all history tokens seen.

    What a layer adds is counted once a layer; with ``checkpointing`` once, beside the tokens that
    enter each layer.

    Args:
        folder: of the denoiser.
        latent: (channels, height, width) at full size.
        scale: how many times smaller the largest trained stage is.
    """
    config = read_json(folder / "config.json")
    layers = int(config.get("num_layers", 40))
    one, two = (
        _Measured({**config, "num_layers": n}, dtype, latent, scale, history, rank, text_length)
        for n in (1, 2)
    )
    rest, layer = max(0, 2 * one.peak - two.peak), two.peak - one.peak
    kept = layer + layers * one.tokens_bytes if checkpointing else layers * layer
    count = one.parameters + (layers - 1) * (two.parameters - one.parameters)
    base = one.base + (layers - 1) * (two.base - one.base)
    return StepNeed(base, _COPIES * 4 * count, rest + kept, count)


class _Measured:
    """Bytes of a step with the layers that ``config`` states."""

    def __init__(
        self,
        config: dict[str, Any],
        dtype: torch.dtype,
        latent: tuple[int, int, int],
        scale: int,
        history: WarpHistorySettings,
        rank: int,
        text_length: int,
    ) -> None:
        net = meta_network("transformer", config)[1]
        assert isinstance(net, HeliosTransformer)
        net.eval().requires_grad_(False)
        cast(net, dtype, keep=tuple(net._keep_in_fp32_modules))
        self.base = weight_bytes(net)
        with torch.device("meta"):
            self.parameters = sum(p.numel() for p in new_lora(net, rank))
        self.tokens_bytes = 0
        channels, rows, columns = latent
        width = int(net.config["text_dim"])

        all_seen = replace(history, select=False)

        def run() -> None:
            frames = LATENT_FRAMES
            past = torch.zeros(1, channels, 19, rows, columns)
            seen = torch.ones(1, frames, rows, columns)
            bands, target = warped_history(
                past[:, :, :1], past, past[:, :, :frames], seen, settings=all_seen
            )
            noisy = torch.empty(1, channels, frames, rows // scale, columns // scale, dtype=dtype)
            text = torch.empty(1, text_length, width, dtype=dtype)
            packed = net.pack_history(bands)
            entering = packed.tokens.numel() + net.patch_embedding(noisy).numel()
            self.tokens_bytes = entering * dtype.itemsize
            made = net(noisy, torch.empty(1), text, indices_hidden_states=target, history=packed)
            # Not the method of a tensor: that would run with our own attention switched off.
            torch.autograd.backward(made.float().square().mean())

        self.peak = needed_by(run, [net], gradients=True).peak_bytes
