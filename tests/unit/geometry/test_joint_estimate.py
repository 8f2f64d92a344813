"""Views estimated together, and focal lengths held together."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from flythrough.errors import GeometryError
from flythrough.geometry.estimators.oracle import OracleDepth, OracleError
from flythrough.geometry.focal import smoothed_focals
from flythrough.geometry.joint import joint_estimate

SIZE = (12, 16)


def oracle(scale: float) -> OracleDepth:
    matrix = torch.tensor([[14.0, 0, 8], [0, 14, 6], [0, 0, 1]]).expand(3, 3, 3)
    poses = torch.eye(4).repeat(3, 1, 1)
    poses[:, 0, 3] = torch.arange(3.0)
    depth = torch.linspace(1, 3, 3 * SIZE[0] * SIZE[1]).view(3, *SIZE)
    return OracleDepth(depth, matrix, poses, OracleError(scale=scale))


def test_depth_and_cameras_take_the_scale_of_the_first_view() -> None:
    images = torch.zeros(3, 3, *SIZE)
    photo = oracle(1.0).estimate(images[:1])
    found = joint_estimate(oracle(0.5), images, photo)
    exact = oracle(1.0).estimate(images)
    assert found.fitted.status == "ok"
    assert torch.allclose(found.geometry.depth, exact.depth)
    assert found.geometry.world_from_camera[:, 0, 3].tolist() == [0, 2, 4]
    far = joint_estimate(oracle(100.0), images, photo)
    assert far.fitted.status == "clamped"
    blind = replace(photo, valid=torch.zeros_like(photo.valid))
    assert joint_estimate(oracle(0.5), images, blind).fitted.status == "no_valid_overlap"


def test_wrong_use_is_refused() -> None:
    images = torch.zeros(4, 3, *SIZE)
    photo = oracle(1.0).estimate(images[:1])
    with pytest.raises(GeometryError, match=r"takes 3 view.* 4 keyframes .*estimation"):
        joint_estimate(oracle(1.0), images, photo)
    with pytest.raises(GeometryError, match="first view's alone"):
        joint_estimate(oracle(1.0), images[:2], oracle(1.0).estimate(images[:2]))


def test_focal_lengths_move_slowly() -> None:
    focal = torch.tensor([100.0, 100, -100, 1000, 1])
    matrices = torch.eye(3).repeat(5, 1, 1)
    matrices[:, 0, 0], matrices[:, 1, 1] = focal, 2 * focal
    found = smoothed_focals(matrices, (10, 20))
    assert found[:, 0, 0].tolist() == [100, 100, 100, 117.5, 91.25]
    assert torch.equal(found[:, 1, 1], 2 * found[:, 0, 0])
    assert found[:, :2, 2].tolist() == [[10, 5]] * 5
