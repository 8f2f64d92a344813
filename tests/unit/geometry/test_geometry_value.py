"""The Geometry value: points, units, frames and the rules that its parts obey."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from flythrough.errors import GeometryError
from flythrough.geometry.types import Geometry, ScaleKind


def two_frames() -> Geometry:
    depth = torch.rand(2, 6, 8) + 1
    depth[0, 0, 0] = 0
    cameras = torch.eye(4).repeat(2, 1, 1)
    cameras[1, :3, 3] = torch.tensor([1.0, 2.0, 3.0])
    matrix = torch.tensor([[8.0, 0, 4], [0, 9, 3], [0, 0, 1]]).expand(2, 3, 3)
    return Geometry(depth, (depth > 0).float(), depth > 0, matrix, cameras, ScaleKind.METRIC)


def test_points_project_back_to_their_pixel_centres() -> None:
    geometry = two_frames()
    points = geometry.points_camera()[1]
    pixels = points @ geometry.intrinsics[1].T
    pixels = pixels[..., :2] / pixels[..., 2:]
    rows, columns = torch.meshgrid(torch.arange(6) + 0.5, torch.arange(8) + 0.5, indexing="ij")
    assert torch.allclose(pixels, torch.stack((columns, rows), -1), atol=1e-5)
    world = geometry.points_world()[1]
    assert torch.allclose(world - torch.tensor([1.0, 2.0, 3.0]), points, atol=1e-6)


def test_world_points_follow_the_rotation() -> None:
    geometry = two_frames()
    turn = torch.tensor([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    cameras = geometry.world_from_camera.clone()
    cameras[0, :3, :3] = turn
    found = geometry.placed(cameras).points_world()[0]
    assert torch.allclose(found, geometry.points_camera()[0] @ turn.T, atol=1e-6)


def test_scaling_moves_cameras_and_depth_together() -> None:
    geometry = two_frames()
    assert torch.allclose(geometry.scaled(2.0).points_world(), 2 * geometry.points_world())
    depth_only = geometry.with_depth_scaled(torch.tensor(2.0))
    assert torch.equal(depth_only.world_from_camera, geometry.world_from_camera)
    assert torch.equal(depth_only.depth, 2 * geometry.depth)


def test_frames_count_from_both_ends() -> None:
    geometry = two_frames()
    assert len(geometry) == 2
    assert geometry.size == (6, 8)
    assert torch.equal(geometry.frame(-1).depth, geometry.frame(1).depth)
    assert len(geometry.frame(0)) == 1
    with pytest.raises(GeometryError, match="Frame 2"):
        geometry.frame(2)


def test_median_depth_ignores_invalid_pixels() -> None:
    geometry = two_frames()
    flat = replace(geometry, depth=torch.where(geometry.valid, 3.0, 100.0))
    assert float(flat.median_depth()) == 3.0
    nothing = replace(geometry, valid=torch.zeros_like(geometry.valid))
    assert float(nothing.median_depth(1)) == 1.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"confidence": torch.ones(2, 6, 9)}, "confidence"),
        ({"intrinsics": torch.ones(1, 3, 3)}, "intrinsics"),
        ({"world_from_camera": torch.ones(2, 3, 4)}, "world_from_camera"),
        ({"valid": torch.ones(2, 6, 8, dtype=torch.bool)}, "valid"),
        ({"depth": torch.full((2, 6, 8), torch.nan)}, "valid"),
        ({"depth": torch.ones(6, 8)}, "depth"),
    ],
)
def test_disagreeing_parts_are_refused(changes: dict[str, torch.Tensor], words: str) -> None:
    with pytest.raises(GeometryError, match=words):
        replace(two_frames(), **changes)
