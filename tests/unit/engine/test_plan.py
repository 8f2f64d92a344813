"""Plans: legs cut into chunk requests, joined at the last camera, stored as JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest

from flythrough.cameras.path_language import parse_path
from flythrough.engine.plan import Leg, Plan, current_prompt
from flythrough.engine.stored_plan import plan_from
from flythrough.engine.warp_video import WarpRecord
from flythrough.errors import RolloutError
from flythrough.rollout.chunk import Chunk, ChunkRequest
from flythrough.rollout.rollout import Rollout, Start
from flythrough.rollout.spec import RolloutSpec

SPEC = RolloutSpec(
    method="warp-as-history",
    model="m",
    model_digest="d",
    height=8,
    width=16,
    fps=16.0,
    seed=1,
    prompt="a room",
)
MATRIX = np.array([[10.0, 0, 8], [0, 10, 4], [0, 0, 1]])


def start() -> Rollout:
    return Rollout(SPEC, Start(np.zeros((8, 16, 3), np.uint8), MATRIX))


def followed(rollout: Rollout, plan: Plan) -> Rollout:
    """``rollout`` with one more chunk as the plan asks for it."""
    request = plan.request(rollout)
    latents = np.zeros((16, 9, 1, 2), np.float32)
    frames = np.zeros((33, 8, 16, 3), np.uint8)
    return rollout.appended(Chunk(request=request, latents=latents, frames=frames))


def test_chunks_are_windows_of_the_scaled_path() -> None:
    path = parse_path("forward 1", 66, 16.0)
    plan = Plan((Leg(0, 66, "a room", path),), median_depth=2.0)
    rollout = followed(followed(start(), plan), plan)
    cameras = rollout.cameras()
    assert cameras is not None
    np.testing.assert_allclose(cameras[0][:, 2, 3], 2 * path.world_from_camera[:, 2, 3])
    np.testing.assert_array_equal(cameras[1], np.tile(MATRIX, (66, 1, 1)))


def test_last_camera_is_held_to_the_end_of_the_chunk() -> None:
    plan = Plan((Leg(0, 10, "", parse_path("forward 1", 10, 16.0)),), median_depth=1.0)
    poses = plan.request(start()).world_from_camera
    assert poses is not None
    assert (poses[9:] == poses[9]).all()
    assert plan.chunks == 1
    assert plan.frames == 10


def test_second_leg_goes_on_from_pose_and_zoom_of_the_first() -> None:
    plan = Plan((Leg(0, 33, "", parse_path("pan left 90deg; zoom 2x", 33, 16.0)),), 1.0)
    rollout = followed(start(), plan)
    longer = plan.extended(Leg(1, 20, "dusk", parse_path("forward 1", 21, 16.0)))
    request = longer.request(rollout)
    last = rollout.last_camera()
    assert last is not None
    assert request.world_from_camera is not None
    assert request.intrinsics is not None
    assert request.prompt == "dusk"
    ahead = last[0][:3, :3] @ [0, 0, 1.0]
    np.testing.assert_allclose(
        request.world_from_camera[-1, :3, 3], last[0][:3, 3] + ahead, atol=1e-12
    )
    np.testing.assert_allclose(request.intrinsics[0], last[1])
    assert last[1][0, 0] == pytest.approx(20.0)
    assert longer.frames == 53
    assert plan.chunks == 1


def test_new_leg_replaces_what_was_planned_after_it() -> None:
    path = parse_path("forward 1", 66, 16.0)
    plan = Plan((Leg(0, 66, "", path), Leg(2, 66, "old", path)), 1.0)
    assert [leg.prompt for leg in plan.extended(Leg(2, 33, "new", path)).legs] == ["", "new"]
    assert len(plan.extended(Leg(0, 33, "", path)).legs) == 1


def test_json_round_trip() -> None:
    path = parse_path("orbit left 30deg; zoom 1.3x", 40, 16.0)
    warp = WarpRecord("w.mp4", None, ("aa", "bb"))
    plan = Plan((Leg(0, 40, "x", path), Leg(2, 5, "y", None)), 1.25, True, "out.mp4", warp)
    again = plan_from(json.loads(json.dumps(plan.to_dict())))
    assert again.to_dict() == plan.to_dict()
    assert again.legs[0].trajectory is not None
    assert again.legs[0].trajectory.digest() == path.digest()


@pytest.mark.parametrize("key", ["legs", "median_depth", "warp"])
def test_damaged_plan_is_refused(key: str) -> None:
    data = Plan((Leg(0, 40, "x", None),)).to_dict()
    data.pop(key)
    with pytest.raises(RolloutError, match="plan is damaged"):
        plan_from(data)


def test_warp_plan_names_the_part_of_each_chunk() -> None:
    plan = Plan((Leg(0, 40, "x", None),), warp=WarpRecord("w.mp4", None, ("aa", "bb")))
    assert plan.request(start()).warp_digest == "aa"


def test_prompt_goes_on_until_another_one_is_given() -> None:
    assert current_prompt(start()) == "a room"
    request = ChunkRequest(0, "dusk")
    latents, frames = np.zeros((16, 9, 1, 2), np.float32), np.zeros((33, 8, 16, 3), np.uint8)
    assert current_prompt(start().appended(Chunk(request, latents, frames))) == "dusk"
