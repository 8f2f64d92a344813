"""Chunks that share frames: which frames of the video each covers, and that files keep it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flythrough.cameras.trajectory import Trajectory
from flythrough.engine.plan import Leg, Plan
from flythrough.engine.stored_plan import plan_from
from flythrough.errors import RolloutError
from flythrough.rollout import store
from flythrough.rollout.chunk import Chunk, ChunkRequest
from flythrough.rollout.rollout import Rollout, Start
from flythrough.rollout.spec import RolloutSpec
from flythrough.rollout.window import STANDARD, Window

PUBLISHED = Window(49, 5)
SHORT = Window(9, 5)
SPEC = RolloutSpec(
    method="worldwarp",
    model="m",
    model_digest="d",
    height=16,
    width=24,
    fps=16,
    seed=3,
    settings={"chunk_frames": 9, "overlap": 5},
)


def chunk_of(index: int, window: Window = SHORT) -> Chunk:
    request = ChunkRequest(index, window=window)
    latents = np.full((16, window.latents, 2, 3), index, np.float32)
    return Chunk(request, latents, np.full((request.frames, 16, 24, 3), index, np.uint8))


def test_published_chunks_cover_the_published_frames() -> None:
    covered = [(PUBLISHED.start(k), PUBLISHED.start(k) + 48) for k in range(5)]
    assert covered == [(0, 48), (44, 92), (88, 136), (132, 180), (176, 224)]
    assert [PUBLISHED.first(k) for k in range(6)] == [0, 49, 93, 137, 181, 225]
    assert PUBLISHED.chunks(225) == 5
    assert PUBLISHED.chunks(226) == 6
    assert Window(81, 1).latents == 21
    assert Window(81, 1).first(2) == 161


@pytest.mark.parametrize("window", [STANDARD, PUBLISHED, SHORT, Window(81, 1), Window(5, 1)])
def test_new_frames_follow_each_other_without_a_gap(window: Window) -> None:
    for index in range(4):
        assert window.first(index) + window.shown(index) == window.first(index + 1)
        assert window.start(index) + window.frames == window.first(index + 1)
        for frames in range(window.first(index) + 1, window.first(index + 1) + 1):
            assert window.chunks(frames) == index + 1


@pytest.mark.parametrize("counts", [(48, 5), (49, 4), (49, 49), (1, 0), (9, -3), (1005, 1)])
def test_counts_that_no_codec_takes_are_refused(counts: tuple[int, int]) -> None:
    with pytest.raises(RolloutError, match="give one more than a multiple of 4"):
        Window(*counts)


def test_a_rollout_joins_the_new_frames_of_its_chunks(tmp_path: Path) -> None:
    start = Start(np.zeros((16, 24, 3), np.uint8), np.eye(3))
    rollout = Rollout(SPEC, start).appended(chunk_of(0)).appended(chunk_of(1))
    assert [int(frame[0, 0, 0]) for frame in rollout.frames()] == [0] * 9 + [1] * 4
    assert rollout.frame_count == 13
    store.create(tmp_path / "r", rollout)
    loaded = store.load(tmp_path / "r")
    assert loaded.digest() == rollout.digest()
    assert loaded.chunks[1].request.window == SHORT
    other = chunk_of(2, Window(9, 1))
    with pytest.raises(RolloutError, match="overlap"):
        rollout.appended(other)
    with pytest.raises(RolloutError, match="overlap"):
        store.append(tmp_path / "r", other)


def test_the_window_is_part_of_a_request_and_its_absence_is_not() -> None:
    usual = ChunkRequest(0, "a lake")
    assert usual.digest() == replace(usual, window=Window(33, 0)).digest()
    assert usual.digest() != replace(usual, window=Window(33, 1)).digest()


def test_a_plan_gives_each_chunk_the_cameras_of_its_new_frames() -> None:
    poses = np.tile(np.eye(4), (17, 1, 1))
    poses[:, 2, 3] = np.arange(17)
    path = Trajectory(poses, np.arange(17) / 16)
    plan = Plan((Leg(0, 17, "", path),), 1.0, window=SHORT)
    assert plan.chunks == 3
    assert plan.frames == 17
    again = plan_from(plan.to_dict())
    assert again.window == SHORT
    assert again.chunks == 3
    rollout = Rollout(SPEC, Start(np.zeros((16, 24, 3), np.uint8), np.eye(3)))
    seen = []
    for index in range(3):
        request = again.request(rollout)
        assert request.world_from_camera is not None
        seen.append(request.world_from_camera[:, 2, 3])
        made = chunk_of(index)
        rollout = rollout.appended(replace(made, request=request))
    assert [len(part) for part in seen] == [9, 4, 4]
    assert np.allclose(np.diff(np.concatenate(seen)), np.diff(np.concatenate(seen))[0])


@pytest.mark.parametrize("settings", [{}, {"chunk_frames": 9, "overlap": 0}, {"chunk_frames": "9"}])
def test_a_specification_without_a_usable_window_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(RolloutError):
        replace(SPEC, settings=settings)
