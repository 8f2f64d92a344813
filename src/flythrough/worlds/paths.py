"""Random smooth camera paths as tensors: what users' path commands look like, drawn in bulk.

A path is a constant-rate translation, turn and orbit in the first camera's frame, run through a
smooth clock. It is the same family that the path language describes, without a loop over frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flythrough.seeds import generator
from flythrough.worlds.motion import compose, product

CHUNK = 33  # amounts are stated over this many frames
MOVES = (
    "static", "forward", "back", "truck", "pedestal", "pan", "tilt", "orbit", "arc", "free",
)  # fmt: skip
_CHANCES = (0.05, 0.14, 0.06, 0.12, 0.05, 0.12, 0.04, 0.14, 0.10, 0.18)


@dataclass(frozen=True, eq=False)
class PathDraw:
    """Drawn amounts over CHUNK frames for B paths, all float64.

    ``shift`` [B,3] multiples of the median depth along the first camera's axes; ``angles`` [B,3]
    radians (pan right, tilt up, roll clockwise); ``orbit`` [B,2] radians around the point at the
    median depth straight ahead (camera moves right, up); ``ease`` [B] share of smooth start and
    stop; ``back`` [B] 1 where the path returns to its start; ``shake`` [B] radians of hand motion
    with ``shake_phase`` [B,4]; ``names`` say the moves.
    """

    shift: Tensor
    angles: Tensor
    orbit: Tensor
    ease: Tensor
    back: Tensor
    shake: Tensor
    shake_phase: Tensor
    names: tuple[str, ...]

    def scaled(self, translation: Tensor) -> PathDraw:
        """The same paths with translation and orbit shortened by ``translation`` [B] in [0,1]."""
        factor = translation.to(self.shift)[:, None]
        return PathDraw(
            self.shift * factor, self.angles, self.orbit * factor, self.ease, self.back,
            self.shake, self.shake_phase, self.names,
        )  # fmt: skip

    def to(self, device: str | torch.device) -> PathDraw:
        """The same draw on ``device``."""
        moved = {name: getattr(self, name).to(device) for name in _TENSORS}
        return PathDraw(**moved, names=self.names)


_TENSORS = ("shift", "angles", "orbit", "ease", "back", "shake", "shake_phase")


def _signed(rand: Tensor, low: float, high: float) -> Tensor:
    """Uniform in +-[low, high] from uniform numbers in [0,1)."""
    sign = torch.where(rand < 0.5, -1.0, 1.0)
    return sign * (low + (high - low) * (2 * rand - (rand >= 0.5).to(rand)))


def draw_paths(seed: int, batch: int, count: int) -> PathDraw:
    """``count`` random paths, a pure function of (seed, batch)."""
    source = generator(seed, "paths", batch)
    rand = torch.rand(count, 24, generator=source, dtype=torch.float64)
    chances = torch.tensor(_CHANCES, dtype=torch.float64).cumsum(0)
    move = torch.searchsorted(chances, rand[:, 0].contiguous() * chances[-1], right=True)
    degree = math.pi / 180

    def of(*names: str) -> Tensor:
        return torch.stack([move == MOVES.index(name) for name in names]).any(0).to(torch.float64)

    arc, free = of("arc"), of("free")
    forward = of("forward") * (0.12 + 0.4 * rand[:, 1]) - of("back") * (0.10 + 0.25 * rand[:, 1])
    forward = (
        forward + (arc + free) * (-0.10 + 0.5 * rand[:, 1]) + of("truck") * 0.1 * (rand[:, 1] - 0.3)
    )
    right = of("truck") * _signed(rand[:, 2], 0.08, 0.35) + free * _signed(rand[:, 2], 0.0, 0.22)
    right = right + of("forward", "back") * 0.08 * (rand[:, 2] - 0.5)
    down = of("pedestal") * _signed(rand[:, 3], 0.05, 0.18) + free * _signed(rand[:, 3], 0.0, 0.06)
    pan = of("pan") * _signed(rand[:, 4], 6, 26) + (arc + free) * _signed(rand[:, 4], 3, 18)
    pan = pan + of("truck", "pedestal", "forward", "tilt") * 6 * (rand[:, 4] - 0.5)
    tilt = of("tilt") * _signed(rand[:, 5], 4, 13) + free * _signed(rand[:, 5], 0, 6)
    roll = free * (rand[:, 6] < 0.2) * _signed(rand[:, 7], 1, 6)
    around = of("orbit") * _signed(rand[:, 8], 6, 26)
    over = of("orbit") * (rand[:, 9] < 0.3) * _signed(rand[:, 10], 2, 7)
    moving = 1 - of("static")
    return PathDraw(
        shift=torch.stack((right, down, forward), 1),
        angles=torch.stack((pan, tilt, roll), 1) * degree,
        orbit=torch.stack((around, over), 1) * degree,
        ease=torch.where(rand[:, 11] < 0.5, rand[:, 12], 0.0),
        back=((rand[:, 13] < 0.08).to(torch.float64) * moving),
        shake=torch.where(rand[:, 14] < 0.15, 0.5 * degree * rand[:, 15], 0.0) * moving,
        shake_phase=rand[:, 16:20] * 2 * math.pi,
        names=tuple(MOVES[i] for i in move.tolist()),
    )


def _clock(draw: PathDraw, frames: int) -> Tensor:
    """Progress [B,frames]: 0 at the first frame, about frames / CHUNK at the last."""
    span = (frames - 1) / (CHUNK - 1)
    x = torch.arange(frames, device=draw.shift.device, dtype=torch.float64) / max(frames - 1, 1)
    eased = torch.lerp(
        x.expand(len(draw.names), -1),
        (x * x * (3 - 2 * x)).expand(len(draw.names), -1),
        draw.ease[:, None],
    )
    there_and_back = 0.3 - 0.3 * torch.cos(2 * math.pi * eased)  # 0.6 of the way
    return span * torch.lerp(eased, there_and_back, draw.back[:, None])


def _turn(pan: Tensor, tilt: Tensor, roll: Tensor) -> Tensor:
    """Rotation [...,3,3]: pan right, tilt up, roll clockwise, each in the camera's own axes."""
    zero, one = torch.zeros_like(pan), torch.ones_like(pan)

    def matrix(*rows: Tensor) -> Tensor:
        return torch.stack(rows, -1).unflatten(-1, (3, 3))

    cp, sp = torch.cos(pan), torch.sin(pan)
    ct, st = torch.cos(tilt), torch.sin(tilt)
    cr, sr = torch.cos(roll), torch.sin(roll)
    yaw = matrix(cp, zero, sp, zero, one, zero, -sp, zero, cp)
    pitch = matrix(one, zero, zero, zero, ct, -st, zero, st, ct)
    spin = matrix(cr, -sr, zero, sr, cr, zero, zero, zero, one)
    return product(product(yaw, pitch), spin)


