"""The seam score: what it must see, and what it must not."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from flythrough.errors import InputError
from flythrough.evaluation.seam import Motion, differences, motion_from_depth, seam_score

SIZE = (24, 40)


def moving(count: int = 99, speed: float = 0.6) -> Tensor:
    """A smooth pattern that slides right by ``speed`` pixels a frame: [T,3,H,W]."""
    rows, columns = (torch.arange(n).float() for n in SIZE)
    shift = speed * torch.arange(count).float().view(-1, 1, 1)
    wave = torch.sin((columns - shift) / 4) * torch.cos(rows.view(-1, 1) / 5)
    return (0.5 + 0.3 * wave)[:, None].expand(-1, 3, -1, -1).clone()


def sliding(count: int, speed: float) -> Motion:
    """The motion of ``moving``; what came in at the left edge was not seen before."""
    rows, columns = torch.meshgrid(
        torch.arange(SIZE[0]) + 0.5, torch.arange(SIZE[1]) + 0.5, indexing="ij"
    )
    where = torch.stack((columns - speed, rows)).expand(count - 1, -1, -1, -1)
    return Motion(where, where[:, 0] >= 0.5)


def test_a_smooth_clip_has_no_seam() -> None:
    found = seam_score(moving())
    assert [border.frame for border in found.borders] == [33, 66]
    assert found.score == pytest.approx(1, abs=0.1)
    assert found.after == pytest.approx(1, abs=0.1)


def test_a_step_in_brightness_at_a_border_is_seen_there_alone() -> None:
    video = moving()
    video[33:] += 0.1
    found = seam_score(video)
    assert found.borders[0].score > 2.5
    assert found.borders[0].after == pytest.approx(1, abs=0.1)
    assert found.borders[1].score == pytest.approx(1, abs=0.1)


def test_a_jump_in_place_is_seen() -> None:
    video = moving(105)
    found = seam_score(torch.cat([video[:33], video[39:]]))
    assert found.borders[0].score > 4


@pytest.mark.parametrize("place", [20, 45])
def test_a_step_elsewhere_is_no_seam(place: int) -> None:
    video = moving(66)
    video[place:] += 0.1
    assert seam_score(video).score == pytest.approx(1, abs=0.15)


def test_a_jump_that_was_moved_behind_the_border_is_reported() -> None:
    video = moving(66)
    video[35:] += 0.1
    found = seam_score(video)
    assert found.score == pytest.approx(1, abs=0.15)
    assert found.after > 2.5


def test_a_frozen_video_scores_one_and_a_step_in_it_a_lot() -> None:
    video = torch.full((66, 3, *SIZE), 0.5)
    assert seam_score(video).score == 1
    video[33:] += 0.05
    assert seam_score(video).score > 100


def test_known_motion_leaves_the_seam_alone_and_brings_it_out() -> None:
    video, motion = moving(66, speed=2.0), sliding(66, 2.0)
    video[33:] += 0.05
    plain, known = seam_score(video), seam_score(video, motion)
    assert known.inside < 0.02 * plain.inside
    assert known.score > 20 * plain.score


def test_what_was_not_visible_does_not_count() -> None:
    video, motion = moving(66, speed=2.0), sliding(66, 2.0)
    video[33:, :, :, :8] = 0
    visible = motion.visible.clone()
    visible[:, :, :12] = False
    assert seam_score(video, motion).score > 5
    assert seam_score(video, Motion(motion.pixels, visible)).score == pytest.approx(1, abs=0.3)


def panned(count: int, step: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A wall 2 units away, painted with a wave, and a camera that trucks right:
    (video, depth, world_from_camera, intrinsics)."""
    matrix = torch.tensor([[30.0, 0, 20], [0, 30, 12], [0, 0, 1]], dtype=torch.float64)
    poses = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    poses[:, 0, 3] = step * torch.arange(count)
    columns = torch.arange(SIZE[1]) + 0.5
    place = (columns - 20) / 30 * 2 + poses[:, :1, 3]
    video = 0.5 + 0.4 * torch.sin(5 * place)
    shape = (count, 3, *SIZE)
    return (
        video[:, None, None].expand(shape).float(),
        torch.full((count, *SIZE), 2.0),
        poses,
        matrix.expand(count, 3, 3),
    )


def test_motion_from_depth_and_cameras_explains_a_still_scene() -> None:
    video, depth, poses, intrinsics = panned(10, 0.1)
    motion = motion_from_depth(depth, poses, intrinsics)
    columns = torch.arange(SIZE[1]) + 0.5
    assert torch.allclose(motion.pixels[0, 0, 0], (columns + 1.5).float(), atol=1e-4)
    assert not bool(motion.visible[0, :, -1].any())
    assert bool(motion.visible[0, :, :-2].all())
    assert float(differences(video, motion).max()) < 0.1 * float(differences(video).min())


def test_what_something_nearer_hid_is_not_visible() -> None:
    _, depth, poses, intrinsics = panned(2, 0.1)
    depth = depth.clone()
    depth[0, :, 10:20] = 1.0
    motion = motion_from_depth(depth, poses, intrinsics)
    assert not bool(motion.visible[0, :, 10:17].any())
    assert bool(motion.visible[0, :, 22:36].all())


@pytest.mark.parametrize("frames", [1, 33])
def test_a_video_without_border_is_refused(frames: int) -> None:
    with pytest.raises(InputError, match="has no border"):
        seam_score(moving(frames))


def test_wrong_motion_is_refused() -> None:
    with pytest.raises(InputError, match="one field for each pair"):
        seam_score(moving(66), sliding(60, 1.0))
    blind = Motion(sliding(66, 1.0).pixels, torch.zeros(65, *SIZE, dtype=torch.bool))
    with pytest.raises(InputError, match="slower path"):
        seam_score(moving(66), blind)


def test_borders_follow_the_length_of_a_chunk() -> None:
    video = moving(40)
    video[10:] += 0.1
    found = seam_score(video, chunk=10)
    assert [border.frame for border in found.borders] == [10, 20, 30]
    assert found.borders[0].score > 2.5
    assert math.isclose(found.score, sum(b.score for b in found.borders) / 3)
