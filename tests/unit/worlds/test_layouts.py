"""Every kind of world, many seeds: a natural, safe and finite first view, and a caption."""

from __future__ import annotations

import pytest
import torch

from flythrough.errors import InputError
from flythrough.worlds.clearance import clearance
from flythrough.worlds.clips import photo_intrinsics
from flythrough.worlds.layouts import KINDS, random_world
from flythrough.worlds.render import render
from flythrough.worlds.world import MATERIALS, PRIMITIVES, stack

SEEDS = range(50)
SIZE = (48, 80)


@pytest.mark.parametrize("kind", KINDS)
def test_fifty_seeds_are_safe_finite_and_in_range(kind: str) -> None:
    worlds = [random_world(seed, kind) for seed in SEEDS]
    batch = stack(worlds)
    frames = render(batch, batch.start[:, None], photo_intrinsics(SIZE, 60.0), SIZE)
    assert frames.rgb is not None
    assert frames.normals is not None
    assert bool(frames.rgb.isfinite().all())
    assert float(frames.rgb.min()) >= 0
    assert float(frames.rgb.max()) <= 1
    assert bool(frames.normals.isfinite().all())
    assert bool((frames.depth > 0).all())
    median = frames.median_depth()
    assert float(median.min()) >= 2
    assert float(median.max()) <= 15
    times = torch.arange(33, dtype=torch.float64).expand(len(batch), -1) / 16
    eye = batch.start[:, None, :3, 3].expand(-1, 33, -1)
    assert float(clearance(batch, eye, times)[:, 0].min()) > 0.3
    brightness = frames.rgb.flatten(1).mean(1)
    assert float(brightness.min()) > 0.15
    assert float(brightness.max()) < 0.85
    assert float(frames.rgb.flatten(3).std(-1).mean()) > 0.08


@pytest.mark.parametrize("kind", KINDS)
def test_captions_are_sentences_and_tables_stay_in_their_bounds(kind: str) -> None:
    for seed in SEEDS:
        world = random_world(seed, kind)
        caption = world.caption
        assert caption.endswith(".")
        assert 20 < len(caption) < 400
        assert "  " not in caption
        assert ", ," not in caption
        assert world.kind == kind
        assert world.seed == seed
        assert world.batch.shape.shape == (1, PRIMITIVES)
        assert int(world.batch.surface.max()) < MATERIALS


def test_seeds_choose_all_kinds_and_repeat_bit_for_bit() -> None:
    assert {random_world(seed).kind for seed in range(60)} == set(KINDS)
    first, second = random_world(11).batch, random_world(11).batch
    assert torch.equal(first.pose, second.pose)
    assert torch.equal(first.material, second.material)
    assert torch.equal(first.environment, second.environment)
    assert first.captions == second.captions
    assert not torch.equal(first.environment, random_world(12).batch.environment)


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(InputError, match="castle"):
        random_world(0, "castle")


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        stack([])
