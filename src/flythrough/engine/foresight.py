"""What a path will see of what is known, looked at before anything is generated."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from flythrough.engine.build import Session
from flythrough.engine.plan import Plan
from flythrough.rollout.rollout import Rollout

_LITTLE = 0.02
_EVERY = 4


def foresee(session: Session, rollout: Rollout, plan: Plan, notify: Callable[[str], None]) -> None:
    """Say which frames of the newest leg leave what photo and chunks so far show: the model invents
    them."""
    leg = plan.legs[-1]
    if session.memory is None or leg.trajectory is None:
        return
    cameras = plan.cameras(leg, rollout)[: leg.frames : _EVERY]
    assert cameras.intrinsics is not None
    with torch.inference_mode():
        share = session.memory.known_share(rollout, cameras.world_from_camera, cameras.intrinsics)
    lost = np.flatnonzero(share < _LITTLE)
    if len(lost) == 0:
        return
    made = plan.window.first(leg.first_chunk)
    first = made + int(lost[0]) * _EVERY + 1
    last = made + min(int(lost[-1] + 1) * _EVERY, leg.frames)
    between = "" if len(lost) == lost[-1] - lost[0] + 1 else " at times"
    known = "what was made so far" if rollout.chunks else "the photo"
    notify(
        f"the path leaves the scene: from frame {first} to {last}{between} less than "
        f"{_LITTLE:.0%} of the picture is known from {known}, and the rest is invented."
    )
