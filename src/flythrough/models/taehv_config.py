"""Sizes and options of the tiny video autoencoder, and their JSON form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from flythrough.errors import InputError

Flags = tuple[bool, bool, bool]


@dataclass(frozen=True)
class TAEHVConfig:
    """Every number of the architecture.

    ``decoder_widths`` are the widths after each spatial scale, coarsest first. ``framing`` says how
    frame counts are matched to latents: "standard" (4k + 1 frames, k + 1 latents), "cogvideox"
    (nothing trimmed when the latent count is even) or "h3" (17-frame chunks).
    """

    patch_size: int = 1
    latent_channels: int = 16
    encoder_width: int = 64
    decoder_widths: tuple[int, int, int, int] = (256, 128, 64, 64)
    encoder_time_downscale: Flags = (True, True, False)
    decoder_time_upscale: Flags = (False, True, True)
    decoder_space_upscale: Flags = (True, True, True)
    variant: Literal["base", "super"] = "base"
    framing: Literal["standard", "cogvideox", "h3"] = "standard"

    def __post_init__(self) -> None:
        sizes = (self.patch_size, self.latent_channels, self.encoder_width, *self.decoder_widths)
        if len(self.decoder_widths) != 4 or min(sizes) < 1:
            raise InputError(
                f"codec sizes {sizes} are unusable: patch size, channels, encoder width and the "
                "four decoder widths must all be positive; correct the codec's config.json"
            )
        if self.variant not in ("base", "super"):
            raise InputError(f"codec variant {self.variant!r} must be 'base' or 'super'")
        if self.framing not in ("standard", "cogvideox", "h3"):
            raise InputError(f"framing {self.framing!r} must be 'standard', 'cogvideox' or 'h3'")

    @property
    def time_downscale(self) -> int:
        """Frames merged into one latent frame by the encoder."""
        return 2 ** sum(self.encoder_time_downscale)

    @property
    def time_upscale(self) -> int:
        """Raw frames the decoder makes of one latent frame."""
        return 2 ** sum(self.decoder_time_upscale)

    @property
    def space_downscale(self) -> int:
        """Pixels along an axis that one latent pixel covers on the encoder's side."""
        return 8 * self.patch_size


NANO_CONFIG = TAEHVConfig(encoder_width=48, decoder_widths=(192, 96, 48, 32))


def config_to_dict(config: TAEHVConfig) -> dict[str, Any]:
    """JSON form of a configuration; ``config_from_dict`` reads it back."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in vars(config).items()}


def config_from_dict(values: dict[str, Any]) -> TAEHVConfig:
    """Read ``config_to_dict``'s form; keys that start with ``_`` or describe latents are ignored.

    A two-element ``decoder_time_upscale`` (older files) gets a leading False.
    """
    known = TAEHVConfig.__dataclass_fields__
    given: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known
    }
    up = given.get("decoder_time_upscale", ())
    if len(up) == 2:
        given["decoder_time_upscale"] = (False, *up)
    return TAEHVConfig(**given)
