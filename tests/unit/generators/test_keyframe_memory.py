"""The memory that a rollout implies: a function of it, and told what it did without."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from flythrough.errors import GeometryError
from flythrough.generators.keyframes import KeyframeMemory
from flythrough.geometry.estimator import Capabilities
from flythrough.geometry.estimators.flat import FlatDepth
from flythrough.geometry.types import Geometry, ScaleKind
from flythrough.rollout.chunk import Chunk, ChunkRequest
from flythrough.rollout.rollout import Rollout, Start
from flythrough.rollout.spec import RolloutSpec
from flythrough.scene.settings import WarpSettings

SIZE = (32, 48)
MATRIX = np.array([[40.0, 0, 24], [0, 40, 16], [0, 0, 1]])


class Walls:
    """A bumpy wall whose distance depends on the picture; black pictures have no depth at all."""

    name = "walls"

    def __init__(self, most: int | None = None) -> None:
        self.capabilities = Capabilities(
            scale=ScaleKind.METRIC, max_views=most, predicts_poses=True
        )
        self.calls: list[int] = []

    def estimate(self, images: Tensor, *, intrinsics: Tensor | None = None) -> Geometry:
        self.calls.append(len(images))
        assert intrinsics is not None
        count, _, height, width = images.shape
        brightness = images.mean((1, 2, 3))[:, None, None]
        waves = torch.sin(torch.arange(width) / 5)[None, None] * 0.05 + torch.ones(1, height, 1)
        depth = waves * (1 + brightness) * (brightness > 0)
        return Geometry(
            depth=depth,
            confidence=(depth > 0).float(),
            valid=depth > 0,
            intrinsics=intrinsics.expand(count, 3, 3),
            world_from_camera=torch.eye(4).expand(count, 4, 4),
            scale=ScaleKind.METRIC,
        )


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 255, (*SIZE, 3), dtype=np.uint8)


def request(index: int, first: float, last: float) -> ChunkRequest:
    """33 cameras that turn from ``first`` to ``last`` degrees to the right."""
    poses = np.tile(np.eye(4), (33, 1, 1))
    angle = np.radians(np.linspace(first, last, 33))
    poses[:, 0, 0] = poses[:, 2, 2] = np.cos(angle)
    poses[:, 0, 2], poses[:, 2, 0] = np.sin(angle), -np.sin(angle)
    return ChunkRequest(index, "", poses, np.repeat(MATRIX[None], 33, 0))


def started(photo: np.ndarray | None = None) -> Rollout:
    spec = RolloutSpec(
        method="warp-as-history",
        model="walls",
        model_digest="",
        height=SIZE[0],
        width=SIZE[1],
        fps=16.0,
        seed=0,
        prompt="",
        geometry="default",
        lora="off",
        settings={},
    )
    return Rollout(spec, Start(picture(0) if photo is None else photo, MATRIX))


def grown(
    rollout: Rollout, *turns: tuple[float, float], frame: np.ndarray | None = None
) -> Rollout:
    for turn in turns:
        index = len(rollout.chunks)
        last = picture(index + 1) if frame is None else frame
        latents = np.full((16, 9, 4, 6), index, np.float32)
        chunk = Chunk(request(index, *turn), latents, np.repeat(last[None], 33, 0))
        rollout = rollout.appended(chunk)
    return rollout


def memory(
    notes: list[str] | None = None, most: int | None = None, **changes: Any
) -> KeyframeMemory:
    settings = WarpSettings(samples_per_axis=2, older_samples_per_axis=2, **changes)
    tell = None if notes is None else notes.append
    return KeyframeMemory(Walls(most), settings, torch.device("cpu"), notify=tell)


THERE_AND_BACK = ((0, 40), (40, 80), (80, 80))


@pytest.mark.parametrize("estimation", ["each", "joint"])
@pytest.mark.parametrize("older", [0, 1, 3])
def test_a_warp_is_a_function_of_rollout_and_request(estimation: str, older: int) -> None:
    changes = {"estimation": estimation, "older_keyframes": older}
    warm, rollout = memory(**changes), grown(started(), *THERE_AND_BACK)
    ahead = request(3, 80, 30)
    first = warm.warp(rollout, ahead)
    branch = grown(rollout.rewind(2), (40, 10), (10, 0))
    warm.warp(branch, request(3, 0, 20))
    warm.warp(rollout.rewind(3), request(0, 0, 40))
    for source in (warm, memory(**changes)):
        again = source.warp(rollout, ahead)
        assert torch.equal(first.rgb, again.rgb)
        assert torch.equal(first.visible, again.visible)


def test_an_older_keyframe_remembers_what_was_seen_on_the_way() -> None:
    rollout, back = grown(started(), *THERE_AND_BACK), request(3, 80, 40)
    without, remembered = (
        memory(older_keyframes=older).warp(rollout, back).visible.mean() for older in (0, 1)
    )
    assert remembered > without + 0.05


def test_keyframes_stand_where_they_were_asked_for_at_a_common_scale() -> None:
    rollout = grown(started(), (0, 5), (5, 10))
    known = memory().keyframes(rollout)
    assert len(known) == 3
    for keyframe, degrees in zip(known, (0, 5, 10), strict=True):
        pose = keyframe.geometry.world_from_camera[0]
        assert float(pose[0, 2]) == pytest.approx(math.sin(math.radians(degrees)), abs=1e-6)
    depths = torch.stack([keyframe.geometry.median_depth() for keyframe in known])
    assert torch.allclose(depths, depths[0], rtol=0.15)


def test_each_boundary_is_estimated_once() -> None:
    source, rollout = memory(), started()
    for index, turn in enumerate(THERE_AND_BACK):
        source.warp(rollout, request(index, *turn))
        source.warp(rollout, request(index, *turn))
        rollout = grown(rollout, turn)
    assert isinstance(source.estimator, Walls)
    assert source.estimator.calls == [1, 1, 1]


def test_the_memory_of_long_rollouts_is_bounded() -> None:
    rollout = grown(started(), *[(0.0, 1.0)] * 20)
    known = memory().keyframes(rollout)
    assert len(known) == 17
    assert torch.equal(known[-1].image, torch.from_numpy(picture(20)).permute(2, 0, 1) / 255)


def test_joint_estimates_take_the_photo_and_the_newest_in_one_call() -> None:
    source, rollout = memory(estimation="joint"), grown(started(), *THERE_AND_BACK)
    source.warp(rollout, request(3, 80, 60))
    assert isinstance(source.estimator, Walls)
    assert source.estimator.calls == [1, 3]
    known = source.keyframes(rollout)
    assert torch.equal(known[0].geometry.depth, source.photo_geometry(rollout).depth)
    assert torch.equal(known[1].image, torch.from_numpy(picture(2)).permute(2, 0, 1) / 255)


def test_an_estimator_of_single_views_cannot_estimate_together() -> None:
    with pytest.raises(GeometryError, match="set estimation to each"):
        memory(estimation="joint", most=2)
    memory(estimation="joint", most=2, older_keyframes=0)
    settings = WarpSettings(estimation="joint")
    KeyframeMemory(FlatDepth(), settings, torch.device("cpu"), photo_only=True)


def test_a_photo_without_depth_is_refused_at_once() -> None:
    notes: list[str] = []
    source = memory(notes)
    with pytest.raises(GeometryError, match="no connected valid surface") as caught:
        source.photo_geometry(started(np.zeros((*SIZE, 3), np.uint8)))
    assert "\n" not in str(caught.value)
    assert len(notes) == 7
    assert all(note.startswith("the photo: ") for note in notes)


@pytest.mark.parametrize("estimation", ["each", "joint"])
def test_a_boundary_frame_without_depth_is_left_out_and_said(estimation: str) -> None:
    notes: list[str] = []
    source = memory(notes, estimation=estimation)
    black = grown(started(), (0, 5), frame=np.zeros((*SIZE, 3), np.uint8))
    assert len(source.keyframes(black)) == 1
    assert any("chunk 1: its last frame has no depth" in note for note in notes)
    assert len(source.keyframes(grown(black, (5, 10)))) == 2


def test_frames_that_show_nothing_known_keep_their_own_scale() -> None:
    notes: list[str] = []
    source = memory(notes)
    known = source.keyframes(grown(started(), (0, 180)))
    assert len(known) == 2
    assert any("shows nothing of what is known" in note for note in notes)
