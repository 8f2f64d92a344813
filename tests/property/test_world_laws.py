"""Laws of the worlds: frames agree with each other through depth, cameras and object motion."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from flythrough.worlds.builder import Dice, SceneBuilder
from flythrough.worlds.clips import photo_intrinsics
from flythrough.worlds.layouts import KINDS, random_world
from flythrough.worlds.paths import draw_paths, path_poses
from flythrough.worlds.render import Frames, render
from flythrough.worlds.tracks import correspondence, flow, visibility
from flythrough.worlds.world import PLANE, SPHERE

SIZE = (64, 96)
K = photo_intrinsics(SIZE, 60.0)


def two_views(seed: int, kind: str, number: int) -> Frames:
    world = random_world(seed, kind)
    draw = draw_paths(seed, number, 1)
    poses = path_poses(draw, 33, world.batch.start, torch.tensor([3.0]))[:, [0, 32]]
    return render(world, poses, K, SIZE, torch.tensor([[0.0, 2.0]]))


def looked_up(image: Tensor, pixels: Tensor, mode: str) -> Tensor:
    """``image`` [B,C,H,W] at ``pixels`` [B,2,H,W]."""
    scale = torch.tensor([SIZE[1], SIZE[0]], dtype=pixels.dtype).view(1, 2, 1, 1)
    at = (pixels / scale * 2 - 1).movedim(1, -1)
    return functional.grid_sample(image, at, mode, align_corners=False)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(KINDS), st.integers(0, 50))
def test_unprojected_points_agree_with_the_other_frame(seed: int, kind: str, number: int) -> None:
    frames = two_views(seed, kind, number)
    for source, target in ((0, 1), (1, 0)):
        found = correspondence(frames, source, target)
        seen = visibility(frames, source, target)
        assert not bool((seen & ~found.inside).any())
        if int(seen.sum()) < 200:
            continue
        there = looked_up(frames.depth[:, target, None], found.pixels, "nearest")[:, 0]
        solid = seen & ~frames.sky[:, source]
        error = ((there - found.depth).abs() / found.depth)[solid]
        if error.numel():
            assert float(error.median()) < 0.02
        assert frames.rgb is not None
        colour = looked_up(frames.rgb[:, target], found.pixels, "bilinear")
        difference = (colour - frames.rgb[:, source]).abs().mean(1)
        assert float(difference[seen].mean()) < 0.06


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(KINDS))
def test_a_frame_sees_all_of_itself_without_flow(seed: int, kind: str) -> None:
    frames = two_views(seed, kind, 0)
    assert bool(visibility(frames, 0, 0).float().mean() > 0.999)
    assert float(flow(frames, 0, 0).abs().max()) < 1e-3
    found = correspondence(frames, 1, 1)
    solid = ~frames.sky[:, 1]
    assert torch.allclose(found.depth[solid], frames.depth[:, 1][solid], rtol=1e-5)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(KINDS), st.integers(0, 50))
def test_flow_there_and_back_cancels_on_visible_points(seed: int, kind: str, number: int) -> None:
    frames = two_views(seed, kind, number)
    there = correspondence(frames, 0, 1)
    back = looked_up(flow(frames, 1, 0), there.pixels, "bilinear")
    total = (flow(frames, 0, 1) + back).norm(dim=1)
    seen = visibility(frames, 0, 1)
    if int(seen.sum()) > 500:
        assert float(total[seen].median()) < 0.1


def ball_before_ground(velocity: tuple[float, float, float]) -> SceneBuilder:
    builder = SceneBuilder(Dice(0, "law"))
    skin = builder.plain((0.5, 0.4, 0.3))
    builder.add(PLANE, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), skin)
    mover = builder.mover(velocity=velocity, pivot=(0.0, -1.0, 6.0))
    builder.add(SPHERE, (0.0, -1.0, 6.0), (0.6, 0.6, 0.6), skin, mover=mover)
    return builder


def test_flow_of_a_mover_is_its_own_motion() -> None:
    world = ball_before_ground((0.5, 0.0, 0.0)).finish(0, "law", "A.", (0.0, -1.2, 0.0), 0.0, 0.0)
    cameras = world.batch.start[:, None].expand(-1, 2, -1, -1)
    frames = render(world, cameras, K, SIZE, torch.tensor([[0.0, 1.0]]))
    moved = flow(frames, 0, 1)
    ball = frames.ids[0, 0] == 1
    expected = 0.5 * K[0, 0] / frames.depth[0, 0][ball].double()
    assert torch.allclose(moved[0, 0][ball].double(), expected, rtol=1e-4)
    assert float(moved[0, 1][ball].abs().max()) < 1e-3
    assert float(moved[0, :, ~ball].abs().max()) < 1e-3


def test_the_ground_that_a_mover_covers_becomes_invisible() -> None:
    world = ball_before_ground((0.5, 0.0, 0.0)).finish(0, "law", "A.", (0.0, -1.2, 0.0), 0.0, 0.0)
    cameras = world.batch.start[:, None].expand(-1, 2, -1, -1)
    frames = render(world, cameras, K, SIZE, torch.tensor([[0.0, 1.0]]))
    seen = visibility(frames, 0, 1)[0]
    now, later = frames.ids[0, 0] == 1, frames.ids[0, 1] == 1
    # an object beneath the same pixel hides what was there before, and only that
    assert not bool(seen[later & ~now].any())
    assert bool(seen[~later & ~now].all())
    assert float(seen[now].float().mean()) > 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_time_moves_only_movers(kind: str) -> None:
    seed = next(s for s in range(200) if random_world(s, kind).has_movers)
    world = random_world(seed, kind)
    cameras = world.batch.start[:, None].expand(-1, 2, -1, -1)
    frames = render(world, cameras, K, SIZE, torch.tensor([[0.0, 1.5]]), outputs=("depth",))
    changed = frames.depth[:, 0] != frames.depth[:, 1]
    moving = world.batch.mover[0] >= 0
    touched = moving[frames.ids[0, 0].clamp(min=0)] | moving[frames.ids[0, 1].clamp(min=0)]
    assert not bool((changed[0] & ~touched).any())
