"""Pi3X's building blocks, one by one, give the published code's recorded numbers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from flythrough.cameras import pose
from flythrough.models.pi3x_blocks import rotary_2d
from flythrough.models.pi3x_encoder import VisionEncoder
from flythrough.models.pi3x_estimator import intrinsics_from_rays, network_size
from flythrough.models.pi3x_heads import _with_uv, nearest_rotation
from flythrough.models.pi3x_priors import _normalised_depth, rigid_inverse
from flythrough.models.pi3x_prope import ViewPoses, _camera_attention, _grid_turns, _transformed

STORED = load_file(Path(__file__).parents[1] / "golden" / "pi3x_pieces" / "pieces.safetensors")


def close(value: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(value, expected, rtol=0, atol=tolerance)


def rotated(tokens: Tensor, case: str) -> Tensor:
    turns = [rotary_2d(16, positions) for positions in STORED[f"rope.pos{case}"]]
    return torch.cat([turn(tokens[i : i + 1]) for i, turn in enumerate(turns)])


@pytest.mark.parametrize("case", ["", "_big"])
def test_rotary_positions(case: str) -> None:
    close(rotated(STORED["rope.tokens"], case), STORED[f"rope.out{case}"], 1e-6)


@pytest.mark.parametrize("case", ["", "_big"])
def test_rotary_positions_in_half_precision(case: str) -> None:
    """Published with tables in bfloat16 too; ours are rounded once, so not further from exact."""
    tokens = STORED["rope.tokens"].bfloat16()
    found, exact = rotated(tokens, case), rotated(tokens.float(), case)
    published = STORED[f"rope.out{case}_bf16"]
    assert found.dtype == published.dtype
    assert (found - exact).abs().mean() <= (published - exact).abs().mean()
    close(found.float(), published.float(), 2**-4)


def test_pose_injection() -> None:
    forward = STORED["prope.viewmats"]
    poses = ViewPoses(forward, rigid_inverse(forward), rows=3, columns=5)
    q, k, v = (STORED[f"prope.in_{name}"] for name in "qkv")
    turns = _grid_turns(poses, q.shape[-1] // 4, q.device)
    close(_transformed(q, forward.mT, turns, 1), STORED["prope.gta.q"], 1e-6)
    close(_transformed(k, poses.world_from_camera, turns, 1), STORED["prope.gta.k"], 1e-6)
    close(_transformed(v, forward, turns, -1), STORED["prope.gta.o"], 1e-6)
    close(_camera_attention(q, k, v, poses, None), STORED["prope.gta.attn"], 2e-6)


def test_nearest_rotation() -> None:
    close(nearest_rotation(STORED["svd.in"].unflatten(-1, (3, 3))), STORED["svd.out"], 2e-6)


def test_normalised_depth() -> None:
    found, factor = _normalised_depth(STORED["normdepth.in"])
    close(found[:, :, 0], STORED["normdepth.mean"], 1e-6)
    close(factor, STORED["normdepth.mean_factor"], 1e-6)


@pytest.mark.parametrize("size", [(16, 16), (27, 48), (37, 37), (3, 5), (40, 28)])
def test_positions_of_other_grids(size: tuple[int, int]) -> None:
    encoder = cast(Any, SimpleNamespace(pos_embed=STORED["posembed.in"], _grid=37))
    first, grid = VisionEncoder.positions(encoder, *size)
    expected = STORED[f"posembed.{size[0]}x{size[1]}"]
    close(torch.cat([first, grid], dim=1)[:, : expected.shape[1]], expected, 1e-6)


@pytest.mark.parametrize(
    ("case", "size", "aspect"), [("8x5_ar", (5, 8), 5 / 3), ("6x6", (6, 6), 1.0)]
)
def test_picture_coordinates(case: str, size: tuple[int, int], aspect: float) -> None:
    found = _with_uv(torch.zeros(1, 1, *size), aspect)[0, 1:].permute(1, 2, 0)
    close(found, STORED[f"uv.{case}"], 1e-6)


@pytest.mark.parametrize("case", ["exact_center", "noisy_center", "negative_z_center"])
def test_intrinsics_from_rays(case: str) -> None:
    expected = STORED[f"rays.{case}.K"].clone()
    expected[..., :2, 2] += 0.5  # published pixel centres are integers
    found = intrinsics_from_rays(STORED[f"rays.{case}.rays_d"])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-5)


def test_inverse_of_rigid_motions() -> None:
    close(rigid_inverse(STORED["se3"]), STORED["se3_inverse"], 1e-6)
    found = pose.inverse(STORED["se3"].double().numpy())
    np.testing.assert_allclose(found, STORED["se3_inverse_np"].numpy(), atol=1e-6)


def test_network_sizes() -> None:
    """Two published rules: of the loader at its own limit, of the warp renderer at any."""
    for width, height, columns, rows in STORED["loader_sizes"].tolist():
        assert network_size(height, width, 255_000) == (rows, columns)
    for height, width, limit, rows, columns in STORED["warp_sizes"].tolist():
        assert network_size(height, width, limit) == (rows, columns)
