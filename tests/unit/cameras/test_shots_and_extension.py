"""Shots by name, other speeds and ways to go on."""

from __future__ import annotations

import numpy as np
import pytest

from flythrough.cameras import pose as se3
from flythrough.cameras.extension import EXTENSIONS, extended, sped
from flythrough.cameras.path_language import parse_path
from flythrough.cameras.shots import SHOTS, parse_shots
from flythrough.cameras.source import trajectory_from
from flythrough.cameras.trajectory import LengthUnit
from flythrough.errors import CameraError


def test_shots_do_what_they_are_called() -> None:
    path = trajectory_from("shots: dolly_in", 50)
    assert path.unit is LengthUnit.MEDIAN_DEPTH
    assert path.intrinsics is None  # the photo's own focal length stays
    assert path.world_from_camera[-1, :3, 3] == pytest.approx([0, 0, 49 * 0.008], abs=1e-9)
    turned = parse_shots("shots: pan_right", 49).world_from_camera[-1]
    assert se3.so3_log(turned[:3, :3]) == pytest.approx([0, np.radians(5), 0], abs=2e-4)
    named = parse_path("pan right 5deg; hold over 0.1s", 49).world_from_camera[-1]
    assert turned[:3, :3] == pytest.approx(named[:3, :3], abs=2e-4)
    up = parse_shots("shots: pedestal_up", 40).world_from_camera
    assert up[-1, 1, 3] == pytest.approx(-39 * 0.005, abs=1e-9)
    still = parse_shots("shots: static", 9).world_from_camera
    assert np.array_equal(still, np.broadcast_to(np.eye(4), (9, 4, 4)))
    eased = parse_shots("shots: pan=8", 41).world_from_camera
    angles = np.degrees(se3.rotation_angle(eased[:, :3, :3]))
    assert angles[20] == pytest.approx(4, abs=0.01)
    assert angles[3] < 0.2


def test_shots_add_up_and_follow_each_other() -> None:
    both = parse_shots("shots: dolly_in + truck_right", 30).world_from_camera[-1, :3, 3]
    assert both == pytest.approx([29 * 0.004, 0, 29 * 0.008], abs=1e-9)
    numbers = parse_shots("shots: forward=0.008 + right=0.004", 30).world_from_camera[-1]
    assert numbers[:3, 3] == pytest.approx(both, abs=1e-12)
    path = parse_shots("shots: dolly-in; static; dolly-out", 61).world_from_camera
    assert path[30, 2, 3] == pytest.approx(20 * 0.008, abs=1e-3)
    assert path[-1, 2, 3] < path[40, 2, 3]
    steps = np.linalg.norm(np.diff(path[:, :3, 3], axis=0), axis=1)
    assert steps.max() < 0.012  # no jump where shots meet
    for name in SHOTS:
        assert np.isfinite(parse_shots(f"shots: {name}", 49).world_from_camera).all()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("shots:", "no shots"),
        ("shots: doly_in", "dolly_in"),
        ("shots: forward=fast", "forward=fast"),
        ("shots: height=1", "height=1"),
        ("shots: static; static", "4 frames"),
    ],
)
def test_wrong_shots_are_refused(text: str, word: str) -> None:
    with pytest.raises(CameraError, match=word):
        parse_shots(text, 3)


def test_speed_keeps_the_way() -> None:
    path = parse_path("orbit left 40deg", 41)
    fast, slow = sped(path, 2), sped(path, 0.5)
    assert (len(fast), len(slow)) == (20, 82)
    for other in (fast, slow):
        assert other.world_from_camera[-1] == pytest.approx(path.world_from_camera[-1], abs=1e-9)
        away = other.world_from_camera[:, :3, 3] - [0, 0, 1]
        assert np.linalg.norm(away, axis=1) == pytest.approx(1, abs=3e-5)
        assert other.step() == pytest.approx(path.step())
    assert sped(path, 1.0) is path
    for speed in (0.1, 5.0, np.nan):
        with pytest.raises(CameraError, match="out of range"):
            sped(path, speed)


def test_ways_to_go_on() -> None:
    path = parse_path("forward 0.4; pan right 10deg", 21)
    straight = parse_path("forward 0.4", 21)
    for mode in EXTENSIONS:
        longer = extended(path, 50, mode)
        assert len(longer) == 50
        assert np.allclose(longer.world_from_camera[:21], path.world_from_camera)
        assert np.allclose(np.diff(longer.times), path.step())
        assert extended(path, 10, mode) is path
    on = extended(straight, 31, "extrapolate").world_from_camera
    assert on[-1, 2, 3] == pytest.approx(0.6)
    turning = extended(parse_path("pan left 10deg", 21), 41, "extrapolate").world_from_camera[-1]
    assert se3.so3_log(turning[:3, :3]) == pytest.approx([0, -np.radians(20), 0], abs=1e-6)
    slow = np.diff(extended(straight, 100, "slowdown").world_from_camera[20:, 2, 3])
    assert slow[0] == pytest.approx(0.02 * 0.95)
    assert slow[-1] == pytest.approx(0.002)
    again = extended(straight, 41, "loop").world_from_camera
    assert again[-1, 2, 3] == pytest.approx(0.8)
    back = extended(straight, 41, "ping-pong").world_from_camera
    assert back[40, 2, 3] == pytest.approx(0, abs=1e-12)
    assert back[25, 2, 3] == pytest.approx(straight.world_from_camera[15, 2, 3])
    with pytest.raises(CameraError, match="unknown"):
        extended(path, 50, "teleport")
