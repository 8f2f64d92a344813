"""Where the published Warp-as-History code differs from what it means to do.

Flythrough does the meant thing. These switches repeat the published behaviour number for number, so
that results can be compared; all are off by default.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ReferenceSwitches:
    """One switch per known difference.

    Attributes:
        mask_offset: for chunks after the first the clip is rendered with the boundary frame in
            front; the published code drops that frame from the pictures but not from the mask, so
            every latent gets the visibility of the frame before its own and the first latent looks
            fully seen. On: pass ``reference=True`` to ``visibility_to_latent``.
        unused_encode_draw: the published code encodes the first frame of every warp on its own and
            throws the result away; with a sampling codec that consumes random numbers, which shifts
            all later draws.
        training_threshold: the published training run keeps a token from visibility 0.5 on, while
            its flags, its log and inference say 0.1. On: train at 0.5.
        lagging_shift: the published samplers compute the timestep shift of a pyramid stage from the
            size before its enlargement, and hand integer timesteps to the network; training does
            neither. On: pass ``reference=True`` to ``sample_pyramid``.
    """

    mask_offset: bool = False
    unused_encode_draw: bool = False
    training_threshold: bool = False
    lagging_shift: bool = False

    @classmethod
    def published(cls) -> ReferenceSwitches:
        """All switches on."""
        return cls(
            mask_offset=True, unused_encode_draw=True, training_threshold=True, lagging_shift=True
        )
