"""A rollout: a frozen specification, a start, and the chunks made so far.

Everything else (last frame, last camera, the latents so far, digests) is derived. Verbs give new
values and leave the old one as it was, so a branch costs nothing and rewinding is slicing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from flythrough.errors import RolloutError
from flythrough.rollout.canonical import digest_of, frozen_array
from flythrough.rollout.chunk import LATENT_CHANNELS, Chunk
from flythrough.rollout.spec import RolloutSpec


@dataclass(frozen=True, eq=False)
class Start:
    """What the video starts from.

    Attributes:
        image: uint8 [H,W,3] sRGB, the photo at the output size.
        intrinsics: [3,3] float64 in pixels of that size, pixel centres at half-integers.
        video: uint8 [T,H,W,3] sRGB frames that precede the first chunk (``image`` stays the
            anchor); None when a photo starts the video.

    Arrays are stored read-only.

    Raises:
        RolloutError: a wrong shape or dtype, or a video of another size.
    """

    image: np.ndarray
    intrinsics: np.ndarray
    video: np.ndarray | None = None

    def __post_init__(self) -> None:
        image = frozen_array(self.image, np.uint8, (None, None, 3), "The start image")
        matrix = frozen_array(self.intrinsics, np.float64, (3, 3), "The start intrinsics")
        if not np.isfinite(matrix).all():
            raise RolloutError("The start intrinsics are not finite; correct the focal length.")
        object.__setattr__(self, "image", image)
        object.__setattr__(self, "intrinsics", matrix)
        if self.video is not None:
            shape = (None, *image.shape)
            video = frozen_array(self.video, np.uint8, shape, "The start video")
            object.__setattr__(self, "video", video)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.image.shape[0], self.image.shape[1]

    def digest(self) -> str:
        """blake2b-128 of image, intrinsics and video."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return digest_of("start", self.image, self.intrinsics, self.video)


