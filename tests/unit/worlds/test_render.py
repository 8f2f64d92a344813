"""Rendering: the same bits alone, in a batch and in any grouping; sizes; bad input."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from flythrough.errors import InputError
from flythrough.worlds import casting
from flythrough.worlds import render as render_module
from flythrough.worlds.clips import photo_intrinsics
from flythrough.worlds.layouts import KINDS, random_world
from flythrough.worlds.render import Frames, render
from flythrough.worlds.textures import LAYERS, TEXELS, sample, texture_atlas
from flythrough.worlds.world import SKY_DEPTH, stack

SIZE = (56, 72)
K = photo_intrinsics(SIZE, 65.0)


def moved(start: Tensor) -> Tensor:
    """Three cameras from ``start`` [B,4,4]: at it, forward, and aside."""
    steps = torch.eye(4, dtype=torch.float64).repeat(3, 1, 1)
    steps[1, 2, 3], steps[2, 0, 3] = 0.4, 0.3
    return start[:, None] @ steps


def same(a: Frames, b: Frames) -> None:
    assert a.rgb is not None
    assert b.rgb is not None
    assert torch.equal(a.depth, b.depth)
    assert torch.equal(a.ids, b.ids)
    assert torch.equal(a.rgb, b.rgb)


def test_same_seed_same_bits() -> None:
    worlds = [random_world(3, "room"), random_world(3, "room")]
    same(*(render(world, moved(world.batch.start), K, SIZE) for world in worlds))


def test_a_batch_equals_its_worlds_alone() -> None:
    worlds = [random_world(seed, kind) for seed, kind in enumerate(KINDS)]
    batch = stack(worlds)
    together = render(batch, moved(batch.start), K, SIZE)
    for index, world in enumerate(worlds):
        alone = render(world, moved(world.batch.start), K, SIZE)
        assert alone.rgb is not None
        assert together.rgb is not None
        assert torch.equal(together.depth[index], alone.depth[0])
        assert torch.equal(together.ids[index], alone.ids[0])
        assert torch.equal(together.rgb[index], alone.rgb[0])


@pytest.mark.parametrize("rays", [1 << 10, 1 << 13, 1 << 20])
def test_results_do_not_depend_on_the_grouping_of_rays(
    rays: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = random_world(5, "street")
    usual = render(world, moved(world.batch.start), K, SIZE)
    monkeypatch.setattr(casting, "rays_at_once", lambda _device: rays)
    monkeypatch.setattr(render_module, "rays_at_once", lambda _device: rays)
    other = render(world, moved(world.batch.start), K, SIZE)
    assert usual.rgb is not None
    assert other.rgb is not None
    assert torch.equal(usual.depth, other.depth)
    assert torch.equal(usual.ids, other.ids)
    assert float((usual.rgb - other.rgb).abs().max()) < 1e-5


@pytest.mark.parametrize("size", [(17, 33), (16, 16), (1, 1), (50, 31)])
def test_any_size_works_and_agrees_with_the_pinhole(size: tuple[int, int]) -> None:
    world = random_world(2, "gallery")
    frames = render(world, world.batch.start[:, None], photo_intrinsics(size, 60.0), size)
    assert frames.rgb is not None
    assert frames.rgb.shape == (1, 1, 3, *size)
    assert frames.depth.shape == (1, 1, *size)
    assert frames.size == size


def test_a_pixel_is_the_same_in_a_cropped_picture() -> None:
    world = random_world(4, "table")
    whole = render(world, world.batch.start[:, None], K, SIZE, antialias=False)
    cropped_k = K.clone()
    cropped_k[0, 2] -= 10
    cropped_k[1, 2] -= 7
    part = render(world, world.batch.start[:, None], cropped_k, (30, 40), antialias=False)
    assert torch.allclose(whole.depth[..., 7:37, 10:50], part.depth, rtol=1e-5)


def test_supersampling_and_edge_samples_agree_inside_surfaces() -> None:
    world = random_world(6, "room")
    cameras = world.batch.start[:, None]
    plain = render(world, cameras, K, SIZE, antialias=False)
    edges = render(world, cameras, K, SIZE)
    fine = render(world, cameras, K, SIZE, supersample=3)
    assert plain.rgb is not None
    assert edges.rgb is not None
    assert fine.rgb is not None
    assert torch.equal(plain.depth, fine.depth)
    assert float((edges.rgb - fine.rgb).abs().mean()) < float((plain.rgb - fine.rgb).abs().mean())
    assert float((edges.rgb - fine.rgb).abs().mean()) < 0.02


def test_sky_has_its_declared_depth_and_no_id() -> None:
    world = random_world(1, "terrain")
    up = world.batch.start.clone()
    up[:, :3, 1], up[:, :3, 2] = up[:, :3, 2].clone(), -up[:, :3, 1].clone()
    frames = render(world, up[:, None], K, SIZE)
    assert bool(frames.sky.any())
    assert bool((frames.depth[frames.sky] == SKY_DEPTH).all())
    assert bool((frames.ids[frames.sky] == -1).all())
    assert bool((frames.ids[~frames.sky] >= 0).all())


def test_only_what_was_asked_for_is_made() -> None:
    world = random_world(1, "yard")
    frames = render(world, world.batch.start[:, None], K, SIZE, outputs=("depth",))
    assert frames.rgb is None
    assert frames.normals is None


def test_bad_input_is_refused() -> None:
    world = random_world(1, "yard")
    start = world.batch.start[:, None]
    with pytest.raises(InputError, match="world_from_camera"):
        render(world, start[0, 0], K, SIZE)
    with pytest.raises(InputError, match="uv"):
        render(world, start, K, SIZE, outputs=("uv",))
    with pytest.raises(InputError, match="supersample"):
        render(world, start, K, SIZE, supersample=0)
    with pytest.raises(InputError, match="intrinsics"):
        render(world, start, K[None].repeat(5, 1, 1), SIZE)
    with pytest.raises(InputError, match="photos"):
        texture_atlas(torch.zeros(3, 4, 4))


def test_texture_levels_average_to_the_mean_and_wrap() -> None:
    atlas = texture_atlas()
    for name in ("brick", "grass", "poster 1"):
        layer = torch.full((500,), LAYERS[name], dtype=torch.int32)
        u, v = torch.rand(2, 500, generator=torch.Generator().manual_seed(0))
        coarse = sample(atlas, layer, u, v, torch.full((500,), 20.0))
        assert all(float(c.std()) < 0.01 for c in coarse)
        fine = sample(atlas, layer, u, v, torch.zeros(500))
        assert abs(float(fine[0].mean() - coarse[0].mean())) < 0.06
        again = sample(atlas, layer, u + 3, v - 2, torch.zeros(500))
        assert torch.allclose(fine[0], again[0], atol=2e-3)


def test_photographs_are_shown_when_given() -> None:
    photos = torch.zeros(2, 3, 20, 30)
    photos[:, 0] = 1.0
    atlas = texture_atlas(photos)
    assert atlas.photos == 2
    assert atlas.texels.numel() == (len(LAYERS) + 2) * TEXELS
    world = random_world(2, "gallery")
    frames = [
        render(world, world.batch.start[:, None], K, SIZE, atlas=chosen)
        for chosen in (atlas, texture_atlas())
    ]
    assert frames[0].rgb is not None
    assert frames[1].rgb is not None
    changed = (frames[0].rgb - frames[1].rgb).abs().amax(2) > 0.05
    assert 0.005 < float(changed.float().mean()) < 0.6
