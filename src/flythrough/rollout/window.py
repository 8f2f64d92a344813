"""Which frames of the video a chunk covers, and which of them are new."""

from __future__ import annotations

from dataclasses import dataclass

from flythrough.errors import RolloutError

TEMPORAL_FACTOR = 4
MOST_FRAMES = 1001


@dataclass(frozen=True)
class Window:
    """Chunks of ``frames`` frames, the first ``overlap`` of which (from the second chunk on) are
    the last of what was made before.

    The standard is 33 frames that follow each other (Helios); WorldWarp makes 49 of which 5 are
    shared, or 81 of which one is. With the overlap left out, chunk 0 shows ``frames`` frames and
    every later one ``frames - overlap``.

    Raises:
        RolloutError: counts that no codec of 4k + 1 frames takes, or nothing new in a chunk.
    """

    frames: int = 33
    overlap: int = 0

    def __post_init__(self) -> None:
        frames, overlap = self.frames, self.overlap
        if frames % TEMPORAL_FACTOR != 1 or not TEMPORAL_FACTOR < frames <= MOST_FRAMES:
            raise RolloutError(
                f"A chunk of {frames} frames cannot be encoded; give one more than a multiple of "
                f"{TEMPORAL_FACTOR} from 5 to {MOST_FRAMES}, such as 49."
            )
        if overlap and (overlap % TEMPORAL_FACTOR != 1 or not 0 < overlap < frames):
            raise RolloutError(
                f"An overlap of {overlap} frames does not fit chunks of {frames}; give one more "
                f"than a multiple of {TEMPORAL_FACTOR} below {frames}, such as 1 or 5."
            )

    @property
    def latents(self) -> int:
        """Latent frames of a chunk, the overlap included."""
        return (self.frames - 1) // TEMPORAL_FACTOR + 1

    @property
    def step(self) -> int:
        """New frames of every chunk but the first."""
        return self.frames - self.overlap

    def start(self, index: int) -> int:
        """The video's frame that chunk ``index`` begins with, the overlap included."""
        return index * self.step

    def first(self, index: int) -> int:
        """The first frame that chunk ``index`` adds to the video; its frames before the chunk."""
        return index * self.step + self.overlap if index else 0

    def shown(self, index: int) -> int:
        """How many frames chunk ``index`` adds."""
        return self.step if index else self.frames

    def chunks(self, frames: int) -> int:
        """Chunks that make at least ``frames`` frames."""
        if frames <= self.frames:
            return int(frames > 0)
        return 1 - (self.frames - frames) // self.step


STANDARD = Window()
