"""Does the world look the same when the camera comes back?

Pairs of frames are taken from one place of the path, with a time between them in which part of
the view was gone. On exactly those pixels the two frames of the video are held against each other:
not against the truth, since what the camera did not see at first may look any way, once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flythrough.evaluation.photometry import decibels
from flythrough.evaluation.pose import pose_errors
from flythrough.evaluation.reprojection import brought_over, view_motion
from flythrough.evaluation.seam import Motion
from flythrough.evaluation.truth import Truth

_TURN, _WAY = 1.5, 1.5  # degrees and percent of the median depth within which a place is the same
_LEAST_AWAY = 12  # frames
_LEAST_SHARE = 0.02  # of the picture that must have been gone
_MOVING = 12.0  # 8-bit levels by which the exact frames may differ
_STRIDE = 4


@dataclass(frozen=True)
class Revisit:
    """``score`` is the PSNR in dB over all pixels that came back, ``curve`` (frames away, dB) of
    each pair of frames."""

    score: float
    curve: tuple[tuple[int, float], ...]


@dataclass(frozen=True, eq=False)
class Return:
    """Two frames from (almost) one place, the pixels [H,W] of the earlier that were out of view
    between them, and where these lie in the later."""

    first: int
    last: int
    back: np.ndarray
    motion: Motion


def returns(truth: Truth) -> tuple[Return, ...]:
    """What comes back into view along the path of ``truth``; nothing where it never returns."""
    poses, depth = truth.world_from_camera, truth.depth
    if poses is None or depth is None or truth.median_depth is None:
        return ()
    found = []
    for last in range(len(depth) - 1, _LEAST_AWAY - 1, -_STRIDE):
        before = poses[: last - _LEAST_AWAY + 1]
        turn, way = pose_errors(before, np.broadcast_to(poses[last], before.shape))
        off = turn / _TURN + 100 * way / truth.median_depth / _WAY
        first = int(off.argmin())
        if turn[first] > _TURN or 100 * way[first] > _WAY * truth.median_depth:
            continue
        here, middle = (depth[first], poses[first]), (first + last) // 2
        between = view_motion(*here, depth[middle], poses[middle], truth.intrinsics)
        motion = view_motion(*here, depth[last], poses[last], truth.intrinsics)
        again, seen = brought_over(truth.frames[last], motion)
        still = np.abs(again - truth.frames[first]).mean(-1) < _MOVING
        back = seen & still & ~between.visible[0].numpy()
        if back.mean() >= _LEAST_SHARE:
            found.append(Return(first, last, back, motion))
    return tuple(found)


def revisit(video: np.ndarray, found: tuple[Return, ...]) -> Revisit | None:
    """Hold the two looks of ``video`` uint8 [T,H,W,3] at each place against each other."""
    if not found:
        return None
    total, count, curve = 0.0, 0, []
    for pair in found:
        again, _ = brought_over(video[pair.last], pair.motion)
        apart = (again - video[pair.first])[pair.back] / 255
        square, values = float((apart**2).sum()), apart.size
        total, count = total + square, count + values
        curve.append((pair.last - pair.first, decibels(square / values)))
    return Revisit(decibels(total / count), tuple(sorted(curve)))
