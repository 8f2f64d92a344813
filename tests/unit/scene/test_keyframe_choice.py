"""Which keyframes are drawn, and in what order they give way."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from flythrough.geometry.types import Geometry, ScaleKind
from flythrough.scene.keyframe_choice import (
    best_in_view,
    cells_in_view,
    drawn_keyframes,
    most_added,
    share_in_view,
)
from flythrough.scene.mesh_memory import MeshMemory
from flythrough.scene.settings import WarpSettings
from flythrough.scene.surface import Keyframe

SIZE = (32, 48)
MATRIX = torch.tensor([[40.0, 0, 24], [0, 40, 16], [0, 0, 1]])[None]
AHEAD = torch.eye(4)[None]
BEHIND = torch.diag(torch.tensor([-1.0, 1, -1, 1]))[None]


def key(level: float, depth: Tensor | float = 2.0, pose: Tensor = AHEAD) -> Keyframe:
    full = torch.as_tensor(depth, dtype=torch.float32).expand(1, *SIZE).clone()
    geometry = Geometry(
        depth=full,
        confidence=torch.ones_like(full),
        valid=full > 0,
        intrinsics=MATRIX,
        world_from_camera=pose,
        scale=ScaleKind.METRIC,
    )
    return Keyframe(torch.full((3, *SIZE), level), geometry)


def columns(first: int, last: int, depth: float = 2.0) -> Tensor:
    full = torch.zeros(SIZE)
    full[:, first:last] = depth
    return full


def test_share_in_view() -> None:
    assert share_in_view(key(0), AHEAD, MATRIX, SIZE) == 1
    assert share_in_view(key(0), BEHIND, MATRIX, SIZE) == 0
    assert share_in_view(key(0), torch.cat([BEHIND, AHEAD]), MATRIX.expand(2, 3, 3), SIZE) == 1
    assert share_in_view(key(0, 0.0), AHEAD, MATRIX, SIZE) == 0
    aside = AHEAD.clone()
    aside[:, 0, 3] = 1.0  # 20 pixels at depth 2
    assert 0.6 < share_in_view(key(0), aside, MATRIX, SIZE) < 0.9


def test_the_best_are_kept_in_order() -> None:
    aside = AHEAD.clone()
    aside[:, 0, 3] = 1.0
    keys = [key(0), key(0, pose=BEHIND), key(0, pose=aside), key(0)]
    assert best_in_view(keys, 1, AHEAD, MATRIX, SIZE) == (3,)
    assert best_in_view(keys, 2, AHEAD, MATRIX, SIZE) == (0, 3)
    assert best_in_view(keys, 4, AHEAD, MATRIX, SIZE) == (0, 2, 3)
    assert best_in_view(keys, 0, AHEAD, MATRIX, SIZE) == ()
    assert best_in_view([], 3, AHEAD, MATRIX, SIZE) == ()


def test_what_a_keyframe_adds_counts() -> None:
    left, middle, right = (key(0, columns(at, at + 16)) for at in (0, 16, 32))
    wide = key(0, columns(0, 32))
    camera = (AHEAD, MATRIX, SIZE)
    keys = [middle, wide, right]
    assert best_in_view(keys, 1, *camera) == (2,)
    assert most_added(keys, [], 1, *camera) == (1,)
    assert most_added(keys, [wide], 1, *camera) == (2,)
    assert most_added(keys, [left, right], 1, *camera) == (1,)
    assert most_added([key(0), wide], [key(0)], 1, *camera) == (1,)
    assert most_added([wide, key(0, pose=BEHIND)], [key(0)], 2, *camera) == (0,)
    assert most_added(keys, [], 0, *camera) == most_added([], [], 1, *camera) == ()
    assert most_added(keys, [], 3, BEHIND, MATRIX, SIZE) == ()
    assert cells_in_view(left, *camera).tolist() == [[True, False, False] * 2]


def test_photo_and_newest_are_always_drawn() -> None:
    """Published, the keyframe that shows the same as the newest is the best."""
    keys = [
        key(0, pose=BEHIND),
        key(0, columns(0, 40)),
        key(0, columns(0, 8)),
        key(0, columns(0, 8)),
    ]
    camera = (AHEAD, MATRIX, SIZE)

    def drawn(count: int, some: list[Keyframe], reference: bool = False) -> list[int]:
        settings = WarpSettings(older_keyframes=count, reference=reference)
        return [keys.index(keyframe) for keyframe in drawn_keyframes(some, settings, *camera)]

    assert drawn(1, keys) == [0, 1, 3]
    assert drawn(1, keys, reference=True) == [0, 2, 3]
    assert drawn(2, keys) == [0, 1, 2, 3]
    assert drawn(0, keys) == [0, 3]
    assert drawn(1, keys[:2]) == [0, 1]
    assert drawn(1, keys[:1]) == [0]


def test_older_keyframes_only_close_gaps() -> None:
    """The one between is in front of the photo and alone knows the right third."""
    photo, between = key(0.2, columns(0, 16)), key(0.5, columns(0, 48, 1.0))
    newest = key(0.8, columns(16, 32))
    memory = MeshMemory((photo, between, newest))
    settings = WarpSettings(
        top_fill=False, mesh_break="none", render_mode="splat", older_samples_per_axis=2
    )
    view = memory.render(AHEAD, MATRIX, SIZE, settings)
    shown = view.rgb[0, 0, 10]
    assert (shown[1:14] == 0.2).all()
    assert torch.allclose(shown[17:30], torch.tensor(0.8))
    assert (shown[33:46] == 0.5).all()
    joint = replace(settings, keyframes="joint")
    front = memory.render(AHEAD, MATRIX, SIZE, joint).rgb[0, 0, 10]
    assert (front[1:46] == 0.5).all()
    two = MeshMemory((photo, newest))
    one, other = (two.render(AHEAD, MATRIX, SIZE, chosen) for chosen in (settings, joint))
    assert torch.equal(one.rgb, other.rgb)
