"""The camera of a video: known answers on an exact world, and what must count as off the path."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from flythrough.cameras import pose as se3
from flythrough.errors import InputError
from flythrough.evaluation.suite import Worlds
from flythrough.evaluation.truth import Case, Truth

pytest.importorskip("cv2")

from flythrough.evaluation.pose import FirstView, PoseTrack, pose_errors, pose_track

SIZE = (96, 160)
LAST = 32


@pytest.fixture(scope="module")
def truth() -> Truth:
    """A held-out room; its photo and cameras are those of the suite, at a smaller size."""
    return Worlds().truth(Case(9_000_301, "room", "orbit left 8deg"), SIZE)


@pytest.fixture(scope="module")
def first(truth: Truth) -> FirstView:
    return FirstView(truth.frames[0], truth.depth[0], truth.intrinsics)


def track(truth: Truth, first: FirstView, order: list[int], asked: list[int]) -> PoseTrack:
    """Frames ``order`` of the truth held against its cameras ``asked``."""
    poses = truth.world_from_camera[asked]
    return pose_track(truth.frames[order], first, poses, truth.median_depth)


def test_the_truth_lies_on_its_path(truth: Truth, first: FirstView) -> None:
    frames = [0, 8, 16, 24, 32]
    found = track(truth, first, frames, frames)
    assert found.failure_rate == 0
    assert found.rotation.max() < 0.5
    assert found.translation.max() < 1.0
    assert found.measured_rotation == pytest.approx(found.rotation.mean())


def test_a_known_offset_is_measured_right(truth: Truth, first: FirstView) -> None:
    """Frame 16 passed off as frame 32: the error is the distance of the two cameras."""
    found = track(truth, first, [0, 16], [0, LAST])
    turn, way = pose_errors(truth.world_from_camera[[16]], truth.world_from_camera[[LAST]])
    assert found.rotation[0] == pytest.approx(turn[0], abs=0.3)
    assert found.translation[0] == pytest.approx(100 * way[0] / truth.median_depth, abs=0.7)


def test_offsets_are_neither_scaled_nor_aligned_away(truth: Truth, first: FirstView) -> None:
    frames = [0, 8, 16, 24, 32]
    wide = truth.world_from_camera[frames].copy()
    wide[:, :3, 3] *= 2
    found = pose_track(truth.frames[frames], first, wide, truth.median_depth)
    way = np.linalg.norm(truth.world_from_camera[frames[1:], :3, 3], axis=1)
    np.testing.assert_allclose(found.translation, 100 * way / truth.median_depth, atol=1.0)


def test_the_length_of_the_path(truth: Truth, first: FirstView) -> None:
    every = list(range(0, LAST + 1))
    half = [index // 2 for index in every]
    assert track(truth, first, every, every).length_ratio == pytest.approx(1, abs=0.1)
    assert track(truth, first, half, every).length_ratio == pytest.approx(0.5, abs=0.1)
    assert track(truth, first, [0] * len(every), every).length_ratio == pytest.approx(0, abs=0.01)
    still = np.tile(np.eye(4), (33, 1, 1))
    assert pose_track(truth.frames, first, still, truth.median_depth).length_ratio is None


def test_a_copy_of_the_photo_has_the_error_of_a_camera_that_never_moved(
    truth: Truth, first: FirstView
) -> None:
    found = track(truth, first, [0, 0], [0, LAST])
    turn, way = pose_errors(np.eye(4)[None], truth.world_from_camera[[LAST]])
    assert found.failure_rate == 0
    assert found.rotation[0] == pytest.approx(turn[0], abs=0.05)
    assert found.translation[0] == pytest.approx(100 * way[0] / truth.median_depth, abs=0.2)


def test_a_failure_is_counted_and_charged_as_a_copy(truth: Truth, first: FirstView) -> None:
    grey = np.full_like(truth.frames[[0, LAST]], 128)
    poses = truth.world_from_camera[[0, LAST]]
    found = pose_track(grey, first, poses, truth.median_depth)
    turn, _ = pose_errors(np.eye(4)[None], poses[1:])
    assert found.failure_rate == 1
    assert found.rotation[0] == pytest.approx(turn[0])
    assert found.measured_rotation is None
    assert found.inliers[0] < 30


def test_soft_frames_are_measured_too(truth: Truth, first: FirstView) -> None:
    soft = gaussian_filter(truth.frames[[0, 8]], (0, 0.8, 0.8, 0))
    found = pose_track(soft, first, truth.world_from_camera[[0, 8]], truth.median_depth)
    assert found.failure_rate == 0
    assert found.rotation[0] < 0.5


def test_the_same_frames_give_the_same_figures(truth: Truth, first: FirstView) -> None:
    a, b = (track(truth, first, [0, 24], [0, 24]) for _ in range(2))
    assert (a.rotation[0], a.translation[0]) == (b.rotation[0], b.translation[0])


def test_errors_of_known_cameras() -> None:
    asked = np.tile(se3.translation(1, 0, 0), (2, 1, 1))
    found = asked.copy()
    found[1] = se3.compose(asked[1], se3.exp([0, 0, 0.5, 0, np.radians(3), 0]))
    turn, way = pose_errors(found, asked)
    np.testing.assert_allclose(turn, [0, 3], atol=1e-6)
    assert way[0] == 0
    assert way[1] == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize(("frames", "cameras"), [(1, 1), (2, 3)])
def test_frames_and_cameras_must_belong_together(
    frames: int, cameras: int, truth: Truth, first: FirstView
) -> None:
    with pytest.raises(InputError, match="one camera"):
        pose_track(truth.frames[:frames], first, truth.world_from_camera[:cameras], 1.0)
