"""How far matches lie from where the requested cameras allow them, without knowing any depth.

Between a moved camera and the photo a point may lie anywhere on its epipolar line: the Sampson
distance (Hartley & Zisserman, eq. 11.9) tells how far it lies beside. A camera that only turns has
no such lines; there every point has one place, given by a homography.
"""

from __future__ import annotations

import numpy as np

from flythrough.evaluation.features import Features, features, pairs

_LEAST = 20  # matches; fewer say nothing
_MOVES = 0.01  # of the median depth; a shorter baseline counts as a mere turn


def epipolar_errors(
    frames: np.ndarray,
    photo: Features,
    intrinsics: np.ndarray,
    world_from_camera: np.ndarray,
    median_depth: float | None,
) -> np.ndarray:
    """Median distance [T-1] in pixels of the photo's features, found again in frames 1 to T-1, from
    where the requested cameras allow them; NaN where fewer than 20 are found.

    Args:
        frames: uint8 [T,H,W,3].
        intrinsics: [3,3] in pixels, centres at half-integers.
        world_from_camera: [T,4,4] relative to the photo.
        median_depth: in the unit of the poses; None counts every camera that moves as moved.
    """
    errors = np.full(len(frames) - 1, np.nan)
    least = 1e-9 if median_depth is None else _MOVES * median_depth
    for index in range(1, len(frames)):
        there = features(frames[index])
        matched = pairs(photo, there)
        if len(matched) >= _LEAST:
            x, y = photo.places[matched[:, 0]], there.places[matched[:, 1]]
            pose = world_from_camera[index]
            turned = float(np.linalg.norm(pose[:3, 3])) < least
            distance = turn_distance if turned else sampson_distance
            errors[index - 1] = float(np.median(distance(x, y, intrinsics, pose)))
    return errors


def sampson_distance(
    x: np.ndarray, y: np.ndarray, intrinsics: np.ndarray, world_from_camera: np.ndarray
) -> np.ndarray:
    """Distances [n] in pixels of pairs ``x`` in the photo and ``y`` in a frame, [n,2] each, whose
    camera [4,4] is relative to the photo."""
    camera_from_photo = np.linalg.inv(world_from_camera)
    shift, inverse = camera_from_photo[:3, 3], np.linalg.inv(intrinsics)
    cross = np.array([[0, -shift[2], shift[1]], [shift[2], 0, -shift[0]], [-shift[1], shift[0], 0]])
    fundamental = inverse.T @ cross @ camera_from_photo[:3, :3] @ inverse
    one, two = np.c_[x, np.ones(len(x))], np.c_[y, np.ones(len(y))]
    there, here = one @ fundamental.T, two @ fundamental
    top = np.abs((two * there).sum(1))
    below = np.sqrt(there[:, 0] ** 2 + there[:, 1] ** 2 + here[:, 0] ** 2 + here[:, 1] ** 2)
    return top / np.maximum(below, 1e-12)


def turn_distance(
    x: np.ndarray, y: np.ndarray, intrinsics: np.ndarray, world_from_camera: np.ndarray
) -> np.ndarray:
    """Distances [n] in pixels between ``y`` and the places of ``x`` after the mere turn of the
    camera."""
    turned = intrinsics @ world_from_camera[:3, :3].T @ np.linalg.inv(intrinsics)
    moved = np.c_[x, np.ones(len(x))] @ turned.T
    ahead = np.where(moved[:, 2:] > 1e-6, moved[:, 2:], np.nan)
    distance = np.linalg.norm(moved[:, :2] / ahead - y, axis=1)
    return np.where(np.isnan(distance), float(np.hypot(*2 * intrinsics[:2, 2])), distance)