def path_poses(draw: PathDraw, frames: int, start: Tensor, median_depth: Tensor) -> Tensor:
    """World-from-camera [B,frames,4,4] float64 from ``start`` [B,4,4] and ``median_depth`` [B]."""
    clock = _clock(draw, frames)
    unit = median_depth.to(torch.float64)[:, None]
    zero = torch.zeros_like(clock)
    orbit = _turn(-draw.orbit[:, :1] * clock, -draw.orbit[:, 1:] * clock, zero)
    pivot = torch.stack((zero, zero, unit.expand_as(clock)), -1)[..., None]
    circle = torch.cat((orbit, pivot - product(orbit, pivot)), -1)
    shift = (draw.shift[:, None] * clock[..., None] * unit[..., None])[..., None]
    seconds = torch.arange(frames, device=clock.device, dtype=torch.float64) / 16
    phase = draw.shake_phase
    wobble = [
        draw.shake[:, None]
        * (
            torch.sin(2 * math.pi * rate * seconds + phase[:, i, None])
            - torch.sin(phase[:, i, None])
        )
        for i, rate in enumerate((0.9, 1.3, 0.6))
    ]
    angles = [draw.angles[:, i, None] * clock + wobble[i] for i in range(3)]
    own = torch.cat((_turn(*angles), shift), -1)
    relative = compose(circle, own)
    pose = compose(start.to(torch.float64)[:, None, :3], relative)
    last = torch.zeros_like(pose[..., :1, :])
    last[..., 3] = 1
    return torch.cat((pose, last), -2)


def motion_words(draw: PathDraw, index: int) -> str:
    """What the camera does in path ``index``, as a caption's last sentence."""
    name = draw.names[index]
    right, down, forward = draw.shift[index].tolist()
    pan, tilt, _ = draw.angles[index].tolist()
    side = "right" if right > 0 else "left"
    ahead = "forward" if forward > 0 else "back"
    around = "right" if float(draw.orbit[index, 0]) > 0 else "left"
    words = {
        "static": "The camera stands still.",
        "forward": "The camera moves forward.",
        "back": "The camera moves back.",
        "truck": f"The camera moves {side}.",
        "pedestal": f"The camera moves {'down' if down > 0 else 'up'}.",
        "pan": f"The camera pans {'right' if pan > 0 else 'left'}.",
        "tilt": f"The camera tilts {'up' if tilt > 0 else 'down'}.",
        "orbit": f"The camera orbits {around}.",
        "arc": f"The camera moves {ahead} and pans {'right' if pan > 0 else 'left'}.",
        "free": f"The camera moves {ahead} and {side}.",
    }
    return words[name]
