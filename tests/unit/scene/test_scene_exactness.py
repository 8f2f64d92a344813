"""Rendered depth, colour and visibility against scenes in closed form."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from analytic_scenes import (
    SIZE,
    Seen,
    camera,
    geometry,
    hidden_from,
    intrinsics,
    look,
)
from torch import Tensor
from torch.nn import functional

from flythrough.scene.mesh_memory import MeshMemory
from flythrough.scene.rendered import RenderedView
from flythrough.scene.settings import WarpSettings

SETTINGS = WarpSettings(top_fill=False)


def render(
    keys: list[Tensor], poses: Tensor, settings: WarpSettings, *, ball: bool = True
) -> RenderedView:
    memory = MeshMemory()
    for pose in keys:
        seen = look(pose, ball=ball)
        memory = memory.extended(seen.rgb, geometry(seen, pose))
    return memory.render(poses, intrinsics().expand(len(poses), 3, 3), SIZE, settings)


def close_to_silhouettes(seen: Seen) -> Tensor:
    """Pixels within two of a jump in depth, where half a pixel changes everything."""
    depth = seen.depth[None, None]
    spread = functional.max_pool2d(depth, 5, 1, 2) + functional.max_pool2d(-depth, 5, 1, 2)
    return (spread > 0.5)[0, 0]


def known_from_the_origin(pose: Tensor) -> Tensor:
    """Pixels [H,W] of a camera whose points were seen from the origin, away from mesh cuts."""
    target, source = look(pose, ball=True), look(camera(), ball=True)
    size = torch.tensor([SIZE[1], SIZE[0]])
    pixels = target.points @ intrinsics().T
    pixels = pixels[..., :2] / pixels[..., 2:]
    inside = ((pixels > 1) & (pixels < size - 1)).all(-1)
    cut = functional.max_pool2d(close_to_silhouettes(source)[None, None].float(), 5, 1, 2)
    at = pixels[None] / size * 2 - 1
    near_cut = functional.grid_sample(cut, at, align_corners=False)[0, 0] > 0
    seen = inside & ~hidden_from(target.points, torch.zeros(3)) & ~near_cut
    return seen & ~close_to_silhouettes(target)


MOVES = {
    "still": camera(),
    "forward": camera(z=0.3),
    "right": camera(x=0.3),
    "turned": camera(x=-0.1, y=0.1, yaw=0.12),
}


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("ball", [False, True])
def test_depth_and_colour_from_a_moved_camera(move: str, ball: bool) -> None:
    target = look(MOVES[move], ball=ball)
    view = render([camera()], MOVES[move][None], SETTINGS, ball=ball)
    sure = view.visible[0] > 0.5
    if ball:
        sure &= known_from_the_origin(MOVES[move])
    assert sure.float().mean() > (0.6 if ball else 0.8)
    error = (view.depth[0] - target.depth).abs() / target.depth
    # A sample lies anywhere within its pixel.
    assert error[sure].max() < 0.02
    assert error[sure].mean() < 0.003
    off = (view.rgb[0] - target.rgb).abs()
    assert off[:, sure].max() < 0.12
    assert off[:, sure].mean() < 0.01


@pytest.mark.parametrize("move", ["right", "forward", "turned"])
def test_what_the_ball_hides_is_not_visible(move: str) -> None:
    pose = MOVES[move]
    target = look(pose, ball=True)
    hidden = hidden_from(target.points, torch.zeros(3))
    inner = functional.avg_pool2d(hidden[None, None].float(), 3, 1, 1)[0, 0] > 0.99
    view = render([camera()], pose[None], SETTINGS)
    assert not view.visible[0][inner].any()
    if move == "right":
        assert inner.sum() > 50


def test_what_nothing_hides_is_visible() -> None:
    known = known_from_the_origin(MOVES["right"])
    view = render([camera()], MOVES["right"][None], SETTINGS)
    assert known.float().mean() > 0.6
    assert view.visible[0][known].min() == 1


def test_the_near_surface_wins() -> None:
    """The wall shows through nowhere where the ball is in front of it."""
    target = look(MOVES["right"], ball=True)
    dense = replace(SETTINGS, older_samples_per_axis=4)
    view = render([camera(), camera(x=0.6)], MOVES["right"][None], dense)
    ball = (target.depth < 2.5) & known_from_the_origin(MOVES["right"])
    assert ball.sum() > 100
    assert (view.depth[0][ball] < 2.5).all()


def test_a_second_keyframe_fills_what_the_first_did_not_see() -> None:
    pose = camera(x=0.3)
    one = render([camera()], pose[None], SETTINGS)
    for keyframes in ("joint", "layered"):
        settings = WarpSettings(top_fill=False, keyframes=keyframes)  # type: ignore[arg-type]
        both = render([camera(), camera(x=0.6)], pose[None], settings)
        assert (both.visible >= one.visible).float().mean() > 0.99
        assert both.visible.mean() > one.visible.mean() + 0.03
        target = look(pose, ball=True)
        sure = (both.visible[0] > 0.5) & ~close_to_silhouettes(target)
        assert (both.rgb[0] - target.rgb).abs()[:, sure].mean() < 0.02


def test_an_identity_camera_shows_the_source() -> None:
    source = look(camera(), ball=True)
    memory = MeshMemory().extended(source.rgb, geometry(source, camera()))
    poses, matrices = torch.eye(4)[None], intrinsics()[None]
    exact = memory.render(poses, matrices, SIZE, SETTINGS, first_is_photo=True)
    assert torch.equal(exact.rgb[0], source.rgb)
    assert torch.equal(exact.depth[0], source.depth)
    assert exact.visible.min() == 1
    drawn = memory.render(poses, matrices, SIZE, replace(SETTINGS, render_mode="splat"))
    sure = (drawn.visible[0] > 0.5) & ~close_to_silhouettes(source)
    low = -functional.max_pool2d(-source.rgb, 3, 1, 1)
    high = functional.max_pool2d(source.rgb, 3, 1, 1)
    assert ((drawn.rgb[0] >= low - 1e-6) & (drawn.rgb[0] <= high + 1e-6))[:, sure].all()


def test_another_render_size_shows_the_same() -> None:
    source = look(camera(), ball=True)
    memory = MeshMemory().extended(source.rgb, geometry(source, camera()))
    half = (SIZE[0] // 2, SIZE[1] // 2)
    matrix = intrinsics() * torch.tensor([0.5, 0.5, 1.0])[:, None]
    small = memory.render(camera(x=0.1)[None], matrix[None], half, SETTINGS)
    large = memory.render(camera(x=0.1)[None], intrinsics()[None], SIZE, SETTINGS).resized(half)
    both = (small.visible[0] > 0.5) & (large.visible[0] > 0.99)
    assert both.float().mean() > 0.7
    assert (small.rgb - large.rgb).abs().mean(1)[0][both].mean() < 0.02
