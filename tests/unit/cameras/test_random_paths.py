"""Random paths: valid, repeatable, varied and modest."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flythrough.cameras.path_language import parse_path, parse_steps
from flythrough.cameras.pose import rotation_angle
from flythrough.cameras.random_paths import random_path
from flythrough.errors import CameraError

SEEDS = range(300)


def test_same_seed_same_words_and_many_different_ones() -> None:
    drawn = [random_path(seed, 66) for seed in SEEDS]
    assert drawn == [random_path(seed, 66) for seed in SEEDS]
    assert len(set(drawn)) > 290
    verbs = {step.text.split()[0] for words in drawn for step in parse_steps(words)}
    assert {"forward", "left", "up", "pan", "tilt", "orbit", "zoom"} <= verbs
    assert {len(parse_steps(words)) for words in drawn} == {1, 2}


@pytest.mark.parametrize("frames", [33, 66])
def test_amounts_are_modest(frames: int) -> None:
    for seed in SEEDS:
        words = random_path(seed, frames)
        path = parse_path(words, frames)
        assert np.linalg.norm(path.world_from_camera[:, :3, 3], axis=1).max() < 1.0, words
        turned = rotation_angle(path.world_from_camera[:, :3, :3])
        assert turned.max() < math.radians(52), words
        if path.focal_scale is not None:
            assert 0.7 < path.focal_scale.min() <= path.focal_scale.max() < 1.5


@pytest.mark.parametrize("frames", [1, 2, 3, 7])
def test_short_clips_fit(frames: int) -> None:
    for seed in SEEDS:
        assert len(parse_path(random_path(seed, frames), frames)) == frames


def test_no_frames_is_an_error() -> None:
    with pytest.raises(CameraError, match="0 frames"):
        random_path(0, 0)
