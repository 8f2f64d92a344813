"""The trajectory value: checks, slicing, joining, resampling and resolving."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from flythrough.cameras import pose as se3
from flythrough.cameras.path_language import parse_path
from flythrough.cameras.trajectory import LengthUnit, Trajectory
from flythrough.errors import CameraError

PHOTO = np.array([[300.0, 0, 160], [0, 310.0, 90], [0, 0, 1]])
SIZE = (180, 320)


def walk(frames: int = 9) -> Trajectory:
    return parse_path("forward 1; pan left 30deg; zoom 1.5x", frames)


def test_arrays_are_read_only_copies() -> None:
    poses = se3.identity(3)
    path = Trajectory(poses, np.arange(3))
    poses[0, 0, 3] = 9
    assert path.world_from_camera[0, 0, 3] == 0
    with pytest.raises(ValueError, match="read-only"):
        path.world_from_camera[0, 0, 3] = 1
    assert path.times.dtype == np.float64


def test_slices_keep_poses_times_and_focal() -> None:
    path = walk()
    cut = path[2:7:2]
    assert len(cut) == 3
    np.testing.assert_array_equal(cut.world_from_camera, path.world_from_camera[2:7:2])
    np.testing.assert_array_equal(cut.times, path.times[2:7:2])
    assert cut.focal_scale is not None
    assert path.focal_scale is not None
    np.testing.assert_array_equal(cut.focal_scale, path.focal_scale[2:7:2])


@pytest.mark.parametrize("index", [slice(4, 4), slice(20, 30), slice(None, None, -1), 3])
def test_unusable_slices(index: slice) -> None:
    with pytest.raises(CameraError):
        walk()[index]


def test_padding_repeats_the_last_camera() -> None:
    path = walk().padded(12)
    assert len(path) == 12
    np.testing.assert_array_equal(path.world_from_camera[9:], path.world_from_camera[[8] * 3])
    np.testing.assert_allclose(np.diff(path.times), 1 / 16)
    assert len(path.padded(3)) == 12
    assert len(walk()[:1].padded(4)) == 4


def test_moved_carries_every_pose() -> None:
    carrier = se3.from_parts(se3.rotation_y(0.3), [1, 2, 3])
    path = walk()
    moved = path.moved(carrier)
    np.testing.assert_allclose(moved.world_from_camera, carrier @ path.world_from_camera)
    back = moved.first_frame_relative()
    np.testing.assert_allclose(back.world_from_camera, path.world_from_camera, atol=1e-12)
    np.testing.assert_array_equal(back.world_from_camera[0], np.eye(4))


def test_then_continues_from_the_last_camera() -> None:
    carrier = se3.from_parts(se3.so3_exp([0.2, 0, 0]), [5, 0, 0])
    first, second = walk(9), parse_path("forward 1; zoom 2x", 5).moved(carrier)
    joined = first.then(second)
    assert len(joined) == 13
    np.testing.assert_array_equal(joined[:9].world_from_camera, first.world_from_camera)
    expected = first.world_from_camera[-1] @ se3.translation(0, 0, 1)
    np.testing.assert_allclose(joined.world_from_camera[-1], expected, atol=1e-12)
    assert joined.focal_scale is not None
    assert joined.focal_scale[-1] == pytest.approx(3.0)
    np.testing.assert_allclose(np.diff(joined.times), 1 / 16)


def test_split_and_joined_again() -> None:
    path = walk(17)
    joined = path[:9].then(path[8:])
    np.testing.assert_allclose(joined.world_from_camera, path.world_from_camera, atol=1e-12)
    np.testing.assert_allclose(joined.times, path.times)


def test_then_refuses_other_units_and_one_sided_intrinsics() -> None:
    path = walk()
    with pytest.raises(CameraError, match="unit"):
        path.then(path.scaled(2, LengthUnit.METRE))
    with pytest.raises(CameraError, match="intrinsics"):
        path.resolve(PHOTO, SIZE, 1.0).then(path.scaled(1, LengthUnit.SCENE))


def test_resampled_keeps_ends_and_length_of_time() -> None:
    path = walk(9)
    fine = path.resampled(33)
    np.testing.assert_allclose(fine.world_from_camera[::4], path.world_from_camera, atol=1e-12)
    np.testing.assert_allclose(fine.times[[0, -1]], path.times[[0, -1]])
    np.testing.assert_allclose(
        fine.resampled(9).world_from_camera, path.world_from_camera, atol=1e-9
    )
    assert len(path.resampled(1)) == 1
    assert len(path[:1].resampled(5)) == 5


def test_digest_sees_every_field() -> None:
    path = walk()
    others = [
        path[:-1],
        path.scaled(2, path.unit),
        path.scaled(1, LengthUnit.METRE),
        Trajectory(path.world_from_camera, path.times),
        Trajectory(path.world_from_camera, path.times * 2, focal_scale=path.focal_scale),
        path.resolve(PHOTO, SIZE, 1.0),
    ]
    assert len({path.digest(), *(other.digest() for other in others)}) == 7
    assert walk().digest() == path.digest()


@pytest.mark.parametrize("resolved", [False, True])
def test_dict_round_trip_is_exact_through_json(resolved: bool) -> None:
    path = walk().resolve(PHOTO, SIZE, 3.7) if resolved else walk()
    again = Trajectory.from_dict(json.loads(json.dumps(path.to_dict())))
    assert again.digest() == path.digest()


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("unit"),
        lambda d: d.update(unit="feet"),
        lambda d: d.update(speed=1),
        lambda d: d.update(times=[0, 1]),
        lambda d: d.update(world_from_camera=[[1, 2], [3]]),
        lambda d: d.update(size=["a", 2]),
    ],
)
def test_from_dict_errors(change: Callable[[dict[str, object]], object]) -> None:
    data = walk().to_dict()
    change(data)
    with pytest.raises(CameraError):
        Trajectory.from_dict(data)


def test_resolve_median_depth() -> None:
    carrier = se3.from_parts(se3.rotation_y(1.0), [1, 2, 3])
    path = walk().moved(carrier).resolve(PHOTO, SIZE, 4.0)
    assert path.unit is LengthUnit.SCENE
    assert path.size == SIZE
    assert path.focal_scale is None
    assert path.intrinsics is not None
    np.testing.assert_allclose(path.world_from_camera[-1, :3, 3], (0, 0, 4), atol=1e-12)
    np.testing.assert_array_equal(path.intrinsics[0], PHOTO)
    expected = PHOTO * np.array([[1.5, 1, 1], [1, 1.5, 1], [1, 1, 1]])
    np.testing.assert_allclose(path.intrinsics[-1], expected)


def test_resolve_other_units() -> None:
    metre, scene = walk().scaled(1, LengthUnit.METRE), walk().scaled(1, LengthUnit.SCENE)
    with pytest.raises(CameraError, match="metric"):
        metre.resolve(PHOTO, SIZE, 4.0, metric=False)
    for path in (metre.resolve(PHOTO, SIZE, 4.0, metric=True), scene.resolve(PHOTO, SIZE, 4.0)):
        np.testing.assert_allclose(path.world_from_camera[-1, :3, 3], (0, 0, 1), atol=1e-12)


def test_resolve_carries_own_intrinsics_to_the_new_size() -> None:
    small = walk().resolve(PHOTO, SIZE, 4.0)
    large = small.resolve(np.eye(3), (360, 960), 99.0)
    assert large.intrinsics is not None
    assert small.intrinsics is not None
    # 180x320 becomes 540x960, of which the middle 360 rows are kept.
    expected = small.intrinsics * np.array([3.0, 3.0, 1.0])[:, None]
    expected[:, 1, 2] -= 90
    np.testing.assert_allclose(large.intrinsics, expected)
    np.testing.assert_allclose(large.world_from_camera, small.world_from_camera)


@pytest.mark.parametrize("depth", [0.0, -1.0, np.nan, np.inf])
def test_resolve_refuses_an_unusable_median_depth(depth: float) -> None:
    with pytest.raises(CameraError, match="median depth"):
        walk().resolve(PHOTO, SIZE, depth)


def spoiled(**changes: object) -> dict[str, object]:
    return {"world_from_camera": se3.identity(3), "times": np.arange(3), **changes}


def entry(row: int, column: int, value: float) -> np.ndarray:
    poses = se3.identity(3)
    poses[1, row, column] = value
    return poses


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (spoiled(world_from_camera=entry(0, 0, 1.1)), ["frame 1", "0.21", "rigid"]),
        (spoiled(world_from_camera=entry(0, 0, -1)), ["frame 1", "mirror"]),
        (spoiled(world_from_camera=entry(0, 3, np.nan)), ["frame 1", "finite"]),
        (spoiled(world_from_camera=entry(3, 3, 2)), ["frame 1", "last row"]),
        (spoiled(world_from_camera=np.eye(4)), ["shape [4, 4]"]),
        (spoiled(world_from_camera=np.zeros((0, 4, 4))), ["shape [0, 4, 4]"]),
        (spoiled(world_from_camera="x"), ["numbers"]),
        (spoiled(times=np.arange(2)), ["times", "shape [2]"]),
        (spoiled(times=np.zeros(3)), ["frame 1", "increasing"]),
        (spoiled(times=[0, 1, np.inf]), ["frame 2", "finite"]),
        (spoiled(unit="foot"), ["'foot'", "metre"]),
        (spoiled(intrinsics=np.stack([PHOTO] * 3)), ["size"]),
        (spoiled(intrinsics=PHOTO, size=SIZE), ["[3,3,3]"]),
        (spoiled(intrinsics=np.zeros((3, 3, 3)), size=SIZE), ["focal length"]),
        (spoiled(intrinsics=np.stack([PHOTO] * 3), size=(0, 4)), ["[0, 4]"]),
        (spoiled(focal_scale=[1, 0, 1]), ["frame 1", "positive"]),
        (spoiled(focal_scale=[1] * 3, intrinsics=[PHOTO] * 3, size=SIZE), ["both"]),
    ],
)
def test_construction_errors(fields: dict[str, object], words: list[str]) -> None:
    with pytest.raises(CameraError) as caught:
        Trajectory(**fields)  # type: ignore[arg-type]
    for word in words:
        assert word in str(caught.value)
