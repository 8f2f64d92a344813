"""What happens over time: slopes, the worst stretch, flicker, and whether anything moves at all."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch

from flythrough.errors import InputError
from flythrough.evaluation.features import feature_library
from flythrough.evaluation.seam import Motion, differences

WINDOW = 33
"""Frames of a stretch; a slope from start to end hides a collapse in the middle."""

_STRIDE = 4  # frames between the two whose motion is looked at
_MOVED = 0.75  # pixels from which on a place counts as displaced


def slope(values: np.ndarray) -> float | None:
    """Least-squares slope over 100 frames of values [T], NaN left out; None below two."""
    known = np.flatnonzero(~np.isnan(values))
    if len(known) < 2:
        return None
    return 100 * float(np.polyfit(known, values[known], 1)[0])


def windows(values: np.ndarray) -> np.ndarray:
    """Means of values [T] over stretches of 33 frames that begin every 11 frames, NaN left out; a
    single one where there are no more frames."""
    starts = range(0, max(1, len(values) - WINDOW + 1), WINDOW // 3)
    parts = [values[start : start + WINDOW] for start in starts]
    return np.array([np.nan if np.isnan(part).all() else np.nanmean(part) for part in parts])


def flicker(video: np.ndarray, exact: np.ndarray, motion: Motion | None) -> float | None:
    """How much more a pixel changes from frame to frame than in the exact render, in 8-bit levels.

    Both uint8 [T,H,W,3]; the median over frame pairs of the mean absolute change along ``motion``
    (in place for None). Below 0 for a video softer than the render. None where the path is too fast
    for the motion to be followed.
    """
    changes = [_changes(pictures, motion) for pictures in (video, exact)]
    if changes[0] is None or changes[1] is None:
        return None
    return 255 * float(np.median(changes[0]) - np.median(changes[1]))


def _changes(pictures: np.ndarray, motion: Motion | None) -> np.ndarray | None:
    frames = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    try:
        return differences(frames, motion).numpy()
    except InputError:
        return None


def displaced(video: np.ndarray) -> float:
    """Share in [0,1] of places that move by more than 0.75 pixel within four frames of ``video``
    uint8 [T,H,W,3], by dense optical flow (DIS; Kroeger et al. 2016), mean over the clip.

    Raises:
        InputError: OpenCV is not installed.
    """
    cv2 = feature_library()
    seeker = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in video[::_STRIDE]]
    shares = [
        float((np.linalg.norm(seeker.calc(one, other, None), axis=-1) > _MOVED).mean())
        for one, other in pairwise(grey)
    ]
    return sum(shares) / max(1, len(shares))


def motion_ratio(video: np.ndarray, exact: np.ndarray) -> float | None:
    """``displaced`` of the video over that of the exact render, both measured the same way; 0 is a
    frozen video. None where the render hardly moves."""
    expected = displaced(exact)
    return displaced(video) / expected if expected > 0.05 else None
