"""The unit of generation: what was asked for, and what came out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

import numpy as np

from flythrough.errors import FaultError, RolloutError
from flythrough.rollout.canonical import canonical_json, digest_of, frozen_array
from flythrough.rollout.window import STANDARD, Window

CHUNK_FRAMES = STANDARD.frames
LATENT_FRAMES = STANDARD.latents
LATENT_CHANNELS = 16
HISTORY_CHUNKS = 3
"""Newest chunks that hold more latents than the 19 that any history reaches."""


@dataclass(frozen=True, eq=False)
class ChunkRequest:
    """What chunk ``index`` shall show: its ``frames`` new frames of the video.

    Attributes:
        index: from 0.
        prompt: text for this chunk.
        world_from_camera: [T,4,4] float64, OpenCV axes, for the chunk's new frames (33 in the
            standard window); the world is the frame of the photo's camera in scene units. None
            when no camera leads.
        intrinsics: [T,3,3] float64 in pixels of the output size, pixel centres at half-integers.
            None exactly when ``world_from_camera`` is.
        warp_digest: identifies this chunk's part of a warp rendered elsewhere, else None.
        window: how long chunks are, and how many frames they share.
        wish: what the user said, where ``prompt`` is a captioner's words, else None.

    Arrays are stored read-only.

    Raises:
        RolloutError: a negative index, a wrong shape, dtype or value, or only one of the arrays.
    """

    index: int
    prompt: str = ""
    world_from_camera: np.ndarray | None = None
    intrinsics: np.ndarray | None = None
    warp_digest: str | None = None
    window: Window = STANDARD
    wish: str | None = None

    def __post_init__(self) -> None:
        if self.index < 0:
            raise RolloutError(f"The chunk index {self.index} is negative; count from 0.")
        if (self.world_from_camera is None) != (self.intrinsics is None):
            raise RolloutError(
                f"The request for chunk {self.index} has only one of poses and intrinsics; give "
                "both or neither."
            )
        for name, side in (("world_from_camera", 4), ("intrinsics", 3)):
            value = getattr(self, name)
            if value is None:
                continue
            label = f"{name} of chunk {self.index}"
            array = frozen_array(value, np.float64, (self.frames, side, side), label)
            if not np.isfinite(array).all():
                raise RolloutError(
                    f"{label} holds values that are not finite; correct the camera path."
                )
            object.__setattr__(self, name, array)

    @property
    def frames(self) -> int:
        """How many frames the chunk adds to the video."""
        return self.window.shown(self.index)

    def digest(self) -> str:
        """blake2b-128 of every field; the standard window and no wish are not spelled out."""
        fields: list[object] = [self.index, self.prompt, self.warp_digest]
        if self.window != STANDARD:
            fields.append([self.window.frames, self.window.overlap])
        if self.wish is not None:
            fields.append({"wish": self.wish})
        words = canonical_json(fields)
        return digest_of("request", words, self.world_from_camera, self.intrinsics)


@dataclass(frozen=True, eq=False)
class Chunk:
    """A finished chunk.

    Attributes:
        request: what was asked for.
        latents: float32 [16,L,h,w], normalised as the denoiser sees them, of the whole window: L
            is 9 in the standard one.
        frames: uint8 [T,H,W,3] sRGB, decoded from the latents: those that are new (33).
        timings: seconds by stage; a record that no digest includes.

    Arrays are stored read-only.

    Raises:
        RolloutError: a wrong shape or dtype.
        FaultError: latents that are not finite (the model diverged).
    """

    request: ChunkRequest
    latents: np.ndarray
    frames: np.ndarray
    timings: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        label = f"of chunk {self.request.index}"
        latents = frozen_array(
            self.latents,
            np.float32,
            (LATENT_CHANNELS, self.request.window.latents, None, None),
            f"Latent {label}",
        )
        frames = frozen_array(
            self.frames, np.uint8, (self.request.frames, None, None, 3), f"The frames {label}"
        )
        if not np.isfinite(latents).all():
            raise FaultError(
                f"The latents {label} hold values that are not finite; try another seed or the "
                "float32 precision."
            )
        timings = {str(key): float(value) for key, value in self.timings.items()}
        object.__setattr__(self, "latents", latents)
        object.__setattr__(self, "frames", frames)
        object.__setattr__(self, "timings", MappingProxyType(timings))

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the frames."""
        return self.frames.shape[1], self.frames.shape[2]

    def digest(self) -> str:
        """blake2b-128 of the request and the latents; frames follow from the latents."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return digest_of("chunk", self.request.digest(), self.latents)
