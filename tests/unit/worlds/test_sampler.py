"""Training batches are pure functions of (seed, index), safe, varied and captioned."""

from __future__ import annotations

from itertools import islice

import pytest
import torch

from flythrough.errors import InputError
from flythrough.worlds.clearance import clearance
from flythrough.worlds.paths import MOVES, draw_paths, path_poses
from flythrough.worlds.sampler import ClipSampler, SamplerSettings

SMALL = SamplerSettings(size=(24, 40), frames=5, batch=4)


def test_batch_is_a_function_of_seed_and_index() -> None:
    one, two = ClipSampler(3, SMALL), ClipSampler(3, SMALL)
    two.batch(0)
    a, b = one.batch(7), two.batch(7)
    assert torch.equal(a.rgb, b.rgb)
    assert torch.equal(a.depth, b.depth)
    assert torch.equal(a.world_from_camera, b.world_from_camera)
    assert a.captions == b.captions
    assert not torch.equal(a.rgb, one.batch(8).rgb)
    assert not torch.equal(a.rgb, ClipSampler(4, SMALL).batch(7).rgb)


def test_the_endless_iterator_gives_the_same_batches() -> None:
    sampler = ClipSampler(3, SMALL)
    found = list(islice(sampler.batches(first=1, stride=3), 2))
    assert [batch.index for batch in found] == [1, 4]
    assert torch.equal(found[1].rgb, sampler.batch(4).rgb)


def test_shapes_ranges_and_captions() -> None:
    batch = ClipSampler(0, SMALL).batch(0)
    assert batch.rgb.shape == (4, 3, 5, 24, 40)
    assert batch.depth.shape == (4, 5, 24, 40)
    assert batch.world_from_camera.shape == (4, 5, 4, 4)
    assert batch.intrinsics.shape == (4, 5, 3, 3)
    assert bool(((batch.rgb >= 0) & (batch.rgb <= 1)).all())
    assert len(batch.captions) == 4
    assert all(caption.endswith(".") for caption in batch.captions)
    angle = 2 * torch.rad2deg(torch.atan(20 / batch.intrinsics[:, 0, 0, 0]))
    assert bool(((angle >= 45) & (angle <= 80)).all())


def test_clips_of_one_world_differ_in_path_only() -> None:
    settings = SamplerSettings(size=(24, 40), frames=3, batch=4, clips_per_world=2)
    batch = ClipSampler(1, settings).batch(0)
    seeds = batch.frames.worlds.seeds
    assert seeds[0] == seeds[1] != seeds[2] == seeds[3]
    assert not torch.equal(batch.world_from_camera[0], batch.world_from_camera[1])


def test_cameras_keep_their_distance() -> None:
    settings = SamplerSettings(size=(8, 8), frames=33, batch=60, near=0.3)
    sampler = ClipSampler(5, settings)
    frames = sampler.batch(0).frames
    still = frames.worlds
    room = clearance(still, frames.world_from_camera[..., :3, 3], frames.times)
    travelled = (frames.world_from_camera[:, :, :3, 3] - still.start[:, None, :3, 3]).norm(dim=-1)
    moving = travelled.amax(1) > 0
    assert float(room[moving].min()) > 0.3


def test_paths_start_at_the_start_and_have_natural_amounts() -> None:
    draw = draw_paths(0, 0, 600)
    start = torch.eye(4, dtype=torch.float64).repeat(600, 1, 1)
    poses = path_poses(draw, 33, start, torch.full((600,), 5.0))
    assert torch.allclose(poses[:, 0], start, atol=1e-12)
    rotation = poses[..., :3, :3]
    assert torch.allclose(rotation @ rotation.mT, torch.eye(3, dtype=torch.float64), atol=1e-9)
    reach = poses[:, :, :3, 3].norm(dim=-1).amax(1) / 5.0
    assert float(reach.max()) < 0.75
    assert 0.1 < float(reach.mean()) < 0.35
    cosine = ((rotation.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2).clamp(-1, 1)
    turn = torch.rad2deg(torch.acos(cosine)).amax(1)
    assert float(turn.max()) < 34
    assert set(draw.names) == set(MOVES)
    step = poses[:, 1:, :3, 3] - poses[:, :-1, :3, 3]
    jerk = (step[:, 1:] - step[:, :-1]).norm(dim=-1).max()
    assert float(jerk) < 0.05


def test_longer_clips_go_further_at_the_same_rate() -> None:
    draw = draw_paths(1, 0, 40)
    start = torch.eye(4, dtype=torch.float64).repeat(40, 1, 1)
    straight = [
        i
        for i in range(40)
        if draw.names[i] == "forward" and draw.ease[i] == 0 and draw.back[i] == 0
    ]
    short = path_poses(draw, 33, start, torch.full((40,), 5.0))
    long = path_poses(draw, 65, start, torch.full((40,), 5.0))
    for i in straight:
        assert torch.allclose(long[i, 32, :3, 3], short[i, 32, :3, 3], atol=1e-9)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(InputError, match="clips_per_world"):
        SamplerSettings(batch=5, clips_per_world=2)
