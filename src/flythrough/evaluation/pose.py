"""Where the camera of a finished video really was, without learned parts and without alignment.

Features of the photo, whose depth is known exactly, are found again in a frame; the camera that
sees the lifted points there is solved for with known intrinsics (PnP with RANSAC). The answer is
in the world's metres and in the photo's frame: no scale, rotation or origin is fitted afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from flythrough.cameras import pose as se3
from flythrough.errors import InputError
from flythrough.evaluation.features import Features, feature_library, features, pairs

LEAST_INLIERS = 30
"""A frame with fewer is a failure. It is counted, and charged like a camera that never moved."""

_LENGTH_STRIDE = 8  # frames; over shorter steps the noise of single poses adds length
_REACH = 0.01  # of the width: how far an inlier may lie off
_SMOOTH = 1.1  # largest over smallest depth around a feature that can be lifted
_TRIES = 5000


@dataclass(frozen=True, eq=False)
class PoseTrack:
    """The camera of frames 1 to T-1 against the one that was asked for; arrays are [T-1].

    Attributes:
        rotation: degrees; ``translation``: percent of the median depth. Failed frames are charged
            with the error of a camera that stayed at the photo.
        failed: fewer than 30 inliers.
        inliers: features that agree with the pose that was found.
        judged: frames that the exact render itself shows well enough to be measured; the others
            count nowhere.
        length_ratio: length of the path found over that of the path asked for, through every
            eighth frame that could be measured; None where the path asked for does not move.
    """

    rotation: np.ndarray
    translation: np.ndarray
    failed: np.ndarray
    inliers: np.ndarray
    judged: np.ndarray
    length_ratio: float | None

    @property
    def failure_rate(self) -> float | None:
        """Share of judged frames, in [0,1]."""
        return _mean(self.failed, self.judged)

    @property
    def mean_rotation(self) -> float | None:
        """Over judged frames, degrees, failures charged."""
        return _mean(self.rotation, self.judged)

    @property
    def mean_translation(self) -> float | None:
        """Over judged frames, percent of the median depth, failures charged."""
        return _mean(self.translation, self.judged)

    @property
    def measured_rotation(self) -> float | None:
        """Mean over frames that could be measured, degrees."""
        return _mean(self.rotation, self.judged & ~self.failed)

    @property
    def measured_translation(self) -> float | None:
        """Mean over frames that could be measured, percent of the median depth."""
        return _mean(self.translation, self.judged & ~self.failed)


class FirstView:
    """The photo's features with their exact places in space.

    Args:
        photo: uint8 [H,W,3].
        depth: [H,W] z-depth, 0 where unknown; its unit is that of all poses.
        intrinsics: [3,3] in pixels, centres at half-integers.
        world_from_camera: [4,4] of the photo.
        mask: [H,W] bool, where features may be taken; everywhere if None.

    Raises:
        InputError: OpenCV is not installed.
    """

    def __init__(
        self,
        photo: np.ndarray,
        depth: np.ndarray,
        intrinsics: np.ndarray,
        world_from_camera: np.ndarray | None = None,
        mask: np.ndarray | None = None,
    ) -> None:
        found = features(photo)
        z, good = _depth_at(np.asarray(depth, np.float64), found.places)
        if mask is not None:
            column, row = found.places.astype(int).T
            good &= mask[row.clip(0, mask.shape[0] - 1), column.clip(0, mask.shape[1] - 1)]
        self._lift(found.chosen(good), z[good], intrinsics, photo.shape[1], world_from_camera)

    @classmethod
    def of_landmarks(
        cls, photo: np.ndarray, landmarks: np.ndarray, intrinsics: np.ndarray
    ) -> FirstView:
        """The view of a photo uint8 [H,W,3] whose depth is known at its landmarks alone: float64
        [n,3], places among the photo's own features and their z-depth."""
        found = features(photo)
        depth = {(x, y): z for x, y, z in landmarks.tolist()}
        z = np.array([depth.get((x, y), 0.0) for x, y in found.places.tolist()])
        made = cls.__new__(cls)
        made._lift(found.chosen(z > 0), z[z > 0], intrinsics, photo.shape[1], None)
        return made

    def _lift(
        self,
        found: Features,
        depth: np.ndarray,
        intrinsics: np.ndarray,
        width: int,
        world_from_camera: np.ndarray | None,
    ) -> None:
        self.intrinsics = np.asarray(intrinsics, np.float64)
        self._reach = _REACH * width
        self._features = found
        rays = np.c_[found.places, np.ones(len(found))] @ np.linalg.inv(self.intrinsics).T
        points = rays * depth[:, None]
        if world_from_camera is not None:
            points = points @ world_from_camera[:3, :3].T + world_from_camera[:3, 3]
        self._points = points

    def __len__(self) -> int:
        """Points in space."""
        return len(self._points)

    def camera(self, frame: np.ndarray, index: int = 0) -> tuple[np.ndarray | None, int]:
        """``world_from_camera`` [4,4] of a frame uint8 [H,W,3] in the photo's frame, and the
        inliers it rests on; None where they are too few. The frame's number is of no account."""
        del index
        return self.located(features(frame))

    def located(self, there: Features) -> tuple[np.ndarray | None, int]:
        """As :meth:`camera`, of a frame's features."""
        matched = pairs(self._features, there)
        if len(matched) < LEAST_INLIERS:
            return None, 0
        cv2 = feature_library()
        points, pixels = self._points[matched[:, 0]], there.places[matched[:, 1]]
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


