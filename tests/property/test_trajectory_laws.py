"""Laws of trajectories: files, slices, joins, resampling and resolving."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flythrough.cameras import pose as se3
from flythrough.cameras.formats import read_trajectory, write_trajectory
from flythrough.cameras.path_language import parse_path
from flythrough.cameras.random_paths import random_path
from flythrough.cameras.trajectory import LengthUnit, Trajectory

PHOTO = np.array([[300.0, 0, 160], [0, 310.0, 90], [0, 0, 1]])
SIZE = (180, 320)
_AMOUNT = st.floats(-2, 2, allow_subnormal=False)
_TWIST = st.tuples(*[_AMOUNT] * 6)


@st.composite
def trajectories(draw: st.DrawFn) -> Trajectory:
    """Paths of 1 to 9 arbitrary cameras with any unit, uneven times and any kind of lens."""
    twists = np.array(draw(st.lists(_TWIST, min_size=1, max_size=9)))
    count = len(twists)
    gaps = draw(st.lists(st.floats(0.01, 2), min_size=count, max_size=count))
    lens: dict[str, Any] = {}
    kind = draw(st.sampled_from(["photo", "zoom", "own"]))
    factors = draw(st.lists(st.floats(0.2, 5), min_size=count, max_size=count))
    if kind == "zoom":
        lens = {"focal_scale": np.array(factors)}
    elif kind == "own":
        matrices = np.repeat(PHOTO[None], count, axis=0)
        matrices[:, :2, :2] *= np.array(factors)[:, None, None]
        lens = {"intrinsics": matrices, "size": SIZE}
    unit = draw(st.sampled_from(LengthUnit))
    return Trajectory(se3.exp(twists), np.cumsum(gaps), unit, **lens)


def close(a: np.ndarray, b: np.ndarray, tolerance: float = 1e-8) -> None:
    np.testing.assert_allclose(a, b, atol=tolerance)


@pytest.mark.parametrize("suffix", [".npz", ".json"])
@settings(max_examples=40, deadline=None)
@given(path=trajectories())
def test_files_give_back_every_bit(suffix: str, path: Trajectory) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"path{suffix}"
        write_trajectory(file, path)
        again = read_trajectory(file)
    for name in ("world_from_camera", "times", "intrinsics", "focal_scale"):
        before, after = getattr(path, name), getattr(again, name)
        assert (before is None) == (after is None)
        if before is not None:
            np.testing.assert_array_equal(before, after)
    assert (again.unit, again.size, again.digest()) == (path.unit, path.size, path.digest())


@given(trajectories(), st.data())
def test_a_cut_path_joins_to_itself(path: Trajectory, data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(path)))
    first, rest = path[:cut], path[cut - 1 :]
    joined = first.then(rest)
    assert len(joined) == len(first) + len(rest) - 1 == len(path)
    close(joined.world_from_camera, path.world_from_camera)
    close(joined.times, path.times)
    if path.focal_scale is not None:
        assert joined.focal_scale is not None
        close(joined.focal_scale, path.focal_scale)
    np.testing.assert_array_equal(joined[:cut].world_from_camera, first.world_from_camera)


@given(trajectories(), trajectories(), trajectories())
def test_joining_is_associative(a: Trajectory, b: Trajectory, c: Trajectory) -> None:
    a, b, c = (Trajectory(path.world_from_camera, path.times) for path in (a, b, c))
    left, right = a.then(b).then(c), a.then(b.then(c))
    close(left.world_from_camera, right.world_from_camera, 1e-7)
    close(left.times, right.times)


@given(trajectories(), st.integers(2, 40))
def test_resampling_keeps_both_ends(path: Trajectory, count: int) -> None:
    made = path.resampled(count)
    assert len(made) == count
    close(made.world_from_camera[0], path.world_from_camera[0])
    close(made.world_from_camera[-1], path.world_from_camera[-1])
    if len(path) > 1:
        close(made.times[[0, -1]], path.times[[0, -1]])


@given(trajectories(), st.integers(1, 20))
def test_padding_only_repeats_the_end(path: Trajectory, count: int) -> None:
    made = path.padded(count)
    assert len(made) == max(len(path), count)
    assert made[: len(path)].digest() == path.digest()
    expected = np.broadcast_to(
        path.world_from_camera[-1], made[len(path) - 1 :].world_from_camera.shape
    )
    np.testing.assert_array_equal(made.world_from_camera[len(path) - 1 :], expected)


@given(trajectories(), st.floats(0.01, 100))
def test_resolving_scales_lengths_and_nothing_else(path: Trajectory, depth: float) -> None:
    resolved = path.resolve(PHOTO, SIZE, depth, metric=True)
    relative = path.first_frame_relative().world_from_camera
    factor = depth if path.unit is LengthUnit.MEDIAN_DEPTH else 1.0
    close(resolved.world_from_camera[:, :3, 3], relative[:, :3, 3] * factor, 1e-9 * factor)
    close(resolved.world_from_camera[:, :3, :3], relative[:, :3, :3])
    np.testing.assert_array_equal(resolved.world_from_camera[0], np.eye(4))
    assert resolved.unit is LengthUnit.SCENE
    assert resolved.intrinsics is not None
    assert resolved.intrinsics.shape == (len(path), 3, 3)
    again = resolved.resolve(np.eye(3), SIZE, 7.0)
    close(again.world_from_camera, resolved.world_from_camera)
    close(again.intrinsics if again.intrinsics is not None else PHOTO, resolved.intrinsics)


@settings(max_examples=200)
@given(st.integers(0, 2**63 - 1), st.integers(1, 140))
def test_every_random_path_parses(seed: int, frames: int) -> None:
    path = parse_path(random_path(seed, frames), frames)
    assert len(path) == frames
    assert path.unit is LengthUnit.MEDIAN_DEPTH
    np.testing.assert_array_equal(path.world_from_camera[0], np.eye(4))
