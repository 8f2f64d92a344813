"""Sizes of the streaming geometry network (CUT3R weights, TTT3R gate), and their JSON form."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt

from flythrough.errors import InputError

PATCH = 16


@dataclass(frozen=True, kw_only=True)
class TTT3RConfig:
    """Every size; the defaults are those of the published 512-pixel network.

    ``state_heads`` is the head count of the state's decoder, which differs from the pictures' own.
    ``tap_widths`` are the channels of the dense heads' pyramid, finest first. Pictures are scaled
    so that their longer side is ``long_side`` pixels.
    """

    encoder_width: int = 1024
    encoder_depth: int = 24
    encoder_heads: int = 16
    ray_depth: int = 2
    width: int = 768
    depth: int = 12
    heads: int = 12
    state_heads: int = 16
    mlp_ratio: int = 4
    state_tokens: int = 768
    memory_tokens: int = 256
    tap_widths: tuple[int, int, int, int] = (96, 192, 384, 768)
    fusion_width: int = 256
    final_width: int = 128
    long_side: int = 512

    def __post_init__(self) -> None:
        pairs = (
            ("encoder_width", self.encoder_width, self.encoder_heads),
            ("width", self.width, self.heads),
            ("width", self.width, self.state_heads),
        )
        for name, width, heads in pairs:
            if heads < 1 or width % heads or (width // heads) % 4:
                raise InputError(
                    f"TTT3R {name} {width} over {heads} heads is unusable because a head must be a "
                    "multiple of 4 wide; change the width or the number of heads."
                )
        if self.depth < 4 or self.depth % 4:
            raise InputError(
                f"TTT3R depth {self.depth} must be a multiple of 4, because the dense heads read "
                "the decoder at a half, three quarters and its end; choose such a depth."
            )
        if self.long_side < PATCH or self.long_side % PATCH:
            raise InputError(
                f"TTT3R long_side {self.long_side} must be a multiple of {PATCH}; choose one."
            )

    @property
    def state_columns(self) -> int:
        """Width of the grid on which the state's tokens lie."""
        return ceil(sqrt(self.state_tokens))


TINY = TTT3RConfig(
    encoder_width=32,
    encoder_depth=2,
    encoder_heads=2,
    ray_depth=1,
    width=32,
    depth=4,
    heads=2,
    state_heads=4,
    mlp_ratio=2,
    state_tokens=12,
    memory_tokens=6,
    tap_widths=(8, 8, 12, 16),
    fusion_width=16,
    final_width=8,
    long_side=64,
)
"""Small enough for tests."""
