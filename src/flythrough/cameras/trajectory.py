"""The trajectory: cameras over time, with the meaning of their length unit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from flythrough.cameras import pose as se3
from flythrough.cameras.intrinsics import check_intrinsics, check_size, refitted, with_focal
from flythrough.errors import CameraError

_FARTHEST = 1e5
"""Median depths (or scene units): a path that leads farther is a mistake."""

DEFAULT_STEP = 1 / 16
"""Seconds between frames where a single frame says nothing about the rate."""


class LengthUnit(StrEnum):
    """What a translation of 1 means."""

    SCENE = "scene"
    METRE = "metre"
    MEDIAN_DEPTH = "median-depth"


@dataclass(frozen=True, eq=False)
class Trajectory:
    """T cameras over time; a value: arrays are float64 copies and read-only.

    Fields:
        world_from_camera: [T,4,4] rigid, OpenCV axes (x right, y down, z forward).
        times: [T] seconds, strictly increasing.
        unit: what a translation of 1 means; MEDIAN_DEPTH counts multiples of the median depth of
            the first frame.
        intrinsics: [T,3,3] pixels of ``size``, pixel centres at half-integers; None leaves the
            photo's own camera.
        size: (height, width) that ``intrinsics`` belongs to.
        focal_scale: [T] multiplier of the photo's own focal length, only without ``intrinsics``.

    Raises:
        CameraError: a wrong shape, a value that is not finite, or a pose that is not rigid.
    """

    world_from_camera: np.ndarray
    times: np.ndarray
    unit: LengthUnit = LengthUnit.MEDIAN_DEPTH
    intrinsics: np.ndarray | None = None
    size: tuple[int, int] | None = None
    focal_scale: np.ndarray | None = None

    def __post_init__(self) -> None:
        poses = se3.check_rigid(_numbers(self.world_from_camera, "world_from_camera"))
        if poses.ndim != 3 or not len(poses):
            raise CameraError(
                f"world_from_camera has shape {list(poses.shape)}; give at least one frame, "
                "[T,4,4]."
            )
        count = len(poses)
        times = _column(self.times, "times", count)
        if np.any(np.diff(times) <= 0):
            frame = int(np.argmax(np.diff(times) <= 0)) + 1
            raise CameraError(
                f"The time of frame {frame} ({times[frame]:g} s) does not come after the one "
                "before; give strictly increasing times in seconds."
            )
        self._set("world_from_camera", poses)
        self._set("times", times)
        object.__setattr__(self, "unit", _unit(self.unit))
        if self.size is not None:
            object.__setattr__(self, "size", check_size(self.size))
        if self.intrinsics is not None:
            self._set("intrinsics", self._checked_intrinsics(count))
        if self.focal_scale is not None:
            self._set("focal_scale", self._checked_focal_scale(count))

    def _checked_intrinsics(self, count: int) -> np.ndarray:
        k = check_intrinsics(_numbers(self.intrinsics, "intrinsics"))
        if k.shape != (count, 3, 3):
            raise CameraError(
                f"intrinsics has shape {list(k.shape)} for {count} frame(s); give one 3x3 matrix "
                f"for each frame, [{count},3,3]."
            )
        if self.size is None:
            raise CameraError(
                "The trajectory has intrinsics in pixels but no picture size that they belong to; "
                "give size=(height, width)."
            )
        return k

    def _checked_focal_scale(self, count: int) -> np.ndarray:
        if self.intrinsics is not None:
            raise CameraError(
                "The trajectory has both intrinsics and focal_scale, which contradict each other; "
                "give one of them."
            )
        scale = _column(self.focal_scale, "focal_scale", count)
        if np.any(scale <= 0):
            frame = int(np.argmax(scale <= 0))
            raise CameraError(
                f"focal_scale of frame {frame} is {scale[frame]:g}, but a focal length is "
                "positive; give a multiplier above 0."
            )
        return scale

    def _set(self, name: str, value: np.ndarray) -> None:
        value = np.array(value, np.float64)
        value.setflags(write=False)
        object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.world_from_camera)

    def __getitem__(self, frames: slice) -> Trajectory:
        """The frames of a slice with their own times; poses stay in the same world.

        Raises:
            CameraError: the slice is empty or runs backwards, or an index that is not a slice.
        """
        if not isinstance(frames, slice):
            raise CameraError(
                f"A trajectory is cut with a slice, not with {frames!r}; write trajectory[a:b]."
            )
        chosen = range(len(self))[frames]
        if not len(chosen) or (frames.step or 1) < 0:
            raise CameraError(
                f"The slice {frames.start}:{frames.stop}:{frames.step} of {len(self)} frame(s) is "
                "empty or runs backwards; choose at least one frame, in order."
            )
        return self._taken(np.array(chosen), self.times[frames])

    def _taken(self, index: np.ndarray, times: np.ndarray) -> Trajectory:
        return replace(
            self,
            world_from_camera=self.world_from_camera[index],
            times=times,
            intrinsics=None if self.intrinsics is None else self.intrinsics[index],
            focal_scale=None if self.focal_scale is None else self.focal_scale[index],
        )

    def first_frame_relative(self) -> Trajectory:
        """The same cameras seen from the first one, which becomes exactly the identity."""
        return replace(self, world_from_camera=se3.relative_to_first(self.world_from_camera))

    def moved(self, pose: ArrayLike) -> Trajectory:
        """The whole path carried along by one rigid transform: ``pose @ each``."""
        carrier = se3.check_rigid(pose, "pose")
        if carrier.shape != (4, 4):
            raise CameraError(f"pose has shape {list(carrier.shape)}; give one 4x4 matrix.")
        return replace(self, world_from_camera=se3.compose(carrier, self.world_from_camera))

    def scaled(self, factor: float, unit: LengthUnit) -> Trajectory:
        """Translations times ``factor`` (finite, above 0), now counted in ``unit``."""
        if not np.isfinite(factor) or factor <= 0:
            raise CameraError(
                f"The length factor {factor:g} is not a finite number above 0; give the size of "
                "one old unit in new units."
            )
        poses = self.world_from_camera.copy()
        poses[:, :3, 3] *= factor
        return replace(self, world_from_camera=poses, unit=unit)

    def step(self) -> float:
        """Seconds between the last two frames (1/16 s for a single frame)."""
        return float(self.times[-1] - self.times[-2]) if len(self) > 1 else DEFAULT_STEP

    def padded(self, n: int) -> Trajectory:
        """At least ``n`` frames: the last camera is repeated at the last frame distance."""
        extra = _count(n) - len(self)
        if extra <= 0:
            return self
        index = np.r_[np.arange(len(self)), np.full(extra, len(self) - 1)]
        later = self.times[-1] + self.step() * np.arange(1, extra + 1)
        return self._taken(index, np.r_[self.times, later])

    def then(self, other: Trajectory) -> Trajectory:
        """This path, then ``other`` with its first camera laid on this one's last camera.

        The doubled frame appears once, so the length is ``len(self) + len(other) - 1``; focal
        multipliers go on from the last one.

        Raises:
            CameraError: the units differ, or only one path has its own intrinsics or another size.
        """
        if self.unit is not other.unit:
            raise CameraError(
                f"A path in unit {self.unit} cannot go on with a path in unit {other.unit}; "
                "convert one with scaled(factor, unit)."
            )
        if (self.intrinsics is None) != (other.intrinsics is None) or self.size != other.size:
            raise CameraError(
                "One path has its own intrinsics or picture size and the other one not or another "
                "one; resolve both for the same size before joining them."
            )
        tail = se3.compose(
            self.world_from_camera[-1], se3.relative_to_first(other.world_from_camera)
        )
        ks, scale = None, None
        if self.intrinsics is not None and other.intrinsics is not None:
            ks = np.concatenate([self.intrinsics, other.intrinsics[1:]])
        elif self.focal_scale is not None or other.focal_scale is not None:
            first, second = _ones(self), _ones(other)
            scale = np.r_[first, (first[-1] * second / second[0])[1:]]
        return replace(
            self,
            world_from_camera=np.concatenate([self.world_from_camera, tail[1:]]),
            times=np.r_[self.times, self.times[-1] + (other.times - other.times[0])[1:]],
            intrinsics=ks,
            focal_scale=scale,
        )

    def resampled(self, n: int) -> Trajectory:
        """``n`` frames at equal times from the first to the last moment.

        Positions and intrinsics go on straight lines between frames, rotations on shortest arcs,
        focal multipliers geometrically. ``n`` = 1 keeps the first frame; a path of a single frame
        is repeated.
        """
        if _count(n) == 1 or len(self) == 1:
            return self[:1].padded(n)
        times = np.linspace(self.times[0], self.times[-1], n)
        low = np.clip(np.searchsorted(self.times, times, side="right") - 1, 0, len(self) - 2)
        weight = (times - self.times[low]) / (self.times[low + 1] - self.times[low])
        poses, ks, scale = self.world_from_camera, self.intrinsics, self.focal_scale
        if ks is not None:
            ks = ks[low] + weight[:, None, None] * (ks[low + 1] - ks[low])
        if scale is not None:
            scale = scale[low] * (scale[low + 1] / scale[low]) ** weight
        moved = se3.interpolate(poses[low], poses[low + 1], weight)
        return replace(self, world_from_camera=moved, times=times, intrinsics=ks, focal_scale=scale)

    def resolve(
        self,
        intrinsics: ArrayLike,
        size: tuple[int, int],
        median_depth: float,
        metric: bool = False,
    ) -> Trajectory:
        """The path in the units and pixels of one photo's scene.

        Args:
            intrinsics: [3,3] the photo's camera in pixels of ``size``; used when the path has no
                intrinsics of its own (those are carried over to ``size`` by a scale factor and a
                centred crop, as photos are).
            size: (height, width) of the pictures to make.
            median_depth: median z-depth of the photo in scene units; finite, above 0.
            metric: whether one scene unit is a metre.

        Returns:
            Trajectory in unit SCENE with intrinsics [T,3,3] at ``size``, relative to its first
            camera.

        Raises:
            CameraError: the path is in metres and the scene is not, or an argument is unusable.
        """
        size = check_size(size)
        path = self.first_frame_relative()
        if self.unit is LengthUnit.MEDIAN_DEPTH:
            if not np.isfinite(median_depth) or median_depth <= 0:
                raise CameraError(
                    f"The median depth {median_depth:g} is not a finite number above 0, and this "
                    "path counts in it; give a geometry with valid depth."
                )
            path = path.scaled(float(median_depth), LengthUnit.SCENE)
        elif self.unit is LengthUnit.METRE and not metric:
            raise CameraError(
                "The path is in metres but the scene's geometry has no metric scale; write the "
                "amounts without 'm', as multiples of the median depth, or use a metric geometry."
            )
        farthest = float(np.abs(path.world_from_camera[:, :3, 3]).max())
        if farthest > _FARTHEST * max(1.0, median_depth):
            raise CameraError(
                f"The path leads {farthest:.3g} scene units away, beyond {_FARTHEST:g} times the "
                "median depth; check its amounts and unit."
            )
        if self.intrinsics is not None:
            assert self.size is not None
            ks = refitted(self.intrinsics, self.size, size)
        else:
            photo = check_intrinsics(intrinsics)
            if photo.shape != (3, 3):
                raise CameraError(f"intrinsics has shape {list(photo.shape)}; give one 3x3 matrix.")
            ks = with_focal(photo, _ones(self))
        return replace(path, unit=LengthUnit.SCENE, intrinsics=ks, size=size, focal_scale=None)

    def digest(self) -> str:
        """32 hex digits that change with any field."""
        state = hashlib.blake2b(f"trajectory 1 {self.unit} {self.size}".encode(), digest_size=16)
        for name in ("world_from_camera", "times", "intrinsics", "focal_scale"):
            value = getattr(self, name)
            state.update(f" {name} {None if value is None else value.shape} ".encode())
            if value is not None:
                state.update(np.ascontiguousarray(value + 0.0, "<f8").tobytes())
        return state.hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and strings for JSON; ``from_dict`` gives the exact same numbers back."""
        return {
            "unit": str(self.unit),
            "size": None if self.size is None else list(self.size),
            "times": self.times.tolist(),
            "world_from_camera": self.world_from_camera.tolist(),
            "intrinsics": None if self.intrinsics is None else self.intrinsics.tolist(),
            "focal_scale": None if self.focal_scale is None else self.focal_scale.tolist(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Trajectory:
        """The trajectory of :meth:`to_dict`; ``size``, ``intrinsics``, ``focal_scale`` may lack.

        Raises:
            CameraError: a key is missing or unknown, or a value is unusable.
        """
        if not isinstance(data, Mapping):
            raise CameraError(
                f"A trajectory is an object with named fields, not a {type(data).__name__}; "
                "write it with to_dict()."
            )
        needed = ("world_from_camera", "times", "unit")
        optional = ("size", "intrinsics", "focal_scale")
        missing = [key for key in needed if key not in data]
        unknown = [str(key) for key in data if key not in (*needed, *optional)]
        if missing or unknown:
            raise CameraError(
                f"The trajectory lacks {missing} and has the unknown fields {unknown}; "
                f"its fields are {[*needed, *optional]}."
            )
        return cls(**data)


def _numbers(value: object, name: str) -> np.ndarray:
    try:
        return np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise CameraError(
            f"{name} is not an even table of numbers; give nested lists of equal length."
        ) from None


def _column(value: object, name: str, count: int) -> np.ndarray:
    column = _numbers(value, name)
    if column.shape != (count,):
        raise CameraError(
            f"{name} has shape {list(column.shape)} for {count} frame(s); "
            f"give one number for each frame, [{count}]."
        )
    if not np.isfinite(column).all():
        frame = int(np.argmax(~np.isfinite(column)))
        raise CameraError(
            f"{name} of frame {frame} is {column[frame]}, which is not finite; give real numbers."
        )
    return column


def _unit(value: object) -> LengthUnit:
    try:
        return LengthUnit(str(value))
    except ValueError:
        raise CameraError(
            f"The length unit {value!r} is unknown; use one of {', '.join(LengthUnit)}."
        ) from None


def _count(n: int) -> int:
    if n < 1:
        raise CameraError(f"A trajectory of {n} frames is empty; ask for at least 1.")
    return n


def _ones(path: Trajectory) -> np.ndarray:
    return np.ones(len(path)) if path.focal_scale is None else path.focal_scale
