"""Videos that are wrong in one known way, made from the truth alone: no model takes part.

A wrong path is rendered exactly where the source can render; data sets, which cannot, know only the
controls that rearrange their frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn import functional

from flythrough import seeds
from flythrough.cameras import pose as se3
from flythrough.evaluation.features import feature_library
from flythrough.evaluation.pose import pose_errors
from flythrough.evaluation.rows import Row
from flythrough.evaluation.truth import Case, Source, Truth
from flythrough.evaluation.verdicts import TOLD_ROTATION, TOLD_TRANSLATION

LATE = 8
SHUFFLED = 0.3
_BRIGHTER = 5.0  # 8-bit levels by which every other frame of the flickering control is raised
_JUMP = 12.0  # 8-bit levels at each border
_FADED = 0.5  # share of colour and detail that is left after 100 frames

_MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])
_QUARTER = se3.from_parts(se3.rotation_y(math.pi / 2), [0.0, 0.0, 0.0])

PATHS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "half": lambda poses: scaled(poses, 0.5),
    "double": lambda poses: scaled(poses, 2.0),
    "mirrored": lambda poses: _MIRROR @ poses @ _MIRROR,
    "askew": lambda poses: _QUARTER @ poses @ se3.inverse(_QUARTER),
    "reversed": se3.inverse,
}
"""Wrong cameras [T,4,4] of the controls that are rendered."""

_WRONG_ABOUT_THE_PATH = (*PATHS, "shifted", "flat", "fade")


def scaled(world_from_camera: np.ndarray, share: float) -> np.ndarray:
    """``share`` of every rotation and of every way from the first camera, [T,4,4]."""
    turn = se3.so3_exp(share * se3.so3_log(world_from_camera[:, :3, :3]))
    return se3.from_parts(turn, share * world_from_camera[:, :3, 3])


def shuffled(count: int, seed: int) -> np.ndarray:
    """Frame numbers [T] of which 30 % (not the first) have changed places, none keeping its own."""
    source = seeds.generator(seed, "shuffled control")
    many = max(2, math.ceil(SHUFFLED * (count - 1)))
    moved = 1 + torch.randperm(count - 1, generator=source)[:many].numpy()
    order = np.arange(count)
    order[moved] = np.roll(moved, 1)
    return order


def can_fail(row: Row, truth: Truth, others: Sequence[Case]) -> bool:
    """Whether the control differs from this clip in what it is wrong about: half of a path that
    stands still is the path."""
    name, poses, count, median = row.name, truth.world_from_camera, len(truth), truth.median_depth
    if row.kind != "control" or name == "warp":
        return True
    if name in ("other", "forgetful"):
        return truth.filmed and bool(others)
    if name == "jumping":
        return truth.filmed and bool(row.borders(count))
    if name not in _WRONG_ABOUT_THE_PATH:
        return truth.filmed or name in ("still", "flickering")
    if not truth.filmed or poses is None or median is None:
        return False
    return _off_the_path(name, truth, poses, median)


def _off_the_path(name: str, truth: Truth, poses: np.ndarray, median: float) -> bool:
    """Whether the cameras of a control lie clearly off those of the clip."""
    if name == "shifted":
        return _told(poses, poses[np.maximum(np.arange(len(poses)) - LATE, 0)], median)
    if truth.depth is None:  # what is left is rendered, or needs parallax that is known
        return False
    if name in PATHS:
        return _told(poses, PATHS[name](poses), median)
    return 100 * _way(poses) > 4 * TOLD_TRANSLATION * median


def made(
    row: Row, truth: Truth, source: Source, other: Callable[[], np.ndarray]
) -> np.ndarray | None:
    """The frames uint8 [T,H,W,3] of a control; ``other`` gives those of another clip. None where
    the source cannot go along the wrong path."""
    name, frames, count = row.name, truth.frames, len(truth)
    if name in PATHS:
        assert truth.world_from_camera is not None
        return source.along(truth.case, PATHS[name](truth.world_from_camera), truth.size)
    index = np.arange(count)
    makers: dict[str, Callable[[], np.ndarray]] = {
        "still": lambda: frames[np.zeros(count, int)],
        "shifted": lambda: frames[np.maximum(index - LATE, 0)],
        "shuffled": lambda: frames[shuffled(count, truth.case.seed)],
        "fade": lambda: _mixed(frames[:1], frames[-1:], index / (count - 1)),
        "flat": lambda: _flat(truth),
        "other": lambda: np.concatenate([frames[:1], _fitted(other(), count)[1:]]),
        "forgetful": lambda: np.concatenate(
            [frames[: count // 2], _fitted(other(), count)[count // 2 :]]
        ),
        "flickering": lambda: _raised(_held(frames, count), _BRIGHTER * (index % 2)),
        "jumping": lambda: _raised(
            frames, _JUMP * np.searchsorted(row.borders(count), index, side="right")
        ),
        "soft": lambda: _blurred(frames, np.full(count, 1.0)),
        "fading": lambda: _faded(frames),
    }
    return makers[name]()


def _told(poses: np.ndarray, wrong: np.ndarray, median_depth: float) -> bool:
    turn, way = pose_errors(wrong, poses)
    return bool(
        turn[1:].mean() >= 1.2 * TOLD_ROTATION
        or 100 * way[1:].mean() >= 1.2 * TOLD_TRANSLATION * median_depth
    )


def _way(poses: np.ndarray) -> float:
    return float(np.linalg.norm(poses[:, :3, 3], axis=1).max())


def _flat(truth: Truth) -> np.ndarray:
    """The photo as a picture that hangs at the median depth: no parallax."""
    cv2 = feature_library()
    assert truth.world_from_camera is not None
    k, (height, width) = truth.intrinsics, truth.size
    shift = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # OpenCV's centres are at integers
    k = np.linalg.inv(shift) @ k
    normal = np.array([0.0, 0.0, 1.0 / (truth.median_depth or 1.0)])
    frames = []
    for pose in se3.inverse(truth.world_from_camera):
        plane = k @ (pose[:3, :3] + np.outer(pose[:3, 3], normal)) @ np.linalg.inv(k)
        picture = truth.frames[0]
        frames.append(
            cv2.warpPerspective(picture, plane, (width, height), borderMode=cv2.BORDER_REFLECT)
        )
    return np.stack(frames)


def _mixed(one: np.ndarray, other: np.ndarray, share: np.ndarray) -> np.ndarray:
    weight = share.reshape(-1, 1, 1, 1)
    return ((1 - weight) * one + weight * other).round().astype(np.uint8)


def _held(frames: np.ndarray, count: int) -> np.ndarray:
    return frames if len(frames) == count else frames[np.zeros(count, int)]


def _fitted(frames: np.ndarray, count: int) -> np.ndarray:
    """``count`` frames; a shorter clip is run to and fro."""
    there = np.r_[np.arange(len(frames)), np.arange(len(frames) - 2, 0, -1)]
    return frames[np.resize(there, count)]


def _raised(frames: np.ndarray, levels: np.ndarray) -> np.ndarray:
    raised = frames.astype(np.float32) + levels.reshape(-1, 1, 1, 1).astype(np.float32)
    return raised.round().clip(0, 255).astype(np.uint8)


def _faded(frames: np.ndarray) -> np.ndarray:
    """Colour and contrast go towards the mean, detail goes, more with every frame."""
    at = np.arange(len(frames))
    left = np.maximum(1 - (1 - _FADED) * at / 100, 0.2).reshape(-1, 1, 1, 1)
    grey = np.full_like(frames[:1], 190).astype(np.float64)
    soft = _blurred(frames, 0.02 * at)
    return (left * soft + (1 - left) * grey).round().astype(np.uint8)


def _blurred(frames: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Gaussian blur with one standard deviation in pixels for each frame."""
    at = torch.arange(-6, 7).float()
    found = []
    for frame, width in zip(frames, sigma, strict=True):
        bell = torch.exp(-(at**2) / (2 * max(float(width), 1e-3) ** 2))
        bell = bell / bell.sum()
        pixels = torch.from_numpy(frame).permute(2, 0, 1)[:, None].float()
        padded = functional.pad(pixels, (6, 6, 6, 6), mode="reflect")
        across = functional.conv2d(padded, bell.view(1, 1, 1, -1))
        both = functional.conv2d(across, bell.view(1, 1, -1, 1))
        found.append(both[:, 0].permute(1, 2, 0).round().byte().numpy())
    return np.stack(found)
