"""Figures of one chunk by itself, and borders of chunks that share frames."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flythrough.evaluation.portions import Portion, portion_columns, portion_values
from flythrough.evaluation.rows import Row
from flythrough.evaluation.seam import seam_score
from flythrough.evaluation.truth import Case, Truth


def test_borders_follow_the_window() -> None:
    assert Row("x", "", "generated", chunk=49, overlap=5).borders(181) == (49, 93, 137)
    assert Row("x", "", "generated").borders(99) == (33, 66)
    assert Row("x", "", "generated", chunk=None).borders(99) == ()


def test_a_jump_is_found_at_its_own_border() -> None:
    video = torch.rand(24, 1, 1, 1).mul(0.01).expand(24, 3, 8, 8).clone()
    video[13:] += 0.5
    score = seam_score(video, None, 9, (9, 13, 17))
    high = {border.frame: border.score for border in score.borders}
    assert list(high) == [9, 13, 17]
    assert high[13] > 20
    assert max(high[9], high[17]) < 5
    uniform = seam_score(video, None, 8)
    assert uniform == seam_score(video, None, 8, (8, 16))


def test_only_the_portion_counts() -> None:
    source = np.random.default_rng(3)
    exact = source.integers(0, 256, (12, 16, 16, 3), np.uint8)
    video = exact.copy()
    video[8:] = 255 - video[8:]
    visible = np.zeros((12, 16, 16), bool)
    visible[:, :, :8] = True
    case = Case(1, "room", "static", frames=12)
    truth = Truth(case, exact, None, visible, None, np.eye(3), None)
    curves = {
        "frame_rotation": (0.0,) * 7 + (2.0, 4.0, None, 6.0),
        "frame_inliers": (99.0,) * 7 + (5.0, 99.0, 0.0, 99.0),
    }
    early = portion_values(Portion("chunk_1", 0, 8), video, truth, curves, None)
    late = portion_values(Portion("chunk_2", 8, 12), video, truth, curves, None)
    assert early["chunk_1_psnr_visible"] == 60.0
    assert late["chunk_2_psnr_visible"] is not None
    assert late["chunk_2_psnr_visible"] < 10
    assert early["chunk_1_rotation"] == 0
    assert late["chunk_2_rotation"] == pytest.approx(4)
    assert late["chunk_2_failure_rate"] == pytest.approx(1 / 3)
    assert late["chunk_2_seam"] is None
    titles = [column.title for column in portion_columns([Portion("chunk_2", 8, 12)])]
    assert titles[0] == "chunk 2: R-Err (deg)"
