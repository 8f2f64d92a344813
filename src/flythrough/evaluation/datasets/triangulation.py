"""Depth at features of the first frame, from other frames of the same clip with known cameras.

It gives data sets without depth what worlds have: points in the unit of the cameras, so that poses
of generated frames are measured without any alignment, and the median depth that lengths count in.
"""

from __future__ import annotations

import numpy as np

from flythrough.evaluation.features import features, pairs

_PARALLAX = 1.0  # degrees between the two rays
_REACH = 1.5  # pixels that a point may lie off in both pictures
_PARTNERS = 4


def landmarks(
    frames: np.ndarray, world_from_camera: np.ndarray, intrinsics: np.ndarray
) -> np.ndarray:
    """Places among the features of frame 0 and their z-depth: float64 [n,3].

    Args:
        frames: uint8 [T,H,W,3]; ``world_from_camera`` [T,4,4] relative to frame 0.
        intrinsics: [3,3] in pixels, centres at half-integers.

    A feature that several frames show takes the depth of the widest angle. None are found where the
    camera only turns.
    """
    first = features(frames[0])
    depth, widest = np.zeros(len(first)), np.zeros(len(first))
    steps = np.linspace(0, len(frames) - 1, _PARTNERS + 1).round().astype(int)
    for index in dict.fromkeys(steps[1:].tolist()):
        there = features(frames[index])
        matched = pairs(first, there)
        if len(matched) == 0:
            continue
        x, y = first.places[matched[:, 0]], there.places[matched[:, 1]]
        z, angle, good = _two_views(x, y, world_from_camera[index], intrinsics)
        better = good & (angle > widest[matched[:, 0]])
        depth[matched[better, 0]], widest[matched[better, 0]] = z[better], angle[better]
    found = depth > 0
    return np.c_[first.places[found], depth[found]]


def _two_views(
    x: np.ndarray, y: np.ndarray, pose: np.ndarray, intrinsics: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth, angle in degrees and whether to trust it, [n] each, of the point between two rays."""
    inverse, ones = np.linalg.inv(intrinsics), np.ones((len(x), 1))
    one = np.c_[x, ones] @ inverse.T
    other = np.c_[y, ones] @ inverse.T @ pose[:3, :3].T
    # Least squares for z, w in z * one = w * other + way.
    aa, bb, ab = (one * one).sum(1), (other * other).sum(1), (one * other).sum(1)
    a, b = one @ pose[:3, 3], other @ pose[:3, 3]
    below = aa * bb - ab**2
    z = (a * bb - ab * b) / np.where(below > 1e-12, below, np.inf)
    angle = np.degrees(np.arccos(np.clip(ab / np.sqrt(aa * bb), -1, 1)))
    points = (one * z[:, None] - pose[:3, 3]) @ pose[:3, :3]
    ahead = (z > 0) & (points[:, 2] > 0)
    safe = np.where(ahead, points[:, 2], 1.0)
    landed = points / safe[:, None] @ intrinsics.T
    off = np.linalg.norm(landed[:, :2] - y, axis=1)
    return z, angle, ahead & (angle > _PARALLAX) & (off < _REACH)
