"""Continuing a stored rollout: finish its plan, or add a leg with a new camera or prompt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flythrough.cameras.source import trajectory_from
from flythrough.cameras.trajectory import Trajectory
from flythrough.engine.build import build_session
from flythrough.engine.plan import Leg, Plan
from flythrough.engine.run import Job, Notify
from flythrough.errors import RolloutError
from flythrough.media.video import check_video_target
from flythrough.models.catalog import find_model
from flythrough.rollout import store
from flythrough.rollout.rollout import Rollout

_DEFAULT_FRAMES = 33


@dataclass(frozen=True)
class ResumeRequest:
    """What ``flythrough continue`` accepts."""

    folder: Path
    camera: str | None = None
    prompt: str | None = None
    frames: int | None = None
    output: Path | None = None
    device: str = "auto"


@dataclass(frozen=True, eq=False)
class CheckedResume:
    """A stored rollout, the plan it will follow, and where the video goes."""

    request: ResumeRequest
    rollout: Rollout
    plan: Plan
    output: Path


def check_resume(request: ResumeRequest) -> CheckedResume:
    """Read the folder and lay out the work; nothing heavy is loaded.

    Raises:
        RolloutError: nothing is left to do, or the options contradict the rollout.
    """
    rollout = store.load(request.folder)
    plan = Plan.from_dict(store.read_plan(request.folder))
    output = request.output or (Path(plan.output) if plan.output else None)
    if output is None:
        raise RolloutError(
            f"The rollout {request.folder} names no output video; give one with -o OUT.mp4."
        )
    check_video_target(output)
    if request.camera is None and request.prompt is None:
        _check_unfinished(request, rollout, plan)
        return CheckedResume(request, rollout, plan, output)
    leg = _new_leg(request, rollout, plan)
    return CheckedResume(request, rollout, plan.extended(leg), output)


def resume_job(checked: CheckedResume, notify: Notify) -> Job:
    """Load the model of the rollout and store the new plan."""
    spec = checked.rollout.spec
    session = build_session(spec, find_model(spec.model), checked.request.device, notify)
    store.write_plan(checked.request.folder, checked.plan.to_dict())
    return Job(session, checked.rollout, checked.plan, checked.request.folder)


def _check_unfinished(request: ResumeRequest, rollout: Rollout, plan: Plan) -> None:
    if request.frames is not None:
        raise RolloutError(
            f"--frames {request.frames} has no effect without --camera or --prompt; drop it or say "
            "where to go."
        )
    if len(rollout.chunks) >= plan.chunks:
        raise RolloutError(
            f"The rollout {request.folder} is finished ({plan.frames} frames); give --camera PATH "
            "to go on, or rewind it first."
        )


def _new_leg(request: ResumeRequest, rollout: Rollout, plan: Plan) -> Leg:
    frames = request.frames or _DEFAULT_FRAMES
    if frames < 1:
        raise RolloutError(f"--frames {frames} is not positive; give at least 1.")
    trajectory = _new_trajectory(request, rollout, frames)
    if rollout.spec.method == "warp-as-history" and plan.median_depth is None:
        raise RolloutError(
            f"The rollout {request.folder} followed a pre-rendered warp, which has no geometry to "
            "continue from; start a new one with --camera."
        )
    prompt = rollout.spec.prompt if request.prompt is None else request.prompt
    return Leg(len(rollout.chunks), frames, prompt, trajectory)


def _new_trajectory(
    request: ResumeRequest, rollout: Rollout, frames: int
) -> Trajectory | None:
    if rollout.spec.method == "helios":
        if request.camera is not None:
            raise RolloutError(
                f"The rollout {request.folder} was made with method helios, which follows no "
                "camera; drop --camera."
            )
        return None
    extra = 1 if rollout.chunks else 0
    return trajectory_from(request.camera or "static", frames + extra, rollout.spec.fps)
