"""The z-buffer's rules, sample by sample, and how the mesh is sampled."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from flythrough.scene.fill import close_small_holes, fill_colour
from flythrough.scene.mesh import NoSurfaceError, Samples, joined, quad_samples
from flythrough.scene.raster import Splat, frames_per_pass, splat

MATRIX = torch.tensor([[[10.0, 0, 4], [0, 10, 3], [0, 0, 1]]])
SIZE = (6, 8)
EYE = torch.eye(4)[None]


def samples(points: list[list[float]], reds: list[float]) -> Samples:
    count = len(points)
    colours = torch.zeros(count, 3)
    colours[:, 0] = torch.tensor(reds)
    return Samples(
        torch.tensor(points), colours, torch.zeros(count, 2), torch.zeros(count, dtype=torch.int64)
    )


def at(column: float, row: float, z: float) -> list[float]:
    """The point seen at image position (column, row), pixel centres at half-integers."""
    return [(column - 4) / 10 * z, (row - 3) / 10 * z, z]


def test_a_point_lands_on_the_pixel_that_covers_it() -> None:
    for column, row in ((0.5, 0.5), (2.1, 3.9), (7.9, 5.9), (4.0 + 1e-3, 3.0 - 1e-3)):
        drawn = splat(samples([at(column, row, 2.0)], [1.0]), EYE, MATRIX, SIZE)
        assert drawn.seen[0].nonzero().tolist() == [[int(row), int(column)]]
        assert drawn.depth[0].max() == 2.0


def test_the_nearest_wins_and_the_last_of_equals() -> None:
    points = [at(2.5, 2.5, z) for z in (3.0, 1.0, 2.0, 1.0, 4.0)]
    drawn = splat(samples(points, [0.1, 0.2, 0.3, 0.4, 0.5]), EYE, MATRIX, SIZE)
    assert float(drawn.rgb[0, 2, 2, 0]) == pytest.approx(0.4)
    assert float(drawn.depth[0, 2, 2]) == 1.0


def test_points_outside_behind_and_not_finite_are_dropped() -> None:
    points = [
        at(-0.6, 2, 1.0),
        at(8.6, 2, 1.0),
        at(2, 7, 1.0),
        [0.0, 0.0, -1.0],
        [0.0, 0.0, 0.0],
        [torch.nan, 0.0, 1.0],
        [torch.inf, 0.0, 1.0],
        [0.0, 0.0, torch.inf],
    ]
    drawn = splat(samples(points[:-1], [1.0] * 7), EYE, MATRIX, SIZE)
    assert not drawn.seen.any()
    assert not drawn.rgb.any()


def test_cameras_of_one_call_do_not_mix() -> None:
    poses = torch.eye(4).repeat(3, 1, 1)
    poses[1, 0, 3], poses[2, 2, 3] = 0.2, 5.0
    points = samples([at(4.5, 3.5, 1.0)], [1.0])
    together = splat(points, poses, MATRIX.expand(3, 3, 3), SIZE)
    for i in range(3):
        alone = splat(points, poses[i : i + 1], MATRIX, SIZE)
        assert torch.equal(together.rgb[i], alone.rgb[0])
    assert together.seen.flatten(1).sum(1).tolist() == [1, 1, 0]


def test_more_samples_mean_fewer_frames_a_pass() -> None:
    few, many = (
        Samples(torch.zeros(n, 3), torch.zeros(n, 3), torch.zeros(n, 2), torch.zeros(n).long())
        for n in (1000, 1_000_000)
    )
    assert frames_per_pass(few, SIZE) > frames_per_pass(many, SIZE) >= 1


def grid(height: int, width: int) -> Tensor:
    rows, columns = torch.meshgrid(
        torch.arange(float(height)), torch.arange(float(width)), indexing="ij"
    )
    return torch.stack((columns, rows, torch.ones_like(rows)), dim=-1)


def test_samples_are_spread_evenly_over_valid_cells() -> None:
    valid = torch.ones(3, 4, dtype=torch.bool)
    valid[0, 0] = False
    found = quad_samples(grid(3, 4), torch.zeros(3, 4, 3), valid, 2)
    assert len(found) == 5 * 4
    assert torch.equal(found.points[:, :2], found.source_xy)
    assert sorted(set((found.source_xy % 1).flatten().tolist())) == [0.25, 0.75]
    assert not ((found.source_xy < 1).all(-1)).any()


def test_no_cell_is_an_error() -> None:
    checker = (grid(6, 6)[..., 0] + grid(6, 6)[..., 1]) % 2 == 0
    with pytest.raises(NoSurfaceError):
        quad_samples(grid(6, 6), torch.zeros(6, 6, 3), checker, 2)
    with pytest.raises(NoSurfaceError):
        quad_samples(grid(1, 6), torch.zeros(1, 6, 3), torch.ones(1, 6, dtype=torch.bool), 2)


def test_joined_meshes_remember_where_they_came_from() -> None:
    one = samples([at(1, 1, 1), at(2, 2, 1)], [0.1, 0.2])
    assert joined([one, one]).source.tolist() == [0, 0, 1, 1]


def ring(sources: list[int]) -> Splat:
    """A hole in the middle of 3x3 seen pixels whose source ids are given row by row."""
    seen = torch.ones(1, 3, 3, dtype=torch.bool)
    seen[0, 1, 1] = False
    xy = grid(3, 3)[None, ..., :2] * seen[..., None]
    source = torch.tensor([[*sources[:4], 0, *sources[4:]]]).view(1, 3, 3)
    return Splat(torch.zeros(1, 3, 3, 3), seen.float() * 2, seen, xy, source)


def plain(value: float) -> Tensor:
    return torch.full((3, 3, 3), value)


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ([0] * 8, 0.2),
        ([1] * 8, 0.6),
        ([0, 0, 0, 0, 0, 1, 1, 1], 0.2),
        ([0, 0, 0, 0, 1, 1, 1, 1], 0.6),
    ],
)
def test_the_most_frequent_source_fills_a_hole(sources: list[int], expected: float) -> None:
    closed = close_small_holes(ring(sources), [plain(0.2), plain(0.6)], radius=1, min_neighbors=4)
    assert float(closed.rgb[0, 1, 1, 0]) == pytest.approx(expected)
    assert float(closed.depth[0, 1, 1]) == 2.0
    assert int(closed.source[0, 1, 1]) == int(expected > 0.5)
    published = close_small_holes(
        ring(sources), [plain(0.2), plain(0.6)], radius=1, min_neighbors=4, reference=True
    )
    assert float(published.rgb[0, 1, 1, 0]) == pytest.approx(0.6)


def test_too_few_neighbours_leave_the_hole() -> None:
    closed = close_small_holes(ring([0] * 8), [plain(0.2)], radius=1, min_neighbors=9)
    assert not closed.seen[0, 1, 1]


def test_fill_colour_is_rounded_to_eight_bits() -> None:
    picture = torch.rand(3, 5, 7)
    found = fill_colour(picture, "mean_first_frame") * 255
    assert torch.allclose(found, found.round(), atol=1e-4)
    assert (found / 255 - picture.mean((1, 2))).abs().max() <= 0.5 / 255 + 1e-6
    assert not fill_colour(picture, "black").any()
