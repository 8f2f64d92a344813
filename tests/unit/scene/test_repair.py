"""Poor geometry: what is tried, in what order, and that it is said."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from flythrough.errors import GeometryError
from flythrough.geometry.types import Geometry, ScaleKind
from flythrough.scene.settings import WarpSettings
from flythrough.scene.surface import Keyframe, most_confident, repaired, surface

SIZE = (20, 30)
PLAIN = WarpSettings(top_fill=False)


def key(depth: Tensor, valid: Tensor, confidence: Tensor) -> Keyframe:
    geometry = Geometry(
        depth=depth[None],
        confidence=confidence[None],
        valid=valid[None],
        intrinsics=torch.tensor([[[30.0, 0, 15], [0, 30, 10], [0, 0, 1]]]),
        world_from_camera=torch.eye(4)[None],
        scale=ScaleKind.METRIC,
    )
    return Keyframe(torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(0)), geometry)


def nowhere() -> Tensor:
    return torch.zeros(SIZE, dtype=torch.bool)


def test_good_geometry_is_left_alone() -> None:
    good = key(torch.ones(SIZE), torch.ones(SIZE, dtype=torch.bool), torch.ones(SIZE))
    said: list[str] = []
    assert repaired(good, PLAIN, said.append) is good
    assert said == []


def test_without_a_sure_pixel_the_most_confident_are_taken() -> None:
    rising = torch.linspace(0, 0.09, SIZE[0] * SIZE[1]).view(SIZE)
    poor = key(torch.ones(SIZE), nowhere(), rising)
    said: list[str] = []
    found = repaired(poor, PLAIN, said.append)
    assert said == [
        "no pixel has sure depth: the 5 % most confident are used",
        "no surface is left: trying the 20 % most confident pixels",
    ]
    assert torch.equal(found.geometry.valid[0], most_confident(poor.geometry, 20))
    assert (found.geometry.confidence[found.geometry.valid] > PLAIN.confidence).all()
    assert len(surface(found, PLAIN, 2)) == len(surface(poor, PLAIN, 2)) > 0


def test_a_mesh_that_cutting_would_destroy_is_left_whole() -> None:
    depth = 1 + 4 * torch.rand(SIZE, generator=torch.Generator().manual_seed(1))
    rough = key(depth, torch.ones(SIZE, dtype=torch.bool), torch.ones(SIZE))
    said: list[str] = []
    found = repaired(rough, PLAIN, said.append)
    assert found.uncut
    assert said[-1].endswith("the mesh uncut")
    assert len(surface(rough, PLAIN, 1)) > 0


def test_every_attempt_is_said_before_giving_up() -> None:
    poor = key(torch.zeros(SIZE), nowhere(), torch.ones(SIZE))
    said: list[str] = []
    with pytest.raises(GeometryError, match="no connected valid surface"):
        repaired(poor, PLAIN, said.append)
    assert [text.split("trying the ")[1] for text in said[1:]] == [
        f"{percent} % most confident pixels{how}"
        for percent in (20, 50, 100)
        for how in ("", ", the mesh uncut")
    ]
