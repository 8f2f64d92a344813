"""What is said before a leg leaves the scene: which frames of the video those are."""

from __future__ import annotations

from typing import Any

import numpy as np

from flythrough.cameras.path_language import parse_path
from flythrough.engine.foresight import foresee
from flythrough.engine.plan import Leg, Plan
from flythrough.rollout.chunk import Chunk, ChunkRequest
from flythrough.rollout.rollout import Rollout, Start
from flythrough.rollout.spec import RolloutSpec
from flythrough.rollout.window import Window

WINDOW = Window(9, 5)


class Blind:
    """A session whose scene memory knows nothing of any view."""

    @property
    def memory(self) -> Blind:
        return self

    def known_share(self, rollout: Rollout, poses: np.ndarray, matrices: np.ndarray) -> np.ndarray:
        del rollout, matrices
        return np.zeros(len(poses))


def test_frames_are_those_of_the_video_where_chunks_share_some() -> None:
    settings = {"chunk_frames": WINDOW.frames, "overlap": WINDOW.overlap}
    spec = RolloutSpec(
        method="worldwarp", model="m", model_digest="d", height=16, width=24, fps=16, seed=3,
        settings=settings,
    )  # fmt: skip
    start = Start(np.zeros((16, 24, 3), np.uint8), np.eye(3))
    rollout = Rollout(spec, start)
    for index in range(2):
        shown = WINDOW.shown(index)
        request = ChunkRequest(
            index=index, prompt="", window=WINDOW,
            world_from_camera=np.tile(np.eye(4), (shown, 1, 1)),
            intrinsics=np.tile(np.eye(3), (shown, 1, 1)),
        )  # fmt: skip
        latents = np.zeros((16, WINDOW.latents, 2, 3), np.float32)
        frames = np.zeros((shown, 16, 24, 3), np.uint8)
        rollout = rollout.appended(Chunk(request, latents, frames))
    leg = Leg(2, 4, "", parse_path("forward 1", 5))
    said: list[str] = []
    session: Any = Blind()
    foresee(session, rollout, Plan((leg,), 1.0, window=WINDOW), said.append)
    assert "from frame 14 to 17 less than" in said[0]  # 9 and 4 frames are there
