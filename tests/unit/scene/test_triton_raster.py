"""The kernels draw what the plain z-buffer draws; without a GPU they are interpreted."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from flythrough.geometry.types import Geometry, ScaleKind
from flythrough.scene import mesh_draw
from flythrough.scene.mesh import GridMesh, joined
from flythrough.scene.mesh_draw import Part
from flythrough.scene.mesh_memory import MeshMemory
from flythrough.scene.raster import Splat, splat
from flythrough.scene.settings import WarpSettings
from flythrough.scene.surface import Keyframe

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
pytestmark = pytest.mark.skipif(
    find_spec("triton") is None or not (CUDA or os.environ.get("TRITON_INTERPRET") == "1"),
    reason="needs Triton and a GPU, or TRITON_INTERPRET=1",
)
SIZE = (17, 26)
MATRIX = torch.tensor([[22.0, 0, 13], [0, 22, 8.5], [0, 0, 1]])
ROUNDING = 0.998
"""Share of pixels that must be equal: a sample may fall into the next pixel by rounding."""


def mesh(seed: int, height: int = 17, width: int = 26) -> GridMesh:
    """A bumpy wall with holes."""
    source = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    depth = 2 + 0.3 * torch.rand(height, width, generator=source)
    x = (columns + 0.5 - width / 2) / 22 * depth
    y = (rows + 0.5 - height / 2) / 22 * depth
    return GridMesh(
        torch.stack((x, y, depth), dim=-1).to(DEVICE),
        torch.rand(height, width, 3, generator=source).to(DEVICE),
        (torch.rand(height - 1, width - 1, generator=source) > 0.2).to(DEVICE),
    )


def cameras(count: int = 3) -> tuple[Tensor, Tensor]:
    poses = torch.eye(4).repeat(count, 1, 1)
    angle = 0.1 * torch.arange(count)
    poses[:, 0, 0], poses[:, 2, 2] = angle.cos(), angle.cos()
    poses[:, 0, 2], poses[:, 2, 0] = angle.sin(), -angle.sin()
    poses[:, :3, 3] = torch.tensor([0.04, -0.03, 0.2]) * torch.arange(count)[:, None]
    return poses.to(DEVICE), MATRIX.expand(count, 3, 3).to(DEVICE)


def both(parts: list[Part], poses: Tensor, matrices: Tensor) -> tuple[Splat, Splat]:
    from flythrough.scene.triton_raster import draw_grids

    samples = joined([part.mesh.sampled(part.per_axis) for part in parts])
    return draw_grids(parts, poses, matrices, SIZE), splat(samples, poses, matrices, SIZE)


def agree(ours: Splat, twin: Splat) -> None:
    same = (ours.seen == twin.seen) & (ours.source == twin.source)
    same &= torch.isclose(ours.source_xy, twin.source_xy).all(-1)
    assert same.float().mean() >= ROUNDING
    torch.testing.assert_close(ours.depth[same], twin.depth[same], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.rgb[same], twin.rgb[same], rtol=1e-5, atol=1e-6)
    assert 0.2 < twin.seen.float().mean() < 1
    assert ours.seen.dtype == torch.bool
    assert ours.source.dtype == torch.int64


@pytest.mark.parametrize("per_axis", [1, 2, 3])
def test_one_mesh(per_axis: int) -> None:
    part = Part(mesh(0), per_axis, torch.rand(3, 17, 26))
    agree(*both([part], *cameras()))


def test_several_meshes_of_several_sizes() -> None:
    parts = [
        Part(mesh(1), 1, torch.rand(3, 17, 26)),
        Part(mesh(2, 9, 14), 2, torch.rand(3, 9, 14)),
        Part(mesh(3), 2, torch.rand(3, 17, 26)),
    ]
    ours, twin = both(parts, *cameras())
    agree(ours, twin)
    assert set(twin.source.unique().tolist()) == {0, 1, 2}


def test_among_equals_the_last_wins() -> None:
    twice = [Part(mesh(4), 2, torch.rand(3, 17, 26))] * 2
    ours, twin = both(twice, *cameras(1))
    assert torch.equal(ours.source, twin.source)
    assert torch.equal(ours.source > 0, ours.seen)


def test_a_camera_that_looks_away_sees_nothing() -> None:
    away = torch.diag(torch.tensor([-1.0, 1, -1, 1]))[None].to(DEVICE)
    ours, _ = both([Part(mesh(5), 1, torch.rand(3, 17, 26))], away, MATRIX[None].to(DEVICE))
    assert not ours.seen.any()
    assert not ours.rgb.any()
    assert not ours.depth.any()


def test_a_memory_renders_the_same_through_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Joined and underlaid layers, holes closed: within a small share of pixels."""
    poses, matrices = cameras()
    memory = MeshMemory(tuple(Keyframe(picture(n), geometry(n)) for n in range(3)))
    settings = WarpSettings(samples_per_axis=2, top_fill=False, confidence=0.0)
    views = []
    for kernels in (True, False):
        monkeypatch.setattr(mesh_draw, "_kernels_draw", lambda *_, k=kernels: k)
        views.append(memory.render(poses, matrices, SIZE, settings, first_is_photo=True))
    ours, twin = views
    assert (ours.visible == twin.visible).float().mean() >= ROUNDING
    close = torch.isclose(ours.rgb, twin.rgb, atol=1e-5).all(1)
    assert close.float().mean() >= ROUNDING
    assert torch.isclose(ours.depth, twin.depth, atol=1e-5).float().mean() >= ROUNDING


def picture(seed: int) -> Tensor:
    return torch.rand(3, 17, 26, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def geometry(seed: int) -> Geometry:
    depth = mesh(seed).points[None, ..., 2]
    pose = cameras()[0][seed : seed + 1]
    return Geometry(
        depth=depth,
        confidence=torch.ones_like(depth),
        valid=torch.ones_like(depth, dtype=torch.bool),
        intrinsics=MATRIX[None].to(DEVICE),
        world_from_camera=pose,
        scale=ScaleKind.METRIC,
    )
