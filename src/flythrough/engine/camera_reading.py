"""Whether a camera file was read as it was meant, as far as the scene can tell.

Matrices do not say what they mean, but a path does once something is known of the scene: read
wrongly, an orbit turns away from its subject. Where a path as read soon loses sight of everything
known while under another reading it keeps it in view, the file most likely means the other one.
Straight moves and turns on the spot stay undecided (``docs/cameras.md`` has figures).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from flythrough.cameras.formats.conventions import Convention, other_readings
from flythrough.cameras.source import BelievedFile
from flythrough.cameras.trajectory import Trajectory
from flythrough.engine.build import Session
from flythrough.engine.plan import Plan
from flythrough.errors import CameraError
from flythrough.rollout.rollout import Rollout


@dataclass(frozen=True)
class Evidence:
    """Shares of the picture in which something known lies: with less than ``lost`` a path has lost
    sight of the scene, and another reading must show at least ``kept`` up to there."""

    lost: float
    kept: float


STRONG, WEAK = Evidence(0.1, 0.65), Evidence(0.2, 0.5)
"""Enough for a refusal, and for a note."""

_CAMERAS = 24
Seen = Callable[[Trajectory], np.ndarray]


def hold_against_scene(
    session: Session,
    rollout: Rollout,
    plan: Plan,
    believed: BelievedFile | None,
    notify: Callable[[str], None],
) -> None:
    """Refuse a camera file that states no convention where the scene speaks for another one; say so
    of a file that states the one it was read with.

    Raises:
        CameraError: with the probable conventions and what to do.
    """
    leg, memory = plan.legs[-1], session.memory
    if believed is None or memory is None or leg.trajectory is None:
        return
    places = np.unique(np.linspace(0, leg.frames - 1, _CAMERAS).round().astype(int))

    def seen(trajectory: Trajectory) -> np.ndarray:
        cameras = plan.cameras(replace(leg, trajectory=trajectory), rollout)
        assert cameras.intrinsics is not None
        poses, matrices = cameras.world_from_camera[places], cameras.intrinsics[places]
        return memory.cells_seen(rollout, poses, matrices)

    with torch.inference_mode():
        shares = reading_shares(leg.trajectory, seen)
    strong = better_readings(shares, STRONG)
    found = strong or better_readings(shares, WEAK)
    if found is None:
        return
    place, likely = found
    frame = int(places[place]) + 1
    others = " or ".join(map(str, likely))
    what = (
        f"read as {Convention()}, the path of {believed.path} loses sight of the scene by frame "
        f"{frame}, but read as {others} it keeps it in view"
    )
    if believed.fixed:
        notify(
            f"the path of {believed.path} loses sight of the scene by frame {frame}, but with "
            "other axes or inverse matrices it would keep it in view: check that the tool that "
            "wrote it keeps to the format."
        )
    elif believed.stated:
        notify(f"{what}: the file states the former, so correct it if that is wrong.")
    elif strong is None:
        notify(f"{what}: the file states neither, so say --camera-convention if that is wrong.")
    else:
        raise CameraError(
            f"The camera file states no convention, and {what}; say with --camera-convention what "
            f"its matrices mean ({Convention()} if the path is meant as read)."
        )


def reading_shares(trajectory: Trajectory, seen: Seen) -> dict[Convention, np.ndarray]:
    """What N cameras of a path see under each reading of its matrices.

    Args:
        trajectory: as read with the usual convention.
        seen: [N] share of the picture that lies on something known, for N cameras of a path.
    """
    found = {}
    for convention, other in {Convention(): trajectory, **other_readings(trajectory)}.items():
        try:
            found[convention] = seen(other)
        except CameraError:  # a path that leads beyond all bounds is not what was meant
            continue
    return found


def better_readings(
    shares: Mapping[Convention, np.ndarray], evidence: Evidence
) -> tuple[int, list[Convention]] | None:
    """Where (0 to N - 1) a path read as usual loses sight of what is known, and the readings that
    do not, best first; None where it does not or no other one is better."""
    lost = np.flatnonzero(shares[Convention()] < evidence.lost)
    if len(lost) == 0:
        return None
    until = int(lost[0]) + 1
    least = {convention: float(share[:until].min()) for convention, share in shares.items()}
    kept = [convention for convention in least if least[convention] >= evidence.kept]
    return (until - 1, sorted(kept, key=lambda c: -least[c])) if kept else None
