"""Rigid transforms, SE(3), as float64 matrices.

A pose is a ``[..., 4, 4]`` matrix ``world_from_camera``: it maps a point in the camera's frame
(OpenCV axes: x right, y down, z forward) to the world's frame. Every function is batched over the
leading axes, which broadcast. Angles are radians.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from flythrough.errors import CameraError

RIGID_TOLERANCE = 1e-3
"""Largest accepted entry of ``R @ R.T - 1``: files in float32 or with five digits pass."""

_SMALL = 1e-4


def identity(count: int | None = None) -> np.ndarray:
    """The identity pose [4,4], or ``count`` of them [count,4,4]."""
    return np.eye(4) if count is None else np.broadcast_to(np.eye(4), (count, 4, 4)).copy()


def from_parts(rotation: ArrayLike, translation: ArrayLike) -> np.ndarray:
    """Pose [...,4,4] from a rotation [...,3,3] and a translation [...,3]."""
    r, t = np.asarray(rotation, np.float64), np.asarray(translation, np.float64)
    lead = np.broadcast_shapes(r.shape[:-2], t.shape[:-1])
    pose = np.zeros((*lead, 4, 4))
    pose[..., :3, :3], pose[..., :3, 3], pose[..., 3, 3] = r, t, 1.0
    return pose


def translation(x: float, y: float, z: float) -> np.ndarray:
    """A pure translation [4,4]."""
    return from_parts(np.eye(3), np.array([x, y, z]))


def compose(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """``a @ b``: first ``b``, then ``a``; [...,4,4]."""
    return np.asarray(a, np.float64) @ np.asarray(b, np.float64)


def inverse(pose: ArrayLike) -> np.ndarray:
    """Inverse of rigid transforms [...,4,4], from the transposed rotation."""
    pose = np.asarray(pose, np.float64)
    turned = np.swapaxes(pose[..., :3, :3], -1, -2)
    return from_parts(turned, -(turned @ pose[..., :3, 3:])[..., 0])


def relative_to_first(poses: ArrayLike) -> np.ndarray:
    """Poses [T,4,4] seen from the first camera; the first becomes exactly the identity."""
    poses = np.asarray(poses, np.float64)
    relative = compose(inverse(poses[0]), poses)
    relative[0] = np.eye(4)
    return relative


def rotation_x(angle: ArrayLike) -> np.ndarray:
    """Rotation [...,3,3] about x (right): a positive angle turns the view up, to -y."""
    return so3_exp(np.asarray(angle, np.float64)[..., None] * np.array([1.0, 0.0, 0.0]))


def rotation_y(angle: ArrayLike) -> np.ndarray:
    """Rotation [...,3,3] about y (down): a positive angle turns the view right, to +x."""
    return so3_exp(np.asarray(angle, np.float64)[..., None] * np.array([0.0, 1.0, 0.0]))


def rotation_z(angle: ArrayLike) -> np.ndarray:
    """Rotation [...,3,3] about z (forward): a positive angle leans the camera to its right."""
    return so3_exp(np.asarray(angle, np.float64)[..., None] * np.array([0.0, 0.0, 1.0]))


def look_at(eye: ArrayLike, target: ArrayLike, up: ArrayLike = (0.0, -1.0, 0.0)) -> np.ndarray:
    """Poses [...,4,4] at ``eye`` whose optical axis meets ``target``; image up follows ``up``.

    Raises:
        CameraError: eye and target coincide, or the view is parallel to ``up``.
    """
    eye, target, up = (np.asarray(v, np.float64) for v in (eye, target, up))
    forward = target - eye
    length = np.linalg.norm(forward, axis=-1, keepdims=True)
    if np.any(length < 1e-12):
        raise CameraError(
            "The camera stands on the point it should look at, which leaves its direction open; "
            "move the eye or the target."
        )
    forward = forward / length
    right = np.cross(forward, up)
    width = np.linalg.norm(right, axis=-1, keepdims=True)
    if np.any(width < 1e-9):
        raise CameraError(
            "The view direction is parallel to the up direction, which leaves the roll open; "
            "give another up direction."
        )
    right = right / width
    down = np.cross(forward, right)
    return from_parts(np.stack([right, down, forward], axis=-1), eye)


def _hat(w: np.ndarray) -> np.ndarray:
    """Cross-product matrices [...,3,3] of vectors [...,3]."""
    matrix = np.zeros((*w.shape[:-1], 3, 3))
    matrix[..., 0, 1], matrix[..., 0, 2] = -w[..., 2], w[..., 1]
    matrix[..., 1, 0], matrix[..., 1, 2] = w[..., 2], -w[..., 0]
    matrix[..., 2, 0], matrix[..., 2, 1] = -w[..., 1], w[..., 0]
    return matrix


def _series(angle: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """sin(a)/a, (1-cos a)/a^2 and (a-sin a)/a^3, by Taylor series near zero."""
    small = angle < _SMALL
    a = np.where(small, 1.0, angle)
    square = angle * angle
    half = np.sin(a / 2) / a
    return (
        np.where(small, 1 - square / 6, np.sin(a) / a),
        np.where(small, 0.5 - square / 24, 2 * half * half),
        np.where(small, 1 / 6 - square / 120, (a - np.sin(a)) / a**3),
    )


def so3_exp(vector: ArrayLike) -> np.ndarray:
    """Rotation [...,3,3] from axis times angle [...,3] (Rodrigues' formula)."""
    w = np.asarray(vector, np.float64)
    sine, cosine, _ = _series(np.linalg.norm(w, axis=-1))
    k = _hat(w)
    return np.eye(3) + sine[..., None, None] * k + cosine[..., None, None] * (k @ k)


def _quaternion(rotation: np.ndarray) -> np.ndarray:
    """Unit quaternions [...,4] (w,x,y,z), w >= 0, by the largest of four candidates (Shepperd)."""
    r = rotation
    trace = r[..., 0, 0] + r[..., 1, 1] + r[..., 2, 2]
    d = [1 - trace + 2 * r[..., i, i] for i in range(3)]
    a, b, c = (r[..., j, i] - r[..., i, j] for i, j in ((1, 2), (2, 0), (0, 1)))
    x, y, z = (r[..., j, i] + r[..., i, j] for i, j in ((0, 1), (2, 0), (1, 2)))
    rows = np.stack(
        [
            np.stack([1 + trace, a, b, c], -1),
            np.stack([a, d[0], x, y], -1),
            np.stack([b, x, d[1], z], -1),
            np.stack([c, y, z, d[2]], -1),
        ],
        axis=-2,
    )
    best = np.argmax(np.diagonal(rows, axis1=-2, axis2=-1), axis=-1)
    q = np.take_along_axis(rows, best[..., None, None], axis=-2)[..., 0, :]
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    return np.where(q[..., :1] < 0, -q, q)


def so3_log(rotation: ArrayLike) -> np.ndarray:
    """Axis times angle [...,3] of rotations [...,3,3]; the angle is in [0, pi]."""
    q = _quaternion(np.asarray(rotation, np.float64))
    sine = np.linalg.norm(q[..., 1:], axis=-1)
    angle = 2 * np.arctan2(sine, q[..., 0])
    small = sine < _SMALL
    factor = np.where(small, 2 + sine * sine / 3, angle / np.where(small, 1.0, sine))
    return factor[..., None] * q[..., 1:]


def rotation_angle(rotation: ArrayLike) -> np.ndarray:
    """Angle [...] in [0, pi] of rotations [...,3,3], exact near zero too."""
    return np.linalg.norm(so3_log(rotation), axis=-1)


def exp(twist: ArrayLike) -> np.ndarray:
    """Pose [...,4,4] from a twist [...,6] (velocity, then rotation): constant motion for time 1."""
    xi = np.asarray(twist, np.float64)
    v, w = xi[..., :3], xi[..., 3:]
    _, b, c = _series(np.linalg.norm(w, axis=-1))
    k = _hat(w)
    v_matrix = np.eye(3) + b[..., None, None] * k + c[..., None, None] * (k @ k)
    return from_parts(so3_exp(w), (v_matrix @ v[..., None])[..., 0])


def log(pose: ArrayLike) -> np.ndarray:
    """Twist [...,6] (velocity, then rotation) with ``exp(log(pose)) == pose``."""
    pose = np.asarray(pose, np.float64)
    w = so3_log(pose[..., :3, :3])
    _, b, c = _series(np.linalg.norm(w, axis=-1))
    k = _hat(w)
    v_matrix = np.eye(3) + b[..., None, None] * k + c[..., None, None] * (k @ k)
    return np.concatenate([np.linalg.solve(v_matrix, pose[..., :3, 3:])[..., 0], w], axis=-1)


def slerp(a: ArrayLike, b: ArrayLike, weight: ArrayLike) -> np.ndarray:
    """Rotations [...,3,3] on the shortest arc from ``a`` (weight 0) to ``b`` (weight 1)."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    step = so3_log(np.swapaxes(a, -1, -2) @ b)
    return a @ so3_exp(np.asarray(weight, np.float64)[..., None] * step)


def interpolate(a: ArrayLike, b: ArrayLike, weight: ArrayLike) -> np.ndarray:
    """Poses [...,4,4] between ``a`` and ``b``: straight line in position, shortest arc in turn."""
    a, b, w = (np.asarray(v, np.float64) for v in (a, b, weight))
    place = a[..., :3, 3] + w[..., None] * (b[..., :3, 3] - a[..., :3, 3])
    return from_parts(slerp(a[..., :3, :3], b[..., :3, :3], w), place)


def check_rigid(poses: ArrayLike, name: str = "world_from_camera") -> np.ndarray:
    """Poses [...,4,4] as float64 after checking that each one is a rigid transform.

    Raises:
        CameraError: another shape, a value that is not finite, a last row other than 0 0 0 1, a
            rotation off from orthonormal by more than ``RIGID_TOLERANCE``, or a mirror image.
    """
    poses = np.asarray(poses, np.float64)
    if poses.ndim < 2 or poses.shape[-2:] != (4, 4):
        raise CameraError(f"{name} has shape {list(poses.shape)}; give 4x4 matrices, [T,4,4].")
    flat = poses.reshape(-1, 4, 4)
    _first_bad(~np.isfinite(flat).all((1, 2)), name, "holds a value that is not finite")
    last = np.array([0.0, 0.0, 0.0, 1.0])
    rest = np.abs(flat[:, 3] - last).max(1)
    if (rest > 1e-6).any() and np.abs(flat[:, :, 3] - last).max() <= 1e-6:
        raise CameraError(
            f"{name} has its translations in the last row, as matrices for row vectors do; write "
            "each one transposed."
        )
    _first_bad(rest > 1e-6, name, "has a last row other than 0 0 0 1", rest)
    r = flat[:, :3, :3]
    off = np.abs(r @ np.swapaxes(r, -1, -2) - np.eye(3)).max((1, 2))
    _first_bad(off > RIGID_TOLERANCE, name, "is not a rotation plus a translation", off)
    _first_bad(np.linalg.det(r) < 0, name, "is a mirror image (determinant -1)")
    return poses


def _first_bad(bad: np.ndarray, name: str, fault: str, amount: np.ndarray | None = None) -> None:
    if not bad.any():
        return
    frame = int(np.argmax(bad))
    by = "" if amount is None else f" (off by {amount[frame]:.3g})"
    raise CameraError(
        f"{name} of frame {frame} {fault}{by}, and a pose must be rigid; "
        "write matrices [R t; 0 0 0 1] with R orthonormal."
    )
