"""What can be measured: sizes of networks and of the work. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

SizeName = Literal["published", "nano", "tiny"]


@dataclass(frozen=True)
class Size:
    """Networks and work of a measurement.

    Attributes:
        transformer: configuration of the denoiser; empty: the published 14B model.
        height, width: pixels.
        text_tokens: length of the prompt's embedding.
        wan: the Wan autoencoder, else a small TAEHV.
        wan_width: its least channels, where it is measured by itself.
        taehv: encoder width and decoder widths of the fast codec.
    """

    transformer: dict[str, Any] = field(default_factory=dict)
    height: int = 384
    width: int = 640
    text_tokens: int = 512
    wan: bool = True
    wan_width: int = 96
    taehv: tuple[int, tuple[int, int, int, int]] = (64, (256, 128, 64, 64))


SIZES: dict[SizeName, Size] = {
    "published": Size(),
    "nano": Size(
        {
            "num_layers": 12,
            "num_attention_heads": 5,
            "attention_head_dim": 64,
            "ffn_dim": 1280,
            "text_dim": 256,
            "rope_dim": (24, 20, 20),
        },
        height=192,
        width=320,
        text_tokens=128,
        wan=False,
        wan_width=8,
    ),
    "tiny": Size(
        {
            "num_layers": 2,
            "num_attention_heads": 2,
            "attention_head_dim": 32,
            "ffn_dim": 64,
            "text_dim": 32,
            "freq_dim": 32,
            "rope_dim": (12, 10, 10),
        },
        height=64,
        width=128,
        text_tokens=16,
        wan=False,
        wan_width=8,
        taehv=(8, (16, 8, 8, 8)),
    ),
}


@dataclass(frozen=True)
class WorldWarpSize:
    """Networks and work of a chunk of WorldWarp.

    Attributes:
        st_diff: what differs from the published network (``models.st_diff.PUBLISHED_CONFIG``).
        height, width, frames: of a chunk; ``context`` latent frames are known.
        steps: of the sampler, each with guidance.
        ttt3r: what differs from the published geometry network; ``geometry`` its (height, width).
        gaussian_steps, per_source: of the fit.
    """

    st_diff: dict[str, Any] = field(default_factory=dict)
    height: int = 480
    width: int = 720
    frames: int = 49
    context: int = 2
    steps: int = 50
    text_tokens: int = 512
    ttt3r: dict[str, Any] = field(default_factory=dict)
    geometry: tuple[int, int] = (336, 512)
    gaussian_steps: int = 500
    per_source: int = 50_000

    @property
    def latents(self) -> int:
        return (self.frames - 1) // 4 + 1

    @property
    def tokens(self) -> int:
        return self.latents * (self.height // 16) * (self.width // 16)


WORLDWARP_SIZES: dict[SizeName, WorldWarpSize] = {
    "published": WorldWarpSize(),
    "nano": WorldWarpSize(
        {
            "num_layers": 7,
            "num_attention_heads": 5,
            "attention_head_dim": 64,
            "ffn_dim": 1280,
            "text_dim": 256,
        },
        height=192,
        width=320,
        steps=20,
        text_tokens=128,
        ttt3r={"encoder_depth": 4, "depth": 4},
        geometry=(192, 320),
        gaussian_steps=100,
    ),
    "tiny": WorldWarpSize(
        {
            "num_layers": 2,
            "num_attention_heads": 2,
            "attention_head_dim": 24,
            "ffn_dim": 64,
            "text_dim": 32,
            "freq_dim": 32,
        },
        height=48,
        width=80,
        frames=9,
        steps=3,
        text_tokens=16,
        ttt3r={
            "encoder_width": 32,
            "encoder_depth": 1,
            "encoder_heads": 2,
            "width": 32,
            "depth": 4,
            "heads": 2,
            "state_heads": 4,
            "state_tokens": 8,
            "memory_tokens": 4,
            "tap_widths": (8, 8, 8, 8),
            "fusion_width": 8,
            "final_width": 8,
        },
        geometry=(32, 48),
        gaussian_steps=20,
        per_source=1000,
    ),
}
