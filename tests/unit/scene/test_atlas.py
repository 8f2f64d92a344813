"""The panorama behind the meshes: what it shows, and what it counts as seen."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from flythrough.geometry.types import Geometry, ScaleKind
from flythrough.scene.atlas import Atlas, background_atlas, background_pixels, filled_rows
from flythrough.scene.mesh_memory import MeshMemory
from flythrough.scene.settings import WarpSettings
from flythrough.scene.surface import Keyframe

SIZE = (32, 48)
MATRIX = torch.tensor([[160.0, 0, 24], [0, 160, 16], [0, 0, 1]])
SETTINGS = WarpSettings(samples_per_axis=2, top_fill=False)


def turned(degrees: float) -> Tensor:
    angle, pose = math.radians(degrees), torch.eye(4)
    pose[0, 0] = pose[2, 2] = math.cos(angle)
    pose[0, 2], pose[2, 0] = math.sin(angle), -math.sin(angle)
    return pose


def key(depth: Tensor, degrees: float = 0.0) -> Keyframe:
    """A picture that is red on its left and green on its right half."""
    picture = torch.zeros(3, *SIZE)
    picture[0, :, :24], picture[1, :, 24:] = 1, 1
    geometry = Geometry(
        depth=depth.expand(1, *SIZE),
        confidence=torch.ones(1, *SIZE),
        valid=(depth > 0).expand(1, *SIZE),
        intrinsics=MATRIX[None],
        world_from_camera=turned(degrees)[None],
        scale=ScaleKind.METRIC,
    )
    return Keyframe(picture, geometry)


def upper_sky() -> Tensor:
    depth = torch.full(SIZE, 2.0)
    depth[:20] = 0
    return depth


def test_invalid_and_far_pixels_are_background() -> None:
    far = background_pixels(key(torch.linspace(1, 9, 48).expand(SIZE)).geometry)
    assert not far[:, :30].any()
    assert far[:, 33:].all()
    assert background_pixels(key(upper_sky()).geometry)[:20].all()


def test_a_turning_camera_sees_the_background_where_it_was() -> None:
    atlas = background_atlas([key(upper_sky())])
    colours, known = atlas.seen_by(turned(-3)[None], MATRIX[None], SIZE)
    # Turned left, the border of red and green moves right: 160 tan(3 degrees) = 8 pixels.
    assert known[0, 4:16, 10:46].all()
    assert (colours[0, 4:16, 10:31, 0] == 1).all()
    assert (colours[0, 4:16, 34:46, 1] == 1).all()
    away = atlas.seen_by(turned(180)[None], MATRIX[None], SIZE)
    assert not away[0].any()
    assert not away[1].any()


def test_rows_wrap_around() -> None:
    colours, known = torch.zeros(1, 9, 3), torch.zeros(1, 9, dtype=torch.bool)
    colours[0, 0], known[0, 0] = 1.0, True
    assert filled_rows(Atlas(colours, known), 2).known[0].tolist() == [True] * 3 + [False] * 4 + [
        True,
        True,
    ]


def test_what_counts_as_seen_is_a_choice() -> None:
    memory = MeshMemory((key(upper_sky()),))
    poses, matrices = torch.eye(4)[None], MATRIX[None]
    none, tint, atlas = (
        memory.render(poses, matrices, SIZE, replace(SETTINGS, background=name))
        for name in ("none", "tint", "atlas")
    )
    sky = (slice(None), slice(2, 16))
    assert not none.visible[sky].any()
    assert torch.equal(none.visible, tint.visible)
    assert atlas.visible[sky].all()
    assert torch.equal(tint.rgb, atlas.rgb)
    assert (tint.rgb[0, 0, 2:16, 2:20] == 1).all()
    assert torch.equal(none.depth, atlas.depth)
    seen = none.visible[0] > 0
    assert torch.equal(none.rgb[0][:, seen], tint.rgb[0][:, seen])


def test_published_photos_alone_have_no_atlas() -> None:
    memory = MeshMemory((key(upper_sky()),))
    published = replace(SETTINGS, reference=True, background="atlas")
    bare = replace(published, background="none")
    one, other = (
        memory.render(torch.eye(4)[None], MATRIX[None], SIZE, chosen)
        for chosen in (published, bare)
    )
    assert torch.equal(one.rgb, other.rgb)