@dataclass(frozen=True, eq=False)
class Rollout:
    """Attributes: ``spec``; ``start`` (None when only a prompt starts the video); ``chunks`` in
    order, chunk k having index k.

    Raises:
        RolloutError: sizes that disagree with the specification, or chunks out of order.
    """

    spec: RolloutSpec
    start: Start | None
    chunks: tuple[Chunk, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "chunks", tuple(self.chunks))
        if self.start is not None and self.start.size != self.size:
            raise RolloutError(
                f"The start image is {_by(self.start.size)} but the rollout is {_by(self.size)}; "
                "fit the image first."
            )
        for place, chunk in enumerate(self.chunks):
            self._check_chunk(place, chunk)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of every frame."""
        return self.spec.size

    @property
    def frame_count(self) -> int:
        """33 a chunk, or what its window adds."""
        return self.spec.window.first(len(self.chunks))

    def appended(self, chunk: Chunk) -> Rollout:
        """A new rollout with ``chunk`` at the end; its index must be the next one.

        Raises:
            RolloutError: another index, or a size that differs.
        """
        return replace(self, chunks=(*self.chunks, chunk))

    def rewind(self, count: int) -> Rollout:
        """A new rollout without the last ``count`` chunks.

        Raises:
            RolloutError: ``count`` is not in 0 .. number of chunks.
        """
        if not 0 <= count <= len(self.chunks):
            raise RolloutError(
                f"Cannot rewind {count} chunks of a rollout that has {len(self.chunks)}; give 0 to "
                f"{len(self.chunks)}."
            )
        return self.kept(len(self.chunks) - count)

    def branch(self, chunks: int | None = None) -> Rollout:
        """A new rollout with the first ``chunks`` chunks (None: all), to be stepped elsewhere.

        Rollouts are values: whatever is appended to a branch, this one stays as it is.

        Raises:
            RolloutError: ``chunks`` is not in 0 .. number of chunks.
        """
        return self.kept(len(self.chunks) if chunks is None else chunks)

    def kept(self, count: int) -> Rollout:
        """A new rollout with only the first ``count`` chunks.

        Raises:
            RolloutError: ``count`` is not in 0 .. number of chunks.
        """
        if not 0 <= count <= len(self.chunks):
            raise RolloutError(
                f"Cannot keep {count} chunks of a rollout that has {len(self.chunks)}; give 0 to "
                f"{len(self.chunks)}."
            )
        return replace(self, chunks=self.chunks[:count])

    def frames(self) -> Iterator[np.ndarray]:
        """Every generated frame in order, uint8 [H,W,3]; the start is not among them."""
        for chunk in self.chunks:
            yield from chunk.frames

    def latents(self) -> np.ndarray:
        """Latents of all n chunks, float32 [16, 9 * n, h, w] (overlaps are there twice).

        For n = 0 the result is [16,0,0,0]: the latent size is not known before a chunk exists.
        """
        if not self.chunks:
            return np.zeros((LATENT_CHANNELS, 0, 0, 0), dtype=np.float32)
        return np.concatenate([chunk.latents for chunk in self.chunks], axis=1)

    def last_frame(self) -> np.ndarray | None:
        """The newest frame uint8 [H,W,3]: of the last chunk, else of the start, else None."""
        if self.chunks:
            return self.chunks[-1].frames[-1]
        if self.start is None:
            return None
        return self.start.image if self.start.video is None else self.start.video[-1]

    def last_camera(self) -> tuple[np.ndarray, np.ndarray] | None:
        """(world_from_camera [4,4], intrinsics [3,3]) of the newest frame, float64.

        Before the first chunk this is the photo's own camera, whose pose is the identity. None when
        no camera is known (text start, or a chunk made without cameras).
        """
        if not self.chunks:
            return None if self.start is None else (np.eye(4), self.start.intrinsics)
        request = self.chunks[-1].request
        if request.world_from_camera is None or request.intrinsics is None:
            return None
        return request.world_from_camera[-1], request.intrinsics[-1]

    def boundary_frames(self) -> np.ndarray:
        """The last frame of every chunk, uint8 [n,H,W,3]: frames 32, 65, ... of a video
        in the standard window."""
        if not self.chunks:
            return np.zeros((0, *self.size, 3), dtype=np.uint8)
        return np.stack([chunk.frames[-1] for chunk in self.chunks])

    def cameras(self) -> tuple[np.ndarray, np.ndarray] | None:
        """(world_from_camera [T,4,4], intrinsics [T,3,3]) of all T frames, float64.

        None when a chunk was made without cameras.
        """
        poses, matrices = [np.zeros((0, 4, 4))], [np.zeros((0, 3, 3))]
        for chunk in self.chunks:
            request = chunk.request
            if request.world_from_camera is None or request.intrinsics is None:
                return None
            poses.append(request.world_from_camera)
            matrices.append(request.intrinsics)
        return np.concatenate(poses), np.concatenate(matrices)

    def digest(self) -> str:
        """blake2b-128 chained over specification, start and chunks: equal digests mean equal
        rollouts, and the digest of a prefix does not depend on what follows."""
        start = None if self.start is None else self.start.digest()
        value = digest_of("rollout", self.spec.digest(), start)
        for chunk in self.chunks:
            value = digest_of("chain", value, chunk.digest())
        return value

    def _check_chunk(self, place: int, chunk: Chunk) -> None:
        if chunk.request.index != place:
            raise RolloutError(
                f"Chunk {chunk.request.index} cannot stand at place {place} of the rollout; append "
                f"chunk {place} next."
            )
        if chunk.request.window != self.spec.window:
            raise RolloutError(
                f"Chunk {place} has {chunk.request.window.frames} frames with an overlap of "
                f"{chunk.request.window.overlap} but the rollout has {self.spec.window.frames} and "
                f"{self.spec.window.overlap}; make it for that window."
            )
        if chunk.size != self.size:
            raise RolloutError(
                f"Chunk {place} is {_by(chunk.size)} but the rollout is {_by(self.size)}; decode "
                "it at that size."
            )
        if chunk.latents.shape != self.chunks[0].latents.shape:
            raise RolloutError(
                f"The latents of chunk {place} are {list(chunk.latents.shape)} but those of chunk "
                f"0 are {list(self.chunks[0].latents.shape)}; use one model for all chunks."
            )


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
