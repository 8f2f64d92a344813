"""Contact sheets, strips and depth in colour."""

from __future__ import annotations

import numpy as np
import pytest

from flythrough.errors import MediaError
from flythrough.media.picture import contact_sheet, depth_picture, side_by_side, strip


def flat(value: int, height: int = 40, width: int = 60) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_a_sheet_holds_every_picture_unchanged_in_reading_order() -> None:
    images = [flat(value) for value in (50, 100, 150, 200, 250)]
    sheet = contact_sheet(images, columns=3)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (2 * 44 + 4, 3 * 64 + 4, 3)
    for number, image in enumerate(images):
        top, left = 4 + 44 * (number // 3), 4 + 64 * (number % 3)
        assert np.array_equal(sheet[top : top + 40, left : left + 60], image)


def test_labels_stand_under_pictures_and_never_on_them() -> None:
    images = [flat(200), flat(100)]
    sheet = contact_sheet(images, columns=2, labels=["frame 0", "a very long label " * 20])
    assert np.array_equal(sheet[4:44, 4:64], images[0])
    assert np.array_equal(sheet[4:44, 68:128], images[1])
    assert sheet[44:, 4:64].max() > 150
    assert sheet[44:, 64:68].max() < 50


def test_pictures_of_different_sizes_are_centred() -> None:
    sheet = contact_sheet([flat(200), flat(100, 20, 30)], columns=2)
    assert np.array_equal(sheet[14:34, 83:113], flat(100, 20, 30))


@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_a_sheet_without_columns_is_about_square(count: int) -> None:
    rows = {1: 1, 2: 1, 4: 2, 7: 3}[count]
    assert contact_sheet([flat(9)] * count).shape[0] == rows * 44 + 4


def test_a_strip_runs_from_the_first_to_the_last_frame() -> None:
    frames = np.stack([flat(value) for value in range(33)])
    row = strip(frames, 5, gap=0)
    assert row.shape == (40, 300, 3)
    assert row[0, ::60, 0].tolist() == [0, 8, 16, 24, 32]
    assert strip(frames[:2], 5).shape == (40, 122, 3)


def test_side_by_side_keeps_the_pictures() -> None:
    row = side_by_side(flat(10), flat(20, 40, 30), gap=6)
    assert row.shape == (40, 96, 3)
    assert np.array_equal(row[:, :60], flat(10))
    assert np.array_equal(row[:, 66:], flat(20, 40, 30))


def test_nearer_is_lighter_and_invalid_is_grey() -> None:
    depth = np.tile(np.linspace(1, 10, 50), (4, 1))
    depth[0, :5] = (0, -1, np.nan, np.inf, 0)
    picture = depth_picture(depth)
    assert picture.shape == (4, 50, 3)
    light = picture[2].astype(float) @ (0.299, 0.587, 0.114)
    assert (np.diff(light) <= 0.51).all()
    assert light[0] > light[-1] + 100
    assert (picture[0, :5] == 90).all()


@pytest.mark.parametrize("depth", [np.zeros((4, 5)), np.full((4, 5), 2.0), np.full((4, 5), np.nan)])
def test_flat_and_empty_depth_maps_are_drawn(depth: np.ndarray) -> None:
    picture = depth_picture(depth)
    assert picture.shape == (4, 5, 3)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) == 1


def test_a_given_range_makes_pictures_comparable() -> None:
    first = depth_picture(np.full((2, 2), 3.0), near=1, far=9)
    second = depth_picture(np.array([[3.0, 8.0], [1.0, 5.0]]), near=1, far=9)
    assert (first[0, 0] == second[0, 0]).all()


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: contact_sheet([]),
        lambda: contact_sheet([flat(1)], labels=["a", "b"]),
        lambda: contact_sheet([flat(1)], columns=0),
        lambda: contact_sheet([flat(1).astype(float)]),
        lambda: strip([]),
        lambda: strip([flat(1)], 0),
        side_by_side,
        lambda: side_by_side(flat(1), flat(1, 41)),
        lambda: side_by_side(flat(1), gap=-1),
        lambda: depth_picture(np.zeros((2, 2, 2))),
        lambda: depth_picture(np.ones((2, 2)), near=3, far=2),
        lambda: depth_picture(np.ones((2, 2)), near=0, far=2),
    ],
)
def test_bad_pictures_are_refused(attempt: object) -> None:
    assert callable(attempt)
    with pytest.raises(MediaError):
        attempt()
