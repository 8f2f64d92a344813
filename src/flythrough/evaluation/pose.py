"""Where the camera of a finished video really was, without learned parts and without alignment.

Features of the photo, whose depth is known exactly, are found again in a frame; the camera that
sees the lifted points there is solved for with known intrinsics (PnP with RANSAC). The answer is
in the world's metres and in the photo's frame: no scale, rotation or origin is fitted afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from flythrough.cameras import pose as se3
from flythrough.errors import InputError

LEAST_INLIERS = 30
"""A frame with fewer is a failure. It is counted, and charged like a camera that never moved."""

_LENGTH_STRIDE = 8  # frames; over shorter steps the noise of single poses adds length
_RATIO = 0.8
_REACH = 0.01  # of the width: how far an inlier may lie off
_SMOOTH = 1.1  # largest over smallest depth around a feature that can be lifted
_TRIES = 5000


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
class PoseTrack:
    """The camera of frames 1 to T-1 against the one that was asked for; arrays are [T-1].

    Attributes:
        rotation: degrees; ``translation``: percent of the median depth. Failed frames are charged
            with the error of a camera that stayed at the photo.
        failed: fewer than 30 inliers.
        inliers: features that agree with the pose that was found.
        length_ratio: length of the path found over that of the path asked for, through every
            eighth frame that could be measured; None where the path asked for does not move.
    """

    rotation: np.ndarray
    translation: np.ndarray
    failed: np.ndarray
    inliers: np.ndarray
    length_ratio: float | None

    @property
    def failure_rate(self) -> float:
        return float(self.failed.mean())

    @property
    def measured_rotation(self) -> float | None:
        """Mean over frames that could be measured, degrees."""
        return None if self.failed.all() else float(self.rotation[~self.failed].mean())

    @property
    def measured_translation(self) -> float | None:
        """Mean over frames that could be measured, percent of the median depth."""
        return None if self.failed.all() else float(self.translation[~self.failed].mean())


class FirstView:
    """The photo's features with their exact places in space.

    Args:
        photo: uint8 [H,W,3].
        depth: [H,W] z-depth, 0 where unknown; its unit is that of all poses.
        intrinsics: [3,3] in pixels, centres at half-integers.

    Raises:
        InputError: OpenCV is not installed.
    """

    def __init__(self, photo: np.ndarray, depth: np.ndarray, intrinsics: np.ndarray) -> None:
        self._cv2 = feature_library()
        self._sift = self._cv2.SIFT_create(contrastThreshold=0.01)
        self.intrinsics = np.asarray(intrinsics, np.float64)
        self._reach = _REACH * photo.shape[1]
        places, descriptors = self._features(photo)
        z, good = _depth_at(np.asarray(depth, np.float64), places)
        self._descriptors = descriptors[good]
        rays = np.c_[places[good], np.ones(int(good.sum()))] @ np.linalg.inv(self.intrinsics).T
        self._points = rays * z[good, None]

    def camera(self, frame: np.ndarray) -> tuple[np.ndarray | None, int]:
        """``world_from_camera`` [4,4] of a frame uint8 [H,W,3] in the photo's frame, and the
        inliers it rests on; None where they are too few."""
        places, descriptors = self._features(frame)
        pairs = self._pairs(descriptors)
        if len(pairs) < LEAST_INLIERS:
            return None, 0
        cv2 = self._cv2
        points, pixels = self._points[pairs[:, 0]], places[pairs[:, 1]]
        found, turn, shift, chosen = cv2.solvePnPRansac(
            points,
            pixels,
            self.intrinsics,
            None,
            iterationsCount=_TRIES,
            reprojectionError=self._reach,
            confidence=0.9999,
            flags=cv2.SOLVEPNP_EPNP,
        )
        count = 0 if not found or chosen is None else len(chosen)
        if count < LEAST_INLIERS:
            return None, count
        near = chosen[:, 0]
        turn, shift = cv2.solvePnPRefineLM(
            points[near], pixels[near], self.intrinsics, None, turn, shift
        )
        camera_from_world = se3.from_parts(se3.so3_exp(turn[:, 0]), shift[:, 0])
        return se3.inverse(camera_from_world), count

    def _features(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places [n,2] float64 in pixels (centres at half-integers) and descriptors [n,128]."""
        grey = self._cv2.cvtColor(np.ascontiguousarray(frame), self._cv2.COLOR_RGB2GRAY)
        points, descriptors = self._sift.detectAndCompute(grey, None)
        if descriptors is None:
            return np.zeros((0, 2)), np.zeros((0, 128), np.float32)
        return np.array([point.pt for point in points], np.float64) + 0.5, descriptors

    def _pairs(self, descriptors: np.ndarray) -> np.ndarray:
        """Mutual nearest neighbours [n,2] that are clearly nearer than the second nearest."""
        if len(self._descriptors) < 2 or len(descriptors) < 2:
            return np.zeros((0, 2), np.int64)
        matcher = self._cv2.BFMatcher(self._cv2.NORM_L2)
        there = matcher.knnMatch(self._descriptors, descriptors, k=2)
        back = matcher.match(descriptors, self._descriptors)
        home = {one.queryIdx: one.trainIdx for one in back}
        pairs = [
            (best.queryIdx, best.trainIdx)
            for best, second in there
            if best.distance < _RATIO * second.distance and home[best.trainIdx] == best.queryIdx
        ]
        return np.array(pairs, np.int64).reshape(-1, 2)


