"""PSNR on masks and drift of colour: known answers."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.color import rgb2lab

from flythrough.errors import InputError
from flythrough.evaluation.photometry import BEST_PSNR, colour_drift, lab, masked_psnr


@pytest.fixture
def video() -> np.ndarray:
    return np.random.default_rng(1).integers(40, 200, (40, 6, 8, 3)).astype(np.uint8)


def test_only_pixels_of_the_mask_count(video: np.ndarray) -> None:
    mask = np.zeros(video.shape[:3], bool)
    mask[:, :, :4] = True
    other = video.copy()
    other[:, :, 4:] = 0
    assert masked_psnr(other, video, mask) == BEST_PSNR
    rest = masked_psnr(other, video, ~mask)
    assert rest is not None
    assert rest < 10


def test_pixels_of_all_frames_are_pooled(video: np.ndarray) -> None:
    """One frame off by 20 levels: its squared error is spread over all frames' pixels."""
    other = video.copy()
    other[0] += 20
    whole = np.ones(video.shape[:3], bool)
    expected = -10 * np.log10((20 / 255) ** 2 / len(video))
    assert masked_psnr(other, video, whole) == pytest.approx(expected)


def test_an_empty_mask_has_no_psnr_and_wrong_shapes_are_refused(video: np.ndarray) -> None:
    assert masked_psnr(video, video, np.zeros(video.shape[:3], bool)) is None
    with pytest.raises(InputError, match="must be equal"):
        masked_psnr(video, video[:-1], np.ones(video.shape[:3], bool))


def test_lab_is_that_of_scikit_image(video: np.ndarray) -> None:
    np.testing.assert_allclose(lab(video[0]), rgb2lab(video[0]), atol=0.02)


def test_a_video_that_darkens_steadily_drifts_and_a_constant_shift_does_not() -> None:
    grey = np.full((40, 6, 8, 3), 120, np.uint8)
    mask = np.ones(grey.shape[:3], bool)
    assert colour_drift(grey - 30, grey, mask) == pytest.approx(0, abs=1e-9)
    falling = grey - np.arange(40, dtype=np.uint8)[:, None, None, None]
    per_level = (lab(np.full(3, 120))[0] - lab(np.full(3, 81))[0]) / 39
    assert colour_drift(falling, grey, mask) == pytest.approx(100 * per_level, rel=0.02)


def test_colours_outside_the_mask_and_empty_frames_do_not_drift() -> None:
    grey = np.full((40, 6, 8, 3), 120, np.uint8)
    other = grey.copy()
    other[20:] = 0
    mask = np.ones(grey.shape[:3], bool)
    mask[20:] = False
    assert colour_drift(other, grey, mask) == 0
    assert colour_drift(other, grey, np.zeros_like(mask)) == 0
