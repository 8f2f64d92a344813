"""The poorer scene memories: a point cloud with discs of one radius, and none."""

from __future__ import annotations

import torch

from flythrough.geometry.types import Geometry, ScaleKind
from flythrough.scene.point_memory import NoMemory, PointMemory
from flythrough.scene.settings import WarpSettings
from flythrough.scene.splat_memory import scene_memory
from flythrough.scene.surface import Keyframe

SIZE = (24, 32)
MATRIX = torch.tensor([[[24.0, 0, 16], [0, 24, 12], [0, 0, 1]]])


def wall(depth: float = 2.0) -> Keyframe:
    image = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(1))
    known = torch.full((1, *SIZE), depth)
    geometry = Geometry(
        depth=known,
        confidence=torch.ones_like(known),
        valid=torch.ones_like(known, dtype=torch.bool),
        world_from_camera=torch.eye(4)[None],
        intrinsics=MATRIX,
        scale=ScaleKind.METRIC,
    )
    return Keyframe(image, geometry)


def moved(x: float = 0.0, z: float = 0.0) -> torch.Tensor:
    camera = torch.eye(4)[None].clone()
    camera[0, 0, 3], camera[0, 2, 3] = x, z
    return camera


def test_points_show_the_picture_and_move_with_the_camera() -> None:
    keyframe, settings = wall(), WarpSettings(memory="points", top_fill=False)
    memory = scene_memory((keyframe,), settings)
    assert isinstance(memory, PointMemory)
    same = memory.render(moved(), MATRIX, SIZE, settings)
    assert float(same.visible.mean()) > 0.9
    inner = (slice(None), slice(2, -2), slice(2, -2))
    assert torch.allclose(same.depth[0][inner[1:]], torch.tensor(2.0), atol=1e-4)
    aside = memory.render(moved(x=1.0), MATRIX, SIZE, settings)  # 12 pixels
    assert float(aside.visible[0, :, -10:].mean()) == 0
    kept = aside.rgb[0][:, 4:-4, 2:16]
    assert torch.allclose(kept, same.rgb[0][:, 4:-4, 14:28], atol=1e-4)


def test_a_near_camera_sees_holes_between_points_and_discs_close_them() -> None:
    settings = WarpSettings(memory="points", top_fill=False)
    memory = PointMemory((wall(),))
    near = memory.render(moved(z=1.0), MATRIX, SIZE, settings)
    assert float(near.visible.mean()) > 0.9  # twice as large: discs of one pixel touch
    nearer = memory.render(moved(z=1.6), MATRIX, SIZE, settings)
    assert 0.1 < float(nearer.visible.mean()) < 0.7


def test_no_memory_shows_the_photo_alone() -> None:
    settings = WarpSettings(memory="none")
    memory = scene_memory((wall(),), settings)
    assert isinstance(memory, NoMemory)
    cameras = torch.cat([moved(), moved(x=0.1)])
    view = memory.render(cameras, MATRIX.expand(2, 3, 3), SIZE, settings, first_is_photo=True)
    assert float(view.visible[0].mean()) == 1
    assert float(view.visible[1].sum()) == 0
    assert torch.equal(view.rgb[0], wall().image)
    assert view.rgb[1].flatten(1).std(1).max() < 1e-6