def pose_track(
    frames: np.ndarray, first: FirstView, world_from_camera: np.ndarray, median_depth: float
) -> PoseTrack:
    """Measure a video against the cameras that were asked for.

    Args:
        frames: uint8 [T,H,W,3]; frame 0 stands for the photo and is not measured.
        world_from_camera: [T,4,4] relative to frame 0, in the unit of the photo's depth.
        median_depth: of the photo, in that unit; the measure of translation errors.

    Raises:
        InputError: a single frame, or another number of cameras.
    """
    count = len(frames)
    if count < 2 or np.shape(world_from_camera) != (count, 4, 4):
        raise InputError(
            f"{count} frames were given with cameras of shape {np.shape(world_from_camera)}; give "
            "two frames or more and one camera [4,4] each."
        )
    poses = np.tile(np.eye(4), (count, 1, 1))
    failed, inliers = np.zeros(count, bool), np.zeros(count, np.int64)
    for index in range(1, count):
        camera, inliers[index] = first.camera(frames[index])
        failed[index] = camera is None
        if camera is not None:
            poses[index] = camera
    rotation, translation = pose_errors(poses, world_from_camera)
    return PoseTrack(
        rotation=rotation[1:],
        translation=100 * translation[1:] / median_depth,
        failed=failed[1:],
        inliers=inliers[1:],
        length_ratio=_length_ratio(poses, world_from_camera, ~failed, median_depth),
    )


def pose_errors(found: np.ndarray, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Angles [T] in degrees and distances [T] between cameras [T,4,4], nothing aligned."""
    between = np.swapaxes(asked[:, :3, :3], 1, 2) @ found[:, :3, :3]
    angle = np.degrees(se3.rotation_angle(between))
    return angle, np.linalg.norm(found[:, :3, 3] - asked[:, :3, 3], axis=1)


def _depth_at(depth: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depth [n] between pixel centres (linear in its inverse, exact on planes), and where the four
    pixels around are known and of one surface [n] bool."""
    height, width = depth.shape
    x, y = np.clip(places - 0.5, 0, [width - 1.001, height - 1.001]).T
    column, row = x.astype(int), y.astype(int)
    right, low = x - column, y - row
    corners = [(0, 0, (1 - right) * (1 - low)), (0, 1, right * (1 - low))]
    corners += [(1, 0, (1 - right) * low), (1, 1, right * low)]
    values = np.stack([depth[row + dy, column + dx] for dy, dx, _ in corners])
    known = (values > 0).all(0)
    safe = np.where(values > 0, values, 1.0)
    inverse = sum(w / v for (_, _, w), v in zip(corners, safe, strict=True))
    return 1 / inverse, known & (safe.max(0) < _SMOOTH * safe.min(0))


def _length_ratio(
    found: np.ndarray, asked: np.ndarray, good: np.ndarray, median_depth: float
) -> float | None:
    chosen = [index for index in range(0, len(found), _LENGTH_STRIDE) if good[index]]

    def length(poses: np.ndarray) -> float:
        steps = np.diff(poses[chosen, :3, 3], axis=0)
        return float(np.linalg.norm(steps, axis=1).sum())

    whole = length(asked)
    return length(found) / whole if whole > 0.01 * median_depth else None
