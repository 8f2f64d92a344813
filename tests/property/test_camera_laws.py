"""Laws that hold for every pose and path."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from flythrough.cameras import pose as se3
from flythrough.cameras.path_language import parse_path
from flythrough.cameras.trajectory import Trajectory

reals = st.floats(-3, 3, allow_subnormal=False)
tiny = st.floats(-1e-3, 1e-3)
twists = st.one_of(
    st.tuples(*[reals] * 6).map(np.array), st.tuples(*[reals] * 3, *[tiny] * 3).map(np.array)
)
poses = twists.map(se3.exp)
amounts = st.floats(0.01, 2)


def close(a: np.ndarray, b: np.ndarray, tolerance: float = 1e-9) -> None:
    np.testing.assert_allclose(a, b, atol=tolerance)


@given(poses, poses, poses)
def test_group_laws(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    close(se3.compose(se3.compose(a, b), c), se3.compose(a, se3.compose(b, c)))
    close(se3.compose(a, se3.inverse(a)), np.eye(4))
    close(se3.compose(se3.inverse(a), a), np.eye(4))
    close(se3.compose(a, se3.identity()), a)
    close(se3.inverse(se3.compose(a, b)), se3.compose(se3.inverse(b), se3.inverse(a)))
    se3.check_rigid(se3.compose(a, b))


@given(twists)
def test_log_inverts_exp(twist: np.ndarray) -> None:
    pose = se3.exp(twist)
    close(se3.exp(se3.log(pose)), pose)
    if np.linalg.norm(twist[3:]) < 3.1:
        close(se3.log(pose), twist, 1e-7)


@given(twists, st.floats(-1, 1), st.floats(-1, 1))
def test_exp_of_one_axis_adds(twist: np.ndarray, s: float, t: float) -> None:
    close(se3.compose(se3.exp(s * twist), se3.exp(t * twist)), se3.exp((s + t) * twist))


@given(st.tuples(*[st.floats(-1.7, 1.7)] * 3).map(np.array))
def test_rotation_angle_is_the_norm(vector: np.ndarray) -> None:
    close(se3.rotation_angle(se3.so3_exp(vector)), np.linalg.norm(vector), 1e-7)


@given(st.floats(3.1415, 3.1416), st.tuples(*[st.floats(-1, 1)] * 3).map(np.array))
def test_log_near_half_a_turn(angle: float, axis: np.ndarray) -> None:
    if np.linalg.norm(axis) < 1e-3:
        return
    rotation = se3.so3_exp(axis / np.linalg.norm(axis) * angle)
    close(se3.so3_exp(se3.so3_log(rotation)), rotation)


@given(poses, poses, st.floats(0, 1))
def test_interpolation_meets_its_ends_and_stays_rigid(
    a: np.ndarray, b: np.ndarray, weight: float
) -> None:
    close(se3.interpolate(a, b, 0.0), a)
    close(se3.interpolate(a, b, 1.0), b)
    middle = se3.check_rigid(se3.interpolate(a, b, weight))
    whole = se3.rotation_angle(a[:3, :3].T @ b[:3, :3])
    close(se3.rotation_angle(a[:3, :3].T @ middle[:3, :3]), weight * whole, 1e-6)


@given(st.lists(poses, min_size=1, max_size=5), poses)
def test_relative_poses_ignore_the_world(path: list[np.ndarray], world: np.ndarray) -> None:
    stack = np.stack(path)
    close(se3.relative_to_first(world @ stack), se3.relative_to_first(stack), 1e-8)
    trajectory = Trajectory(stack, np.arange(len(path)))
    close(
        trajectory.moved(world).first_frame_relative().world_from_camera,
        trajectory.first_frame_relative().world_from_camera,
        1e-8,
    )


@settings(max_examples=50)
@given(amounts, amounts, st.integers(3, 80))
def test_forward_adds(a: float, b: float, frames: int) -> None:
    two = parse_path(f"forward {a}; forward {b}", frames).world_from_camera[-1]
    close(two, parse_path(f"forward {a + b}", frames).world_from_camera[-1])


@settings(max_examples=50)
@given(
    st.lists(
        st.sampled_from(
            [
                "forward 0.3",
                "orbit left 20deg",
                "pan right 0.2rad",
                "hero",
                "zoom 1.1x",
                "hold 0.1s",
            ]
        ),
        min_size=1,
        max_size=5,
    ),
    st.integers(20, 70),
)
def test_paths_are_smooth_and_reach_their_end(steps: list[str], frames: int) -> None:
    path = parse_path("; ".join(steps), frames)
    assert len(path) == frames
    expected = np.eye(4)
    for step in steps:
        expected = expected @ parse_path(step, 33).world_from_camera[-1]
    close(path.world_from_camera[-1], expected)
    jumps = np.linalg.norm(np.diff(path.world_from_camera[:, :3, 3], axis=0), axis=1)
    assert jumps.max(initial=0) < 0.7
    cut = frames // 2
    again = path[:cut].then(path[cut - 1 :])
    close(again.world_from_camera, path.world_from_camera)
