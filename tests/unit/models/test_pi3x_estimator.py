"""Pi3X as an estimator: sizes, intrinsics, anchoring, edges and messages."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from flythrough.errors import GeometryError, WeightsError
from flythrough.geometry.types import ScaleKind
from flythrough.models.pi3x import Pi3X
from flythrough.models.pi3x_config import Pi3XConfig
from flythrough.models.pi3x_estimator import (
    Pi3XEstimator,
    intrinsics_from_rays,
    network_size,
    pi3x_estimator,
    resize_depth,
)
from flythrough.models.pi3x_files import save_pi3x
from flythrough.models.pi3x_priors import pixel_slopes


def config(*, multimodal: bool = False) -> Pi3XConfig:
    return Pi3XConfig(
        width=16,
        heads=2,
        grid=2,
        encoder_depth=1,
        depth_encoder_depth=1,
        decoder_depth=4,
        inject_after=(1,),
        head_width=16,
        head_heads=2,
        head_depth=1,
        conv_in=16,
        conv_widths=(16, 16, 16),
        camera_width=12,
        metric_width=16,
        metric_heads=2,
        metric_depth=1,
        multimodal=multimodal,
        pixel_limit=2500,
    )


@pytest.fixture
def estimator() -> Pi3XEstimator:
    torch.manual_seed(0)
    return Pi3XEstimator(Pi3X(config()).eval().requires_grad_(False))


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        ((1080, 1920), (378, 672)),
        ((480, 640), (434, 574)),
        ((480, 832), (378, 658)),
        ((384, 672), (378, 672)),
        ((512, 512), (504, 504)),
        ((352, 640), (364, 686)),
    ],
)
def test_published_network_sizes(picture: tuple[int, int], expected: tuple[int, int]) -> None:
    assert network_size(*picture, 255_000) == expected


def test_network_size_of_the_small_model_and_of_extremes() -> None:
    assert network_size(192, 320, 64_000) == (196, 322)
    rows, columns = network_size(4, 40_000, 64_000)
    assert rows == 14
    assert rows * columns <= 64_000


def test_estimate_speaks_the_images_size(estimator: Pi3XEstimator) -> None:
    geometry = estimator.estimate(torch.rand(2, 3, 32, 48))
    assert geometry.depth.shape == geometry.confidence.shape == geometry.valid.shape == (2, 32, 48)
    assert geometry.scale == ScaleKind.METRIC
    assert float(geometry.confidence.min()) >= 0
    assert float(geometry.confidence.max()) <= 1
    assert bool((geometry.depth[~geometry.valid] == 0).all())
    assert bool((geometry.depth[geometry.valid] > 0).all())
    assert torch.equal(geometry.world_from_camera[0], torch.eye(4))
    centres = geometry.intrinsics[:, :2, 2]
    torch.testing.assert_close(centres, torch.tensor([24.0, 16.0]).expand(2, 2))


def test_known_intrinsics_are_kept(estimator: Pi3XEstimator) -> None:
    camera = torch.tensor([[40.0, 0, 24], [0, 40, 16], [0, 0, 1]])
    geometry = estimator.estimate(torch.rand(2, 3, 32, 48), intrinsics=camera)
    assert torch.equal(geometry.intrinsics, camera.expand(2, 3, 3))


def test_multimodal_network_sees_known_intrinsics() -> None:
    torch.manual_seed(0)
    net = Pi3X(config(multimodal=True)).eval().requires_grad_(False)
    torch.nn.init.normal_(net.ray_embed.proj.weight)
    images = torch.rand(1, 3, 32, 48)
    estimator = Pi3XEstimator(net)
    depths = []
    for focal in (30.0, 90.0):
        camera = torch.tensor([[focal, 0, 24], [0, focal, 16], [0, 0, 1]])
        depths.append(estimator.estimate(images, intrinsics=camera).depth)
    assert estimator.capabilities.uses_intrinsics
    assert not torch.allclose(depths[0], depths[1])


def test_intrinsics_come_back_from_rays() -> None:
    camera = torch.tensor([[31.0, 0, 21], [0, 35, 14], [0, 0, 1]])
    rays = functional.pad(pixel_slopes(camera[None], 28, 42), (0, 1), value=1.0)
    found = intrinsics_from_rays(rays * (1 + torch.rand(1, 28, 42, 1)))
    torch.testing.assert_close(found[0], camera, rtol=1e-4, atol=1e-4)


def test_depth_jumps_stay_sharp() -> None:
    depth = torch.full((1, 8, 8), 1.0)
    depth[:, :, 4:] = 5.0
    larger = resize_depth(depth, (20, 20))
    assert set(larger.round(decimals=3).unique().tolist()) == {1.0, 5.0}
    ramp = torch.linspace(1, 1.02, 8).expand(1, 8, 8).contiguous()
    assert len(resize_depth(ramp, (20, 20)).unique()) > 8
    assert resize_depth(depth, (8, 8)) is depth


def test_folder_gives_an_estimator(tmp_path: Path) -> None:
    save_pi3x(Pi3X(config()), tmp_path)
    assert pi3x_estimator(tmp_path).name == "pi3x"
    with pytest.raises(WeightsError):
        pi3x_estimator(tmp_path / "none")


@pytest.mark.parametrize("shape", [(3, 28, 42), (0, 3, 28, 42), (1, 4, 28, 42), (65, 3, 14, 14)])
def test_unusable_images(estimator: Pi3XEstimator, shape: tuple[int, ...]) -> None:
    with pytest.raises(GeometryError, match="pi3x"):
        estimator.estimate(torch.rand(shape))


def test_unusable_intrinsics(estimator: Pi3XEstimator) -> None:
    with pytest.raises(GeometryError, match="do not fit 1 views"):
        estimator.estimate(torch.rand(1, 3, 28, 42), intrinsics=torch.eye(4))
