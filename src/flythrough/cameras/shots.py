"""Camera moves of WorldWarp's demo by name or by numbers: ``shots: dolly_in + pan_left; static``.

A shot takes a share of the frames. Its turns are eased, its lengths are per frame and counted in
median depths. Parts joined by ``+`` are summed; a part is a name or ``FIELD=NUMBER``. The photo's
own focal length is kept, where the demo takes 1.2 picture widths for every photo.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from types import MappingProxyType

import numpy as np

from flythrough.cameras import pose as se3
from flythrough.cameras.path_language import WHERE_WORDS_ARE, nearest
from flythrough.cameras.trajectory import LengthUnit, Trajectory
from flythrough.errors import CameraError

PREFIX = "shots:"
_SIDE, _ORDER = 3, 3


@dataclass(frozen=True)
class Shot:
    """One move. ``tilt``, ``pan``, ``bank`` are degrees over the shot (about x, y, z; the demo
    calls them roll, pitch, yaw); ``right``, ``down``, ``forward`` median depths a frame; the
    ``..._rate`` fields degrees a frame."""

    tilt: float = 0.0
    pan: float = 0.0
    bank: float = 0.0
    right: float = 0.0
    down: float = 0.0
    forward: float = 0.0
    tilt_rate: float = 0.0
    pan_rate: float = 0.0
    bank_rate: float = 0.0

    def __add__(self, other: Shot) -> Shot:
        return Shot(*(a + b for a, b in zip(_values(self), _values(other), strict=True)))


def _values(shot: Shot) -> tuple[float, ...]:
    return tuple(getattr(shot, field.name) for field in fields(Shot))


SHOTS: MappingProxyType[str, Shot] = MappingProxyType(
    {
        "dolly_in": Shot(forward=0.008),
        "dolly_in_slow": Shot(forward=0.005),
        "dolly_in_fast": Shot(forward=0.015),
        "dolly_out": Shot(forward=-0.005),
        "establishing_shot": Shot(forward=0.012),
        "truck_right": Shot(right=0.004),
        "truck_left": Shot(right=-0.004),
        "pedestal_up": Shot(down=-0.005),
        "pedestal_down": Shot(down=0.005),
        "pan_right": Shot(pan=5),
        "pan_left": Shot(pan=-5),
        "pan_right_slow": Shot(pan=3),
        "pan_left_slow": Shot(pan=-3),
        "tilt_up": Shot(tilt=5),
        "tilt_down": Shot(tilt=-5),
        "tilt_up_slow": Shot(tilt=3),
        "tilt_down_slow": Shot(tilt=-3),
        "roll_left": Shot(bank=5),
        "roll_right": Shot(bank=-5),
        "orbit_right": Shot(pan_rate=0.1),
        "orbit_left": Shot(pan_rate=-0.1),
        "orbit_up": Shot(tilt_rate=0.1),
        "orbit_down": Shot(tilt_rate=-0.1),
        "crane_up": Shot(tilt=-3, forward=0.002, down=-0.003),
        "crane_down": Shot(tilt=3, forward=0.002, down=0.003),
        "tracking_shot": Shot(pan=-4, forward=0.002, right=0.004),
        "reveal_shot": Shot(tilt=-3, down=-0.008, bank_rate=-0.05),
        "zoom_in": Shot(tilt=1, forward=0.006),
        "hero_shot": Shot(tilt=2, pan=2, forward=0.005),
        "float_up": Shot(tilt=-2, down=-0.002),
        "float_down": Shot(tilt=2, down=0.002),
        "circle_right": Shot(forward=0.002, right=0.002, pan_rate=0.1),
        "circle_left": Shot(forward=0.002, right=-0.002, pan_rate=-0.1),
        "static": Shot(),
    }
)


def is_shots(text: str) -> bool:
    """Whether a camera argument lists shots."""
    return text.strip().lower().startswith(PREFIX)


def parse_shots(text: str, frames: int, fps: float = 16.0) -> Trajectory:
    """``frames`` cameras that follow the shots one after the other, starting at the identity.

    Raises:
        CameraError: an unknown name or field, a wrong number, or fewer than two frames a shot.
    """
    pieces = [piece.strip() for piece in text.strip()[len(PREFIX) :].lower().split(";")]
    shots = [_shot(piece) for piece in pieces if piece]
    if not shots:
        raise CameraError(
            f"The camera {text!r} lists no shots; write one like 'shots: dolly_in + pan_left'."
        )
    if frames < 2 * len(shots):
        raise CameraError(
            f"{len(shots)} shot(s) need at least {2 * len(shots)} frames but get {frames}; ask for "
            "more frames or fewer shots."
        )
    return Trajectory(
        world_from_camera=_smoothed(_followed(shots, frames)),
        times=np.arange(frames) / fps,
        unit=LengthUnit.MEDIAN_DEPTH,
    )


def _shot(piece: str) -> Shot:
    total = Shot()
    for part in piece.split("+"):
        name, equals, number = (word.strip() for word in part.partition("="))
        if equals:
            total = total + _custom(name, number, piece)
            continue
        word = name.replace("-", "_").replace(" ", "_")
        if word not in SHOTS:
            raise CameraError(
                f"{name!r} is no known shot ({nearest(word, SHOTS)}); {WHERE_WORDS_ARE}."
            )
        total = total + SHOTS[word]
    return total


def _custom(name: str, number: str, piece: str) -> Shot:
    known = [field.name for field in fields(Shot)]
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if name not in known or not math.isfinite(value):
        raise CameraError(
            f"{name}={number} in the shot {piece!r} is unusable; give a finite number for one of "
            f"{', '.join(known)}."
        )
    return Shot(**{name: value})


def _followed(shots: list[Shot], frames: int) -> np.ndarray:
    """Poses [T,4,4]: the frames are shared out equally, the first shots taking what is left."""
    share, extra = divmod(frames, len(shots))
    turned, place, poses = np.zeros(3), np.zeros(3), []
    for number, shot in enumerate(shots):
        count = share + (number < extra)
        steps = np.arange(count)[:, None]
        t = steps / max(count - 1, 1)
        whole = np.array([shot.tilt, shot.pan, shot.bank])
        rate = np.array([shot.tilt_rate, shot.pan_rate, shot.bank_rate])
        angles = turned + whole * (3 * t**2 - 2 * t**3) + rate * steps
        x, y, z = np.radians(angles).T
        rotation = se3.rotation_x(x) @ se3.rotation_y(y) @ se3.rotation_z(z)
        moved = steps * np.array([shot.right, shot.down, shot.forward])
        places = place + (rotation @ moved[..., None])[..., 0]
        poses.append(se3.from_parts(rotation, places))
        turned, place = angles[-1], places[-1]
    return se3.relative_to_first(np.concatenate(poses))


def _smoothed(poses: np.ndarray) -> np.ndarray:
    """A cubic fitted to seven frames around each (Savitzky and Golay), for place and turn; the
    first camera stays where it is."""
    window = 2 * _SIDE + 1
    if len(poses) < window:
        return poses
    offsets = np.arange(window) - _SIDE
    powers = np.vander(offsets, _ORDER + 1, increasing=True).astype(float)
    fit = powers @ np.linalg.pinv(powers)  # value at each offset of the fit to seven samples
    index = np.arange(len(poses))
    start = np.clip(index - _SIDE, 0, len(poses) - window)
    rows = fit[index - start]
    samples = start[:, None] + np.arange(window)
    places = np.einsum("nw,nwc->nc", rows, poses[samples, :3, 3])
    # Turns within seven frames are small, so they may be averaged as vectors around the middle one.
    middle = poses[:, None, :3, :3]
    around = se3.so3_log(middle.swapaxes(-1, -2) @ poses[samples][..., :3, :3])
    turn = se3.so3_exp(np.einsum("nw,nwc->nc", rows, around))
    found = se3.from_parts(poses[:, :3, :3] @ turn, places)
    return se3.relative_to_first(found)
