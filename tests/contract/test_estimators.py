"""What every geometry estimator promises, checked for each of them.

A new estimator adds one line to ``BUILDERS``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from flythrough.errors import InputError
from flythrough.geometry.estimator import Estimator
from flythrough.geometry.estimators.flat import FlatDepth
from flythrough.geometry.estimators.given import GivenDepth
from flythrough.geometry.estimators.oracle import OracleDepth, OracleError
from flythrough.geometry.estimators.shape import Shape, ShapeDepth
from flythrough.geometry.types import Geometry, ScaleKind

SIZE = (56, 84)
VIEWS = 3
MATRIX = torch.tensor([[70.0, 0, 42], [0, 71, 28], [0, 0, 1]])


def _depth(count: int) -> Tensor:
    rows = torch.linspace(1, 3, SIZE[0])[:, None].expand(count, *SIZE).clone()
    rows[:, :5, :7] = 0
    return rows


def _oracle(error: OracleError) -> Estimator:
    return OracleDepth(_depth(VIEWS), MATRIX.expand(VIEWS, 3, 3), error=error)


def _pi3x(folder: Path) -> Estimator:
    from flythrough.models.pi3x_estimator import pi3x_estimator

    return pi3x_estimator(folder)


def _ttt3r() -> Estimator:
    from flythrough.models.ttt3r import TTT3R
    from flythrough.models.ttt3r_config import TINY
    from flythrough.models.ttt3r_estimator import TTT3REstimator

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return TTT3REstimator(TTT3R(TINY).eval().requires_grad_(False), reset_every=2)


def _monocular(folder: Path) -> Estimator:
    from flythrough.models.monocular import load_monocular
    from flythrough.models.monocular_files import find_monocular

    return load_monocular(find_monocular(str(folder)))


def _shape() -> Estimator:
    wall = torch.tensor(
        [[[-9.0, -9, 2], [9, -9, 2], [-9, 9, 3]], [[9, -9, 2], [9, 9, 3], [-9, 9, 3]]]
    )
    point = torch.tensor([[0.0, 0, 1]])
    return ShapeDepth(Shape(point.double(), wall.double()), "wall")


BUILDERS: dict[str, Callable[[], Estimator]] = {
    "flat": FlatDepth,
    "given": lambda: GivenDepth(_depth(1)[0].numpy(), "ramp"),
    "given-other-size": lambda: GivenDepth(np.ones((28, 42), np.float32), "wall"),
    "oracle-exact": lambda: _oracle(OracleError()),
    "oracle-wrong": lambda: _oracle(
        OracleError(scale=2, smooth=0.1, noise=0.02, edge_blur=1, holes=0.1, seed=3)
    ),
    "shape": _shape,
    "ttt3r": _ttt3r,
}
MONOCULAR = ("depth-pro", "relative", "metric")


@pytest.fixture(scope="module", params=[*BUILDERS, *MONOCULAR, "pi3x"])
def estimator(request: pytest.FixtureRequest) -> Estimator:
    if request.param == "pi3x":
        model: Path = request.getfixturevalue("tiny_model")
        return _pi3x(model / "geometry")
    if request.param in MONOCULAR:
        return _monocular(request.getfixturevalue("tiny_depth")[request.param])
    return BUILDERS[request.param]()


def pictures(count: int) -> Tensor:
    source = torch.Generator().manual_seed(1)
    coarse = torch.rand(count, 3, 7, 9, generator=source)
    return torch.nn.functional.interpolate(coarse, SIZE, mode="bilinear")


def most_views(estimator: Estimator) -> int:
    return min(VIEWS, estimator.capabilities.max_views or VIEWS)


def check(geometry: Geometry, count: int) -> None:
    assert geometry.depth.shape == (count, *SIZE)
    assert geometry.depth.dtype == geometry.confidence.dtype == torch.float32
    assert geometry.valid.dtype == torch.bool
    for name in ("depth", "confidence", "intrinsics", "world_from_camera"):
        assert getattr(geometry, name).isfinite().all(), name
    assert (geometry.depth[geometry.valid] > 0).all()
    assert (geometry.depth >= 0).all()
    assert geometry.confidence.min() >= 0
    assert geometry.confidence.max() <= 1
    assert (geometry.intrinsics[:, [0, 1], [0, 1]] > 0).all()
    assert torch.equal(geometry.intrinsics[:, 2], torch.tensor([[0.0, 0, 1]]).expand(count, 3))
    rotation = geometry.world_from_camera[:, :3, :3]
    eye = torch.eye(3).expand(count, 3, 3)
    assert torch.allclose(rotation @ rotation.transpose(1, 2), eye, atol=1e-4)
    assert isinstance(geometry.scale, ScaleKind)


def test_any_number_of_views_up_to_the_limit(estimator: Estimator) -> None:
    for count in range(1, most_views(estimator) + 1):
        check(estimator.estimate(pictures(count)), count)


def test_the_scale_is_declared(estimator: Estimator) -> None:
    assert estimator.estimate(pictures(1)).scale is estimator.capabilities.scale
    assert estimator.name


def test_the_first_view_is_the_origin(estimator: Estimator) -> None:
    first = estimator.estimate(pictures(most_views(estimator))).world_from_camera[0]
    assert torch.allclose(first, torch.eye(4), atol=1e-6)


def test_the_same_pictures_give_the_same_geometry(estimator: Estimator) -> None:
    images = pictures(most_views(estimator))
    one, two = estimator.estimate(images), estimator.estimate(images.clone())
    for name in ("depth", "confidence", "valid", "intrinsics", "world_from_camera"):
        assert torch.equal(getattr(one, name), getattr(two, name)), name


def test_pictures_are_left_alone(estimator: Estimator) -> None:
    images = pictures(1)
    before = images.clone()
    estimator.estimate(images)
    assert torch.equal(images, before)


def test_given_intrinsics_are_kept(estimator: Estimator) -> None:
    count = most_views(estimator)
    for matrices in (MATRIX, MATRIX.double().expand(count, 3, 3)):
        found = estimator.estimate(pictures(count), intrinsics=matrices).intrinsics
        assert torch.equal(found, MATRIX.expand(count, 3, 3))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda images: images[0],
        lambda images: images[:, :2],
        lambda images: images[:0],
        lambda images: images * 255,
        lambda images: images * 2 - 1.5,
        lambda images: images * torch.nan,
        lambda images: (images * 255).byte(),
    ],
    ids=["3-D", "two channels", "none", "0 to 255", "-1 to 1", "NaN", "uint8"],
)
def test_wrong_pictures_are_refused(
    estimator: Estimator, spoil: Callable[[Tensor], Tensor]
) -> None:
    with pytest.raises(InputError) as caught:
        estimator.estimate(spoil(pictures(1)))
    assert "\n" not in str(caught.value)


def test_too_many_views_are_refused(estimator: Estimator) -> None:
    limit = estimator.capabilities.max_views
    if limit is not None:
        with pytest.raises(InputError, match=str(limit)):
            estimator.estimate(torch.zeros(limit + 1, 3, *SIZE))


def test_wrong_intrinsics_are_refused(estimator: Estimator) -> None:
    with pytest.raises(InputError):
        estimator.estimate(pictures(1), intrinsics=torch.eye(4))
