"""Another speed, and ways to go on where a recorded path ends (WorldWarp, section on control)."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from flythrough.cameras import pose as se3
from flythrough.cameras.trajectory import Trajectory
from flythrough.errors import CameraError

Extension = Literal["hold", "extrapolate", "loop", "ping-pong", "slowdown"]
EXTENSIONS: tuple[str, ...] = get_args(Extension)

SPEEDS = (0.25, 4.0)
_WINDOW = 10
_SLOWER, _SLOWEST = 0.95, 0.1


def sped(path: Trajectory, speed: float) -> Trajectory:
    """The path walked ``speed`` times as fast, at the same frame rate: fewer or more frames.

    Positions run on cubic curves through the frames, rotations on shortest arcs.

    Raises:
        CameraError: a speed outside 0.25 to 4.
    """
    if not SPEEDS[0] <= speed <= SPEEDS[1]:
        raise CameraError(
            f"--speed {speed:g} is out of range; give a factor from {SPEEDS[0]:g} to {SPEEDS[1]:g}."
        )
    count = max(1, int(len(path) / speed))
    if speed == 1.0 or len(path) < 2 or count < 2:
        return path if speed == 1.0 else path[:1].padded(count)
    found = path.resampled(count)
    poses = found.world_from_camera.copy()
    at = np.linspace(0, len(path) - 1, count)
    poses[:, :3, 3] = _cubic(path.world_from_camera[:, :3, 3], at)
    times = path.times[0] + path.step() * np.arange(count)
    return replace(found, world_from_camera=poses, times=times)


def extended(path: Trajectory, frames: int, mode: Extension) -> Trajectory:
    """At least ``frames`` frames, the new ones made by ``mode``; a path that is long enough stays.

    ``hold`` stands still. ``extrapolate`` keeps the mean speed and turn of the last ten frames,
    ``slowdown`` does so too, each step 0.95 times the one before but no less than a tenth. ``loop``
    walks the whole movement again from where it ended (published code jumps back to its start).
    ``ping-pong`` walks back and forth.

    Raises:
        CameraError: an unknown mode.
    """
    if mode not in EXTENSIONS:
        raise CameraError(f"--extend {mode} is unknown; choose {', '.join(EXTENSIONS)}.")
    missing = frames - len(path)
    if missing <= 0 or mode == "hold" or len(path) < 2:
        return path.padded(frames)
    if mode == "ping-pong":
        order = np.arange(len(path))
        cycle = np.r_[order, order[-2:0:-1]]
        return _picked(path, cycle[np.arange(frames) % len(cycle)])
    if mode == "loop":
        whole = path
        while len(whole) < frames:
            whole = whole.then(path)
        return whole[:frames]
    speed, turn = _pace(path.world_from_camera[-_WINDOW - 1 :])
    shares = np.ones(missing)
    if mode == "slowdown":
        shares = np.maximum(_SLOWER ** np.arange(1, missing + 1), _SLOWEST)
    steps = se3.from_parts(se3.so3_exp(shares[:, None] * turn), shares[:, None] * speed)
    poses = list(path.world_from_camera)
    for step in steps:
        poses.append(se3.compose(poses[-1], step))
    return replace(path.padded(frames), world_from_camera=np.stack(poses))


def _pace(poses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean movement and mean turn a frame, both in the camera's own frame."""
    steps = se3.compose(se3.inverse(poses[:-1]), poses[1:])
    return steps[:, :3, 3].mean(0), se3.so3_log(steps[:, :3, :3]).mean(0)


def _picked(path: Trajectory, index: np.ndarray) -> Trajectory:
    times = path.times[0] + path.step() * np.arange(len(index))
    return replace(
        path,
        world_from_camera=path.world_from_camera[index],
        times=times,
        intrinsics=None if path.intrinsics is None else path.intrinsics[index],
        focal_scale=None if path.focal_scale is None else path.focal_scale[index],
    )


def _cubic(points: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Catmull-Rom curve through points [N,3] at positions [M] counted in points."""
    before = 2 * points[:1] - points[1:2]
    after = 2 * points[-1:] - points[-2:-1]
    padded = np.concatenate([before, points, after])
    low = np.clip(np.floor(at).astype(int), 0, len(points) - 2)
    t = (at - low)[:, None]
    a, b, c, d = (padded[low + n] for n in range(4))
    return 0.5 * (
        2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
    )
