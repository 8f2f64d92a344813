"""Sky regions: which count, in what order, and how far away they are put."""

from __future__ import annotations

import torch
from scipy import ndimage

from flythrough.geometry.types import Geometry, ScaleKind
from flythrough.scene.backdrop import far_backdrop, regions_at_top
from flythrough.scene.mesh_memory import MeshMemory
from flythrough.scene.settings import WarpSettings


def test_regions_agree_with_a_known_labeller() -> None:
    source = torch.Generator().manual_seed(3)
    for density in (0.35, 0.5, 0.65):
        invalid = torch.rand(40, 60, generator=source) < density
        labels = regions_at_top(invalid)
        known, _ = ndimage.label(invalid.numpy(), structure=torch.ones(3, 3).numpy())
        at_top = set(known[0].tolist()) - {0}
        assert len(at_top) == len(labels.unique()) - int((labels == 0).any())
        for number in at_top:
            region = torch.from_numpy(known == number)
            first = int(region[0].nonzero()[0])
            assert torch.equal(labels == first + 1, region)


def test_a_winding_region_is_followed_to_its_end() -> None:
    invalid = torch.zeros(41, 41, dtype=torch.bool)
    invalid[::2] = True
    for row in range(1, 41, 2):
        invalid[row, 40 if row % 4 == 1 else 0] = True
    assert torch.equal(regions_at_top(invalid) == 1, invalid)


def test_only_large_regions_at_the_top_are_filled() -> None:
    depth = torch.linspace(2, 6, 80)[:, None].expand(80, 100).clone()
    valid = torch.ones(80, 100, dtype=torch.bool)
    valid[:20, :60] = False
    valid[:10, 80:90] = False
    valid[40:75, 10:60] = False
    found = far_backdrop(depth, valid)
    expected = torch.zeros_like(valid)
    expected[:20, :60] = True
    assert torch.equal(found.filled, expected)
    value = found.depth[expected].unique()
    assert len(value) == 1
    assert value >= depth[valid].quantile(0.98) - 1e-5
    assert torch.equal(found.depth[~expected], depth[~expected])


def test_nothing_is_filled_without_any_depth() -> None:
    nothing = torch.zeros(40, 60, dtype=torch.bool)
    assert not far_backdrop(torch.zeros(40, 60), nothing).filled.any()


def test_sky_is_seen_behind_the_skyline() -> None:
    depth = torch.full((1, 64, 96), 3.0)
    depth[:, :30] = 0
    matrix = torch.tensor([[[80.0, 0, 48], [0, 80, 32], [0, 0, 1]]])
    geometry = Geometry(
        depth, (depth > 0).float(), depth > 0, matrix, torch.eye(4)[None], ScaleKind.METRIC
    )
    picture = torch.zeros(3, 64, 96)
    picture[2, :30] = 1
    memory = MeshMemory().extended(picture, geometry)
    poses = torch.eye(4).repeat(2, 1, 1)
    poses[1, 1, 3] = 0.1
    for top_fill, expected in ((True, 1.0), (False, 0.0)):
        view = memory.render(
            poses, matrix.expand(2, 3, 3), (64, 96), WarpSettings(top_fill=top_fill)
        )
        assert view.visible[1, 4:20, 4:-4].mean() == expected
    assert torch.equal(view.depth[0, :29], torch.zeros(29, 96))
