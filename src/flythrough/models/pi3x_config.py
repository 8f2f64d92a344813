"""Sizes of the Pi3X geometry network, and their JSON form."""

from __future__ import annotations

from dataclasses import dataclass

from flythrough.errors import InputError

PATCH = 14


@dataclass(frozen=True, kw_only=True)
class Pi3XConfig:
    """Every size of the network; the defaults are those of the published one.

    ``grid`` is the side of the stored position table in patches. Even decoder blocks attend within
    a view and odd ones over all views; ``inject_after`` lists the (odd) blocks after which poses
    are injected. ``pixel_limit`` bounds the area that images are resized to before estimation.
    ``layer_scale`` is only the starting value of the decoder's residual scales.
    """

    width: int = 1024
    heads: int = 16
    grid: int = 37
    mlp_ratio: int = 4
    encoder_depth: int = 24
    encoder_registers: int = 4
    depth_encoder_depth: int = 24
    decoder_depth: int = 36
    decoder_registers: int = 5
    inject_after: tuple[int, ...] = (1, 9, 17, 25, 33)
    head_width: int = 1024
    head_heads: int = 16
    head_depth: int = 5
    conv_in: int = 1024
    conv_widths: tuple[int, int, int] = (256, 128, 64)
    conv_hidden: int = 32
    camera_width: int = 512
    metric_width: int = 512
    metric_heads: int = 8
    metric_depth: int = 5
    multimodal: bool = True
    layer_scale: float = 0.01
    pixel_limit: int = 255_000

    def __post_init__(self) -> None:
        for name, width, heads, multiple in (
            ("width", self.width, self.heads, 8),
            ("head_width", self.head_width, self.head_heads, 4),
            ("metric_width", self.metric_width, self.metric_heads, 4),
        ):
            if width % heads or (width // heads) % multiple:
                raise InputError(
                    f"Pi3X {name} {width} over {heads} heads is unusable because a head must be a "
                    f"multiple of {multiple} wide; change the width or the number of heads."
                )
        if self.decoder_depth < 2 or self.decoder_depth % 2:
            raise InputError(
                f"Pi3X decoder_depth {self.decoder_depth} must be even and at least 2, because "
                "blocks alternate between one view and all views; choose an even depth."
            )
        if any(i % 2 == 0 or i > self.decoder_depth - 3 for i in self.inject_after):
            raise InputError(
                f"Pi3X inject_after {self.inject_after} must hold odd block indices of at most "
                f"decoder_depth - 3 = {self.decoder_depth - 3}; correct the list."
            )
        if any(width < 16 or width % 16 for width in self.conv_widths):
            raise InputError(
                f"Pi3X conv_widths {self.conv_widths} must be multiples of 16; correct them."
            )


NANO_6M = Pi3XConfig(
    width=128,
    heads=2,
    grid=16,
    encoder_depth=6,
    depth_encoder_depth=6,
    decoder_depth=10,
    inject_after=(1, 5),
    head_width=128,
    head_heads=2,
    head_depth=2,
    conv_in=128,
    conv_widths=(64, 32, 16),
    camera_width=64,
    metric_width=64,
    metric_heads=1,
    metric_depth=2,
    multimodal=False,
    layer_scale=0.1,
    pixel_limit=64_000,
)

NANO_9M = Pi3XConfig(
    width=192,
    heads=3,
    grid=16,
    encoder_depth=6,
    depth_encoder_depth=6,
    decoder_depth=8,
    inject_after=(1, 5),
    head_width=128,
    head_heads=2,
    head_depth=2,
    conv_in=128,
    conv_widths=(64, 32, 16),
    camera_width=96,
    metric_width=96,
    metric_heads=3,
    metric_depth=2,
    multimodal=False,
    layer_scale=0.1,
    pixel_limit=64_000,
)

# Of the two, nano uses the wider: it costs no more time at one view.
NANO_CONFIG = NANO_9M