class AnchoredView:
    """The photo, and what it showed as exact renders from farther along the path show it.

    Over a long way features of the photo change their size and look until they are not found again
    although they are there. ``anchors`` are views of later exact frames by their number, each with
    features on what the photo showed alone; the photo and the anchors on both sides of a frame are
    asked, and the answer with the most inliers counts.
    """

    def __init__(self, first: FirstView, anchors: Mapping[int, FirstView]) -> None:
        self._first, self._anchors = first, dict(anchors)

    def camera(self, frame: np.ndarray, index: int) -> tuple[np.ndarray | None, int]:
        """As :meth:`FirstView.camera`; ``index`` is the frame's number."""
        there = features(frame)
        before = [number for number in self._anchors if number <= index]
        after = [number for number in self._anchors if number > index]
        near = [*([max(before)] if before else []), *([min(after)] if after else [])]
        asked = [self._first, *(self._anchors[number] for number in near)]
        return max((view.located(there) for view in asked), key=lambda answer: answer[1])


def pose_track(
    frames: np.ndarray,
    first: FirstView | AnchoredView,
    world_from_camera: np.ndarray,
    median_depth: float,
    judged: np.ndarray | None = None,
) -> PoseTrack:
    """Measure a video against the cameras that were asked for.

    Args:
        frames: uint8 [T,H,W,3]; frame 0 stands for the photo and is not measured.
        world_from_camera: [T,4,4] relative to frame 0, in the unit of the photo's depth.
        median_depth: of the photo, in that unit; the measure of translation errors.
        judged: [T] bool; all if None.

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
        camera, inliers[index] = first.camera(frames[index], index)
        failed[index] = camera is None
        if camera is not None:
            poses[index] = camera
    rotation, translation = pose_errors(poses, world_from_camera)
    chosen = np.ones(count, bool) if judged is None else judged
    return PoseTrack(
        rotation=rotation[1:],
        translation=100 * translation[1:] / median_depth,
        failed=failed[1:],
        inliers=inliers[1:],
        judged=chosen[1:],
        length_ratio=_length_ratio(poses, world_from_camera, chosen & ~failed, median_depth),
    )


def pose_errors(found: np.ndarray, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Angles [T] in degrees and distances [T] between cameras [T,4,4], nothing aligned."""
    between = np.swapaxes(asked[:, :3, :3], 1, 2) @ found[:, :3, :3]
    angle = np.degrees(se3.rotation_angle(between))
    return angle, np.linalg.norm(found[:, :3, 3] - asked[:, :3, 3], axis=1)


def _mean(values: np.ndarray, chosen: np.ndarray) -> float | None:
    return float(values[chosen].mean()) if chosen.any() else None


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
