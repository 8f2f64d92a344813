"""Photographs as planes: their depth and cameras are exact, and a draw repeats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from flythrough.scene.settings import WarpSettings
from flythrough.training import photo_planes
from flythrough.training.image_losses import psnr
from flythrough.training.photo_planes import PhotoPlanes, alternating
from flythrough.training.photos import PhotoClips
from flythrough.training.refill import WorldVideos, render_warps

SIZE, FRAMES, BATCH = (48, 80), 33, 4


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> PhotoClips:
    """Two pictures of waves, fine enough that a camera that is off by a little shows."""
    folder = tmp_path_factory.mktemp("pictures")
    rows, columns = np.mgrid[0:96, 0:144] / 96.0
    for turn in range(2):
        waves = [
            np.sin(21 * rows + 16.5 * columns + turn),
            np.cos(25.5 * columns - 7.5 * rows - turn),
            np.sin(18 * rows - 13.5 * columns + turn),
        ]
        pixels = np.stack(waves, axis=-1) * 100 + 128
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{turn}.png")
    return PhotoClips(folder, torch.device("cpu"), side=(96, 144))


def planes(photos: PhotoClips, seed: int = 3) -> PhotoPlanes:
    return PhotoPlanes(photos, seed, frames=FRAMES, batch=BATCH, size=SIZE)


def lowest_psnr(clips: WorldVideos, index: int) -> float:
    """dB between warp and truth over the visible pixels of the worst frame of one clip."""
    rgb, visible = render_warps(clips, index, WarpSettings())
    truth, seen = clips.rgb[index], visible > 0.5
    assert seen.float().mean() > 0.8
    frames = [
        psnr(rgb[:, k, seen[k]][None], truth[:, k, seen[k]][None]) for k in range(truth.shape[1])
    ]
    return float(torch.stack(frames).min())


def test_exact_depth_and_cameras_carry_the_first_frame_to_all_others(photos: PhotoClips) -> None:
    clips = planes(photos, seed=5)(0, 0)  # all four cameras of this draw change their place
    deeper = replace(clips, depth=1.3 * clips.depth)
    back = replace(clips, world_from_camera=torch.linalg.inv(clips.world_from_camera))
    for i in range(BATCH):
        assert lowest_psnr(clips, i) > 25
        assert lowest_psnr(deeper, i) < 25
        assert lowest_psnr(back, i) < 20


def test_values_and_shapes(photos: PhotoClips) -> None:
    clips = planes(photos)(5, 0)
    assert clips.rgb.shape == (BATCH, 3, FRAMES, *SIZE)
    assert clips.depth.shape == clips.valid.shape == (BATCH, FRAMES, *SIZE)
    assert clips.world_from_camera.shape == (BATCH, FRAMES, 4, 4)
    assert clips.intrinsics.shape == (BATCH, FRAMES, 3, 3)
    assert 0 <= clips.rgb.min() < clips.rgb.max() <= 1
    assert clips.depth.min() > 0
    assert clips.valid.all()
    assert len(clips.captions) == BATCH
    for caption in clips.captions:
        assert caption.startswith("A photograph. The camera ")


def equal(left: WorldVideos, right: WorldVideos) -> bool:
    return torch.equal(left.rgb, right.rgb) and torch.equal(left.depth, right.depth)


def test_a_clip_is_a_function_of_seed_step_and_rank(
    photos: PhotoClips, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photo_planes, "rank_and_world", lambda: (0, 2))
    draw = planes(photos)
    first = draw(1, 0)
    draw(7, 1)
    again = planes(photos)(1, 0)
    assert equal(first, again)
    assert torch.equal(first.world_from_camera, again.world_from_camera)
    assert first.captions == again.captions
    others = [draw(0, 0), draw(0, 1), draw(1, 1), draw(2, 0), planes(photos, seed=4)(1, 0)]
    assert not any(equal(first, other) for other in others)


def test_alternating_takes_the_second_source_every_nth_step() -> None:
    def source(name: str) -> Callable[[int, int], Any]:
        return lambda step, rank: (name, step, rank)

    draw = alternating(source("a"), source("b"), 3)
    assert [draw(step, 1) for step in range(7)] == [
        ("a", 0, 1), ("a", 1, 1), ("b", 0, 1), ("a", 2, 1), ("a", 3, 1), ("b", 1, 1), ("a", 4, 1),
    ]  # fmt: skip
    always = alternating(source("a"), source("b"), 1)
    assert [always(step, 0) for step in range(3)] == [("b", step, 0) for step in range(3)]
