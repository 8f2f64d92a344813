"""Features of pictures and which of them belong together (SIFT by OpenCV)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from flythrough.errors import InputError

_RATIO = 0.8


def feature_library() -> Any:
    """OpenCV.

    Raises:
        InputError: it is not installed.
    """
    try:
        import cv2
    except ImportError:
        raise InputError(
            "Judging the camera needs OpenCV, which is not installed; run: "
            'pip install "flythrough[evaluate]" (or pip install opencv-python-headless).'
        ) from None
    return cv2


@dataclass(frozen=True, eq=False)
class Features:
    """``places`` [n,2] float64 in pixels (centres at half-integers), ``descriptors`` [n,128]."""

    places: np.ndarray
    descriptors: np.ndarray

    def __len__(self) -> int:
        return len(self.places)

    def chosen(self, mask: np.ndarray) -> Features:
        """Those where ``mask`` [n] is true, or of these numbers."""
        return Features(self.places[mask], self.descriptors[mask])


def features(frame: np.ndarray) -> Features:
    """The features of a frame uint8 [H,W,3].

    Raises:
        InputError: OpenCV is not installed.
    """
    cv2 = feature_library()
    grey = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
    points, descriptors = cv2.SIFT_create(contrastThreshold=0.01).detectAndCompute(grey, None)
    if descriptors is None:
        return Features(np.zeros((0, 2)), np.zeros((0, 128), np.float32))
    return Features(np.array([p.pt for p in points], np.float64) + 0.5, descriptors)


def pairs(one: Features, other: Features) -> np.ndarray:
    """Mutual nearest neighbours [n,2] (numbers in ``one`` and ``other``) that are clearly nearer
    than the second nearest."""
    if len(one) < 2 or len(other) < 2:
        return np.zeros((0, 2), np.int64)
    cv2 = feature_library()
    matcher = cv2.BFMatcher(cv2.NORM_L2)
    there = matcher.knnMatch(one.descriptors, other.descriptors, k=2)
    back = matcher.match(other.descriptors, one.descriptors)
    home = {match.queryIdx: match.trainIdx for match in back}
    found = [
        (best.queryIdx, best.trainIdx)
        for best, second in there
        if best.distance < _RATIO * second.distance and home[best.trainIdx] == best.queryIdx
    ]
    return np.array(found, np.int64).reshape(-1, 2)
