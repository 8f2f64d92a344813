"""The oracle's error is what was dialled in, and the same for the same seed."""

from __future__ import annotations

import pytest
import torch

from flythrough.errors import GeometryError
from flythrough.geometry.estimators.oracle import OracleDepth, OracleError

SIZE = (48, 80)
MATRIX = torch.tensor([[80.0, 0, 40], [0, 80, 24], [0, 0, 1]])


def exact(frames: int = 3) -> torch.Tensor:
    columns = torch.arange(SIZE[1]).expand(frames, *SIZE)
    return torch.where(columns < 40, 2.0, 5.0)


def oracle(**error: float) -> OracleDepth:
    return OracleDepth(exact(), MATRIX.expand(3, 3, 3), error=OracleError(**error))  # type: ignore[arg-type]


def pictures(count: int = 3) -> torch.Tensor:
    return torch.rand(count, 3, *SIZE)


def test_no_error_is_exact() -> None:
    found = oracle().estimate(pictures())
    assert torch.equal(found.depth, exact())
    assert found.valid.all()


def test_scale_multiplies() -> None:
    assert torch.allclose(oracle(scale=1.5).estimate(pictures()).depth, 1.5 * exact())


def test_smooth_noise_has_its_deviation_and_is_smooth() -> None:
    factor = (oracle(smooth=0.1).estimate(pictures()).depth / exact()).log()
    assert 0.03 < float(factor.std()) < 0.2
    assert float(factor.diff(dim=2).abs().max()) < 0.1
    rough = (oracle(noise=0.1).estimate(pictures()).depth / exact()).log()
    assert float(rough.std()) == pytest.approx(0.1, rel=0.1)


def test_blur_changes_depth_near_jumps_only() -> None:
    found = oracle(edge_blur=2).estimate(pictures()).depth
    assert torch.equal(found[:, :, :36], exact()[:, :, :36])
    assert torch.equal(found[:, :, 44:], exact()[:, :, 44:])
    middle = found[:, 10, 38:42]
    assert ((middle > 2) & (middle < 5)).any()


def test_holes_have_their_share() -> None:
    found = oracle(holes=0.2).estimate(pictures())
    share = (~found.valid).float().mean((1, 2))
    assert torch.allclose(share, torch.full((3,), 0.2), atol=0.01)
    assert torch.equal(found.depth == 0, ~found.valid)


def test_the_seed_decides_and_the_number_of_views_does_not() -> None:
    settings = {"smooth": 0.1, "noise": 0.05, "holes": 0.1, "edge_blur": 1}
    one = oracle(seed=4, **settings).estimate(pictures()).depth
    assert torch.equal(one, oracle(seed=4, **settings).estimate(pictures()).depth)
    assert torch.equal(one[:2], oracle(seed=4, **settings).estimate(pictures(2)).depth)
    assert not torch.equal(one, oracle(seed=5, **settings).estimate(pictures()).depth)


def test_cameras_are_handed_out() -> None:
    cameras = torch.eye(4).repeat(3, 1, 1)
    cameras[:, 0, 3] = torch.arange(3)
    found = OracleDepth(exact(), MATRIX.expand(3, 3, 3), cameras).estimate(pictures(2))
    assert torch.equal(found.world_from_camera, cameras[:2])


@pytest.mark.parametrize(
    "error", [{"scale": 0.0}, {"smooth": -1.0}, {"holes": 1.0}, {"edge_blur": -1}, {"noise": -0.1}]
)
def test_errors_out_of_range_are_refused(error: dict[str, float]) -> None:
    with pytest.raises(GeometryError, match="out of range"):
        oracle(**error)


def test_another_size_is_refused() -> None:
    with pytest.raises(GeometryError, match="one size"):
        oracle().estimate(torch.rand(1, 3, 24, 40))
