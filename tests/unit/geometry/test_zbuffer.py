"""Drawing points and triangles into depth: exact where the answer is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from flythrough.geometry import zbuffer
from flythrough.geometry.types import unproject
from flythrough.geometry.zbuffer import nearest_points, nearest_triangles

SIZE = (24, 36)
MATRIX = torch.tensor([[30.0, 0, 17.3], [0, 31, 12.6], [0, 0, 1]], dtype=torch.float64)


def rays() -> Tensor:
    return unproject(torch.ones(1, *SIZE, dtype=torch.float64), MATRIX[None])[0]


def quad(*corners: tuple[float, float, float]) -> Tensor:
    a, b, c, d = (torch.tensor(corner, dtype=torch.float64) for corner in corners)
    return torch.stack((torch.stack((a, b, c)), torch.stack((a, c, d))))


def test_a_cloud_of_pixel_centres_gives_its_depth_back() -> None:
    depth = 1 + torch.rand(1, *SIZE, generator=torch.Generator().manual_seed(0))
    points = unproject(depth, MATRIX[None].float())[0].reshape(-1, 3)
    assert torch.equal(nearest_points(points, MATRIX, SIZE).float(), depth[0])


def test_the_nearest_point_wins_and_what_is_behind_is_left_out() -> None:
    ray = rays()[5, 7]
    points = torch.stack((3 * ray, 2 * ray, -1 * ray, 5 * ray))
    depth = nearest_points(points, MATRIX, SIZE)
    assert depth[5, 7] == pytest.approx(2)
    assert int((depth > 0).sum()) == 1


def test_a_slanted_plane_is_exact_at_every_pixel_centre() -> None:
    normal, offset = torch.tensor([0.2, -0.3, 1.0], dtype=torch.float64), 4.0

    def on_plane(x: float, y: float) -> tuple[float, float, float]:
        return (x, y, offset - 0.2 * x + 0.3 * y)

    plane = quad(on_plane(-9, -9), on_plane(9, -9), on_plane(9, 9), on_plane(-9, 9))
    expected = offset / (rays() @ normal)
    for corners in (plane, plane.flip(1)):
        assert torch.allclose(nearest_triangles(corners, MATRIX, SIZE), expected)


def test_a_floor_that_passes_under_the_camera_needs_no_clipping() -> None:
    floor = quad((-50, 1.5, -20), (50, 1.5, -20), (50, 1.5, 40), (-50, 1.5, 40))
    depth = nearest_triangles(floor, MATRIX, SIZE)
    expected = 1.5 / rays()[..., 1]
    expected = torch.where((expected > 0) & (expected <= 40), expected, 0.0)
    assert torch.allclose(depth, expected)
    assert int((depth > 0).sum()) > 100


def test_a_fine_mesh_has_no_cracks_and_equals_the_coarse_one() -> None:
    steps = torch.linspace(-9, 9, 40, dtype=torch.float64)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    grid = torch.stack((x, y, 3 + 0.1 * x), dim=-1)
    a, b, c, d = grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]
    fine = torch.cat((torch.stack((a, b, c), 2), torch.stack((a, c, d), 2))).reshape(-1, 3, 3)
    coarse = quad((-9, -9, 2.1), (9, -9, 3.9), (9, 9, 3.9), (-9, 9, 2.1))
    drawn = nearest_triangles(fine, MATRIX, SIZE)
    assert (drawn > 0).all()
    assert torch.allclose(drawn, nearest_triangles(coarse, MATRIX, SIZE))


def test_a_sphere_is_as_round_as_its_mesh() -> None:
    turn = torch.linspace(0, 2 * math.pi, 200, dtype=torch.float64)
    tilt = torch.linspace(0, math.pi, 100, dtype=torch.float64)
    tilt, turn = torch.meshgrid(tilt, turn, indexing="ij")
    grid = torch.stack((tilt.sin() * turn.cos(), tilt.cos(), tilt.sin() * turn.sin()), -1)
    grid = grid + torch.tensor([0.1, 0.2, 4.0])
    a, b, c, d = grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]
    mesh = torch.cat((torch.stack((a, b, c), 2), torch.stack((a, c, d), 2))).reshape(-1, 3, 3)
    depth = nearest_triangles(mesh, MATRIX, SIZE)
    ray, centre = rays(), torch.tensor([0.1, 0.2, 4.0], dtype=torch.float64)
    length, along = (ray * ray).sum(-1), ray @ centre
    inside = along**2 - length * (centre @ centre - 1)
    expected = (along - inside.clamp_min(0).sqrt()) / length
    both = (inside > 0.05) & (depth > 0)
    assert int(both.sum()) > 100
    assert (depth - expected)[both].abs().max() < 2e-3
    assert not ((depth > 0) & (inside < 0)).any()


def test_flat_triangles_and_those_behind_draw_nothing() -> None:
    behind = quad((-9, -9, -2), (9, -9, -2), (9, 9, -2), (-9, 9, -2))
    line = torch.tensor([[[0.0, 0, 1], [0, 0, 2], [0, 0, 3]], [[1, 1, 2], [1, 1, 2], [1, 1, 2]]])
    for corners in (behind, line.double(), behind[:0]):
        assert not nearest_triangles(corners, MATRIX, SIZE).any()


def test_large_triangles_are_drawn_like_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    size, matrix = (90, 130), MATRIX * torch.tensor([[4.0], [4.0], [1.0]], dtype=torch.float64)
    source = torch.Generator().manual_seed(5)
    corners = 3 * torch.randn(30, 3, 3, generator=source, dtype=torch.float64)
    drawn = []
    for limit in (1, 1 << 30):
        monkeypatch.setattr(zbuffer, "_LARGE", limit)
        drawn.append(nearest_triangles(corners, matrix, size))
    assert (drawn[0] > 0).double().mean() > 0.5
    assert torch.equal(drawn[0] > 0, drawn[1] > 0)
    assert torch.allclose(drawn[0], drawn[1], rtol=1e-12)
