"""Ray casting against closed forms: exact depth, normals and distances of single shapes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from flythrough.worlds.builder import Dice, SceneBuilder
from flythrough.worlds.clearance import clearance
from flythrough.worlds.render import Frames, render
from flythrough.worlds.tracks import pixel_centres
from flythrough.worlds.world import (
    BOX,
    CONE,
    CYLINDER,
    PLANE,
    ROOM,
    SKY_DEPTH,
    SPHERE,
    World,
)

SIZE = (48, 64)
K = torch.tensor([[50.0, 0.0, 32.0], [0.0, 50.0, 24.0], [0.0, 0.0, 1.0]], dtype=torch.float64)


def single(shape: int, centre: tuple, half: tuple, **angles: float) -> World:
    builder = SceneBuilder(Dice(1, "test"))
    builder.add(shape, centre, half, builder.plain((0.6, 0.5, 0.4)), **angles)
    return builder.finish(1, "test", "A test.", (0.0, 0.0, 0.0), 0.0, 0.0)


def look(world: World, pose: Tensor | None = None) -> Frames:
    camera = torch.eye(4, dtype=torch.float64) if pose is None else pose
    return render(world, camera[None, None], K, SIZE, outputs=("depth", "normals"))


def rays() -> Tensor:
    """Ray directions with z = 1, [H,W,3] float64."""
    return (torch.linalg.inv(K) @ pixel_centres(SIZE, K.device)).T.reshape(*SIZE, 3)


def test_sphere_depth_and_normal_have_the_closed_form() -> None:
    centre, radius = torch.tensor([0.4, -0.2, 5.0], dtype=torch.float64), 1.3
    frames = look(single(SPHERE, tuple(centre.tolist()), (radius,) * 3))
    d = rays()
    a, b = (d * d).sum(-1), (d * centre).sum(-1)
    inside = b * b - a * (centre @ centre - radius**2)
    t = (b - inside.clamp(min=0).sqrt()) / a
    seen = ~frames.sky[0, 0]
    clear = inside.abs() > 1e-4
    assert torch.equal(seen[clear], (inside > 0)[clear])
    assert torch.allclose(frames.depth[0, 0][seen].double(), t[seen], rtol=2e-6, atol=2e-5)
    normal = (d * t[..., None] - centre) / radius
    assert frames.normals is not None
    assert torch.allclose(
        frames.normals[0, 0].movedim(0, -1)[seen].double(), normal[seen], atol=2e-3
    )


def test_ground_plane_depth_is_height_over_slope_and_z_not_ray_length() -> None:
    pose = torch.eye(4, dtype=torch.float64)
    pose[1, 3] = -1.7
    frames = look(single(PLANE, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), pose)
    d = rays()
    below = d[..., 1] > 1.7 / 500
    expected = 1.7 / d[..., 1]
    depth = frames.depth[0, 0].double()
    assert torch.allclose(depth[below], expected[below], rtol=1e-5)
    assert bool((frames.depth[0, 0][d[..., 1] < 0] == SKY_DEPTH).all())
    length = (d * depth[..., None]).norm(dim=-1)
    assert bool((length[below] > depth[below]).all())


def test_front_of_a_box_is_flat_in_z_depth() -> None:
    frames = look(single(BOX, (0.0, 0.0, 4.0), (2.0, 1.5, 1.0)))
    assert torch.allclose(frames.depth[0, 0, 10:-10, 10:-10], torch.tensor(3.0), atol=1e-5)


def test_room_is_seen_from_inside() -> None:
    frames = look(single(ROOM, (0.0, 0.0, 0.0), (4.0, 3.0, 6.0)))
    assert not bool(frames.sky.any())
    assert float(frames.depth[0, 0, 24, 32]) == pytest.approx(6.0, rel=1e-5)
    assert frames.normals is not None
    assert frames.normals[0, 0, :, 24, 32].tolist() == pytest.approx([0, 0, -1], abs=1e-6)


@pytest.mark.parametrize("shape", [BOX, SPHERE, CYLINDER, CONE])
def test_hit_points_lie_on_the_surface_and_normals_face_the_camera(shape: int) -> None:
    world = single(shape, (0.3, 0.2, 4.0), (0.9, 1.1, 0.9), yaw=0.7, pitch=0.4, roll=0.2)
    frames = look(world)
    points = (rays() * frames.depth[0, 0].double()[..., None]).reshape(1, -1, 3)
    seen = ~frames.sky[0, 0].reshape(-1)
    times = torch.zeros(1, points.shape[1], dtype=torch.float64)
    distance = clearance(world.batch, points, times)[0]
    assert 200 < int(seen.sum()) < 2500
    assert float(distance[seen].abs().max()) < 1e-4
    assert frames.normals is not None
    normal = frames.normals[0, 0].reshape(3, -1).T[seen].double()
    assert float(((normal * rays().reshape(-1, 3)[seen]).sum(-1)).max()) < 0.02
    assert torch.allclose(normal.norm(dim=-1), torch.ones(int(seen.sum()), dtype=torch.float64))


@pytest.mark.parametrize("shape", [BOX, SPHERE, CYLINDER, CONE])
def test_no_nearer_surface_is_missed(shape: int) -> None:
    world = single(shape, (-0.2, 0.1, 3.0), (0.8, 1.0, 0.8), yaw=0.3, pitch=-0.5)
    frames = look(world)
    steps = torch.linspace(0.02, 0.995, 40, dtype=torch.float64)
    reach = torch.where(frames.sky[0, 0], 6.0, frames.depth[0, 0].double())
    points = (rays()[None] * (reach[None] * steps[:, None, None])[..., None])[:, ::4, ::4]
    flat = points.reshape(1, -1, 3)
    inside = clearance(world.batch, flat, torch.zeros(flat.shape[:2], dtype=torch.float64)) < -2e-3
    assert not bool(inside.any())


def test_axis_parallel_rays_hit_boxes() -> None:
    centred = torch.tensor([[50.0, 0.0, 32.5], [0.0, 50.0, 24.5], [0.0, 0.0, 1.0]])
    frames = render(
        single(BOX, (0.0, 0.0, 4.0), (1.0, 1.0, 1.0)),
        torch.eye(4)[None, None],
        centred,
        SIZE,
        outputs=("depth",),
    )
    assert float(frames.depth[0, 0, 24, 32]) == pytest.approx(3.0, rel=1e-6)
    assert not bool(frames.sky[0, 0, 24, 20:44].any())


def test_an_object_that_crosses_the_image_border_or_the_near_plane_is_not_culled() -> None:
    beside = look(single(BOX, (3.0, 0.0, 1.0), (2.5, 0.5, 6.0)))
    d = rays()
    expected = 0.5 / d[..., 0]  # its left face is the plane x = 0.5
    hits = (d[..., 0] > 0.1) & (expected * d[..., 1].abs() < 0.49) & (expected < 6.9)
    assert int(hits.sum()) > 100
    assert torch.allclose(beside.depth[0, 0].double()[hits], expected[hits], rtol=1e-5)


def test_clearance_is_signed() -> None:
    world = single(SPHERE, (0.0, 0.0, 5.0), (2.0, 2.0, 2.0))
    points = torch.tensor([[[0.0, 0.0, 5.0], [0.0, 0.0, 2.0], [0.0, 0.0, 3.0]]])
    found = clearance(world.batch, points, torch.zeros(1, 3, dtype=torch.float64))[0]
    assert found.tolist() == pytest.approx([-2.0, 1.0, 0.0], abs=1e-5)
    assert math.isinf(
        float(
            clearance(
                look(single(-1, (0, 0, 0), (1, 1, 1))).worlds,
                points[:, :1],
                torch.zeros(1, 1, dtype=torch.float64),
            )[0, 0]
        )
    )
