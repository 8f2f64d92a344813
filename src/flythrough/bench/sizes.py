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
