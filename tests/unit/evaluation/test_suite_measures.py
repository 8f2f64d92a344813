"""Measures of the weight-free suite on a scene whose answers are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_scene import FakeRenderer
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from flythrough.cameras import pose as se3
from flythrough.cameras.source import trajectory_from
from flythrough.errors import InputError
from flythrough.evaluation.detail import detail_ratio, frame_detail
from flythrough.evaluation.epipolar import sampson_distance, turn_distance
from flythrough.evaluation.photometry import masked_ssims
from flythrough.evaluation.reprojection import seen_from
from flythrough.evaluation.revisit import returns, revisit
from flythrough.evaluation.temporal import slope, windows
from flythrough.evaluation.truth import Case, Truth
from flythrough.media.fitting import default_intrinsics

SIZE = (48, 80)


def fake_truth(path: str, frames: int) -> Truth:
    k = default_intrinsics(*SIZE, 60.0)
    poses = trajectory_from(path, frames, 16.0).resolve(k, SIZE, 4.0).world_from_camera
    views = FakeRenderer().views("wall", 1, poses, k, SIZE)
    case = Case(1, "wall", path, "fake", frames=frames)
    seen = seen_from(views.depth, poses, k, 0)
    return Truth(case, views.rgb, views.depth, seen, poses.copy(), k, 4.0)


def test_ssim_equals_that_of_scikit_image() -> None:
    source = np.random.default_rng(3)
    one = gaussian_filter(source.uniform(0, 255, (2, 30, 40, 3)), (0, 2, 2, 0)).astype(np.uint8)
    other = np.clip(one + source.normal(0, 6, one.shape), 0, 255).astype(np.uint8)
    wanted = [
        structural_similarity(
            a / 255, b / 255, channel_axis=-1, data_range=1.0, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False,
        )
        for a, b in zip(one, other, strict=True)
    ]  # fmt: skip
    whole = np.ones(one.shape[:3], bool)
    found = masked_ssims(one, other, (whole, ~whole))
    assert found[0] == pytest.approx(np.mean(wanted), abs=1e-4)
    assert masked_ssims(one, one, (whole,)) == [pytest.approx(1)]
    assert found[1] is None


def test_exact_matches_lie_on_their_epipolar_lines() -> None:
    source = np.random.default_rng(1)
    k = default_intrinsics(96, 160, 60.0)
    points = source.uniform((-1, -1, 2), (1, 1, 6), (50, 3))
    pose = se3.compose(se3.translation(0.4, 0.1, 0.2), se3.exp([0, 0, 0, 0.02, 0.1, 0]))

    def seen(camera: np.ndarray) -> np.ndarray:
        local = (points - camera[:3, 3]) @ camera[:3, :3]
        return (local @ k.T)[:, :2] / local[:, 2:]

    x, y = seen(np.eye(4)), seen(pose)
    assert sampson_distance(x, y, k, pose).max() < 1e-6
    beside = sampson_distance(x, y, k, se3.compose(pose, se3.exp([0, 0, 0, 0.02, 0, 0])))
    assert np.median(beside) > 0.5
    turn = se3.exp([0, 0, 0, 0, 0.1, 0])
    assert turn_distance(x, seen(turn), k, turn).max() < 1e-6
    assert np.median(turn_distance(x, seen(turn), k, np.eye(4))) > 5


def test_blur_takes_detail_and_noise_adds_it() -> None:
    truth = fake_truth("hold", 2).frames
    soft = gaussian_filter(truth, (0, 1, 1, 0))
    noisy = np.clip(truth + np.random.default_rng(0).normal(0, 20, truth.shape), 0, 255)
    assert detail_ratio(truth, truth, None) == pytest.approx(1)
    assert detail_ratio(soft, truth, None) < 0.75
    assert detail_ratio(noisy.astype(np.uint8), truth, None) > 1.5
    few = np.zeros(truth.shape[:3], bool)
    few[:, 0, 0] = True
    assert np.isnan(frame_detail(soft, truth, few)).all()


def test_a_collapse_in_the_middle_shows_in_the_worst_window_alone() -> None:
    values = np.full(99, 30.0)
    values[40:60] = 10.0
    assert abs(slope(values)) < 3
    assert windows(values).min() < 20
    assert slope(np.arange(50.0)) == pytest.approx(100)
    assert slope(np.array([np.nan, 1.0])) is None
    assert windows(np.array([np.nan, 4.0])) == pytest.approx([4.0])


def test_what_comes_back_into_view_is_held_against_its_first_look() -> None:
    truth = fake_truth("truck right 0.3; truck left 0.3", 33)
    found = returns(truth)
    assert found
    exact = revisit(truth.frames, found)
    forgot = truth.frames.copy()
    forgot[17:] = forgot[17:, ::-1]
    spoilt = revisit(forgot, found)
    assert exact is not None
    assert spoilt is not None
    assert exact.score > 32
    assert spoilt.score < 22
    assert [away for away, _ in exact.curve] == sorted(away for away, _ in exact.curve)
    assert returns(fake_truth("truck right 0.3", 33)) == ()


def test_depth_maps_tell_what_the_photo_showed() -> None:
    truth = fake_truth("truck right 0.1", 5)
    assert truth.visible is not None
    hidden = ~truth.visible[-1]
    assert hidden[:, -1].all()
    # The post slides over the wall: a strip beside it was hidden before.
    assert 0 < hidden[:, :60].mean() < 0.3


cv2 = pytest.importorskip("cv2")


def test_the_judge_sees_what_is_wrong_and_nothing_else() -> None:
    from flythrough.evaluation.controls import made
    from flythrough.evaluation.measures import Judge
    from flythrough.evaluation.rows import Row, controls

    truth = fake_truth("truck right 0.15", 33)
    judge = Judge(truth)
    exact, _ = judge.figures(truth.frames)
    assert exact["psnr_visible"] == exact["psnr_disoccluded"] == 60
    assert (exact["motion"], exact["flicker"], exact["drift"]) == (1, 0, 0)
    assert exact["seam"] is None  # a single chunk
    jumping = truth.frames.copy()
    jumping[16:] = np.minimum(jumping[16:].astype(int) + 40, 255)
    seam = judge.figures(jumping, Row("x", "", "generated", chunk=16).borders(len(jumping)))[0][
        "seam"
    ]
    assert seam is not None
    assert seam > 1.4
    assert judge.figures(jumping)[0]["seam"] is None

    class Nowhere:
        def along(self, *_: object) -> None:
            return None

    def spoilt(name: str) -> dict[str, float | None]:
        (row,) = controls(name)
        video = made(row, truth, Nowhere(), lambda: truth.frames[:, ::-1])  # type: ignore[arg-type]
        assert video is not None
        return judge.figures(video)[0]

    assert spoilt("still")["motion"] == 0
    assert spoilt("flickering")["flicker"] == pytest.approx(5, abs=0.5)
    assert spoilt("flickering")["drift"] == pytest.approx(0, abs=2)
    assert spoilt("soft")["detail"] < 0.8
    assert spoilt("fading")["drift"] > 3
    assert spoilt("other")["psnr_visible"] < 20
    assert spoilt("shuffled")["flicker"] > 2
    (double,) = controls("double")
    assert made(double, truth, Nowhere(), lambda: truth.frames) is None  # type: ignore[arg-type]


def test_a_control_that_equals_the_path_is_left_out() -> None:
    from flythrough.evaluation.controls import can_fail
    from flythrough.evaluation.rows import CONTROLS

    def able(truth: Truth) -> set[str]:
        return {row.name for row in CONTROLS if can_fail(row, truth, [truth.case])}

    walk, pan = fake_truth("forward 0.3", 33), fake_truth("pan right 12deg", 33)
    assert "mirrored" not in able(walk)
    assert {"half", "double", "askew", "reversed", "flat"} <= able(walk)
    assert {"mirrored", "reversed", "half"} <= able(pan)
    assert not {"askew", "flat", "jumping"} & able(pan)


def test_seams_of_given_videos_are_looked_for_where_they_are_said_to_be(tmp_path: Path) -> None:
    from flythrough.evaluation.benchmark import (
        SuiteRequest,
        check_borders,
        judged_row,
        judged_videos,
    )
    from flythrough.evaluation.rows import FULL

    given = SuiteRequest(folder=tmp_path / "out", videos=tmp_path)
    stated = replace(given, chunk_frames=49)
    assert (judged_row(given).chunk, judged_row(stated).chunk, FULL.chunk) == (None, 49, 33)
    assert judged_videos(given)[0] != judged_videos(stated)[0]
    with pytest.raises(InputError, match="--chunk-frames 1 is out of range"):
        judged_videos(replace(given, chunk_frames=1))
    cases = [Case(1, "wall", "", "fake", frames=33), Case(2, "wall", "", "fake", frames=50)]
    check_borders(stated, cases)
    with pytest.raises(InputError, match="has no effect on clips of at most 33"):
        check_borders(stated, cases[:1])
    with pytest.raises(InputError, match="give --videos FOLDER too"):
        judged_videos(replace(stated, videos=None))
