"""Continuing a stored rollout: finish its plan, or add a leg with a new camera or prompt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from flythrough.cameras.source import believed_file, camera_notes, check_no_options, trajectory_from
from flythrough.cameras.trajectory import Trajectory
from flythrough.engine.files import check_sources
from flythrough.engine.geometry_source import check_metres
from flythrough.engine.hardware import ONE_DEVICE, Hardware, check_hardware
from flythrough.engine.options import (
    check_codec_precision,
    check_compute,
    check_device,
    check_memory,
    check_numbers,
)
from flythrough.engine.plan import Leg, Plan, current_prompt
from flythrough.engine.stored_plan import check_fits, read_plan
from flythrough.engine.stored_settings import check_settings
from flythrough.engine.warp_video import WarpVideo, reread_warp
from flythrough.engine.words import CodecPrecision, Compute, MemoryChoice
from flythrough.errors import FlythroughError, RolloutError
from flythrough.media.video import check_video_target
from flythrough.models.catalog import ModelFolder, find_model
from flythrough.rollout import store
from flythrough.rollout.rollout import Rollout

if TYPE_CHECKING:
    from flythrough.engine.run import Job


@dataclass(frozen=True)
class ResumeRequest:
    """What ``flythrough continue`` accepts."""

    folder: Path
    camera: str | None = None
    prompt: str | None = None
    frames: int | None = None
    output: Path | None = None
    device: str = "auto"
    memory: MemoryChoice = "auto"
    camera_convention: str | None = None
    compute: Compute = "auto"
    hardware: Hardware = ONE_DEVICE
    codec_precision: CodecPrecision = "auto"
    camera_scale: float | None = None


@dataclass(frozen=True, eq=False)
class CheckedResume:
    """A stored rollout, the plan it will follow, where the video goes, and notes for the user.

    ``model`` and ``leads_on``: the model to go on with, and whether a new leg begins. ``finished``:
    every chunk is there and only the video is to be written, without a model.
    """

    request: ResumeRequest
    rollout: Rollout
    plan: Plan
    output: Path
    model: ModelFolder | None = None
    warp: WarpVideo | None = None
    notes: tuple[str, ...] = ()
    leads_on: bool = False
    finished: bool = False


def check_resume(request: ResumeRequest) -> CheckedResume:
    """Read the folder and lay out the work; nothing heavy is loaded and nothing is written.

    Raises:
        RolloutError: nothing is left to do, or the options contradict the rollout.
        InputError: an option that is wrong or without effect.
        WeightsError: the model is gone or changed.
    """
    check_device(request.device)
    check_memory(request.memory, request.device)
    if request.camera is None:
        what = "a continuation without --camera"
        check_no_options(what, request.camera_convention, request.camera_scale)
    check_compute(request.compute, request.device)
    check_codec_precision(request.codec_precision, request.device)
    plan = read_plan(request.folder)
    rollout = store.load(request.folder)
    check_fits(plan, rollout, request.folder)
    check_settings(rollout.spec)
    check_hardware(
        request.hardware,
        request.device,
        request.memory,
        request.compute,
        rollout.spec.method,
        renders=rollout.spec.method != "helios" and plan.warp is None,
    )
    output = request.output or (Path(plan.output) if plan.output else None)
    if output is None:
        raise RolloutError(
            f"The rollout {request.folder} names no output video; give one with -o OUT.mp4."
        )
    check_video_target(output)
    if _only_video_missing(request, rollout, plan, output):
        return CheckedResume(request, rollout, plan, output, finished=True)
    model = find_model(rollout.spec.model)
    check_sources(rollout.spec, model)
    warp: WarpVideo | None = None
    notes: tuple[str, ...] = ()
    uncontrolled = rollout.spec.method == "helios"
    longer = uncontrolled and request.frames is not None
    leads_on = request.camera is not None or request.prompt is not None or longer
    if not leads_on:
        _check_unfinished(request, rollout, plan)
        if plan.warp is not None:
            warp = reread_warp(plan.warp, plan.frames, rollout.size)
    else:
        plan, notes = _extended(request, rollout, plan)
    plan.request(rollout)  # refuses a path that does not resolve
    if request.output is not None:  # a stopped leg goes on without naming it again
        plan = replace(plan, output=str(request.output.resolve()))
    return CheckedResume(request, rollout, plan, output, model, warp, notes, leads_on)


def resume_job(checked: CheckedResume, notify: Callable[[str], None]) -> Job:
    """Store the new plan, so that a run killed from now on can go on, and load the model.

    Raises:
        WeightsError, RolloutError, InputError: the model cannot be used; the old plan is back then.
    """
    from flythrough.engine.build import announce_cut_prompt, build_session
    from flythrough.engine.camera_reading import hold_against_scene
    from flythrough.engine.foresight import foresee
    from flythrough.engine.run import Job
    from flythrough.engine.spool import all_spooled

    for text in checked.notes:
        notify(text)
    spec, request, folder = checked.rollout.spec, checked.request, checked.model
    assert folder is not None
    before = store.read_plan(request.folder)
    store.write_plan(request.folder, checked.plan.to_dict())
    try:
        session = build_session(
            spec,
            folder,
            request.device,
            notify,
            checked.warp,
            request.memory,
            compute=request.compute,
            hardware=request.hardware,
            codec_precision=request.codec_precision,
        )
        believed = believed_file(request.camera, request.camera_convention)
        hold_against_scene(session, checked.rollout, checked.plan, believed, notify)
    except FlythroughError:
        store.write_plan(request.folder, before)
        raise
    if request.prompt is not None:
        announce_cut_prompt(session, request.prompt, notify)
    rollout = all_spooled(checked.rollout)
    if checked.leads_on:
        foresee(session, rollout, checked.plan, notify)
    return Job(session, rollout, checked.plan, request.folder, spool=True)


def complete_already(folder: Path, rollout: Rollout, plan: Plan) -> str:
    """What is said of a run that has all its chunks, and how it can be made longer."""
    said = f"The rollout {folder} is complete already ({plan.frames} frames)"
    if plan.warp is not None:
        return f"{said} and ends with its warp; start a new one with --camera to go further"
    way = "--frames N" if rollout.spec.method == "helios" else "--camera PATH"
    return f"{said}; give {way} to make it longer, or rewind it first to make its end anew"


def _only_video_missing(request: ResumeRequest, rollout: Rollout, plan: Plan, output: Path) -> bool:
    """A run that stopped while its video was written, or whose video is wanted elsewhere."""
    asked = request.camera is not None or request.prompt is not None or request.frames is not None
    complete = 0 < plan.chunks <= len(rollout.chunks)
    return not asked and complete and (request.output is not None or not output.exists())


def _check_unfinished(request: ResumeRequest, rollout: Rollout, plan: Plan) -> None:
    if request.frames is not None:
        raise RolloutError(
            f"--frames {request.frames} has no effect without --camera or --prompt; drop it or say "
            "where to go."
        )
    if len(rollout.chunks) >= plan.chunks:
        raise RolloutError(f"{complete_already(request.folder, rollout, plan)}.")


def _extended(request: ResumeRequest, rollout: Rollout, plan: Plan) -> tuple[Plan, tuple[str, ...]]:
    window = rollout.spec.window
    done = len(rollout.chunks)
    frames = window.shown(done) if request.frames is None else request.frames
    check_numbers(frames, rollout.spec.seed)
    if plan.warp is not None:
        raise RolloutError(
            f"The rollout {request.folder} followed a pre-rendered warp, which has no geometry to "
            "continue from; start a new one with --camera."
        )
    prompt = current_prompt(rollout) if request.prompt is None else request.prompt
    trajectory = _new_trajectory(request, rollout, frames)
    notes = []
    if done < plan.chunks:
        several = plan.chunks - done > 1
        which = f"chunks {done + 1} to {plan.chunks}" if several else f"chunk {plan.chunks}"
        notes.append(
            f"{which} of the old plan {'are' if several else 'is'} not made: the new leg takes "
            f"{'their' if several else 'its'} place."
        )
    elif done and plan.frames < rollout.frame_count:
        notes.append(
            f"the old video ended at frame {plan.frames}: it now runs to the end of its last "
            f"chunk, frame {rollout.frame_count}, before the new leg begins."
        )
    if trajectory is not None and request.camera is not None:
        notes += camera_notes(request.camera, len(trajectory), request.camera_scale)
    if trajectory is not None and request.camera is None:
        notes.append("no --camera was given: the camera stands still.")
    return plan.extended(Leg(done, frames, prompt, trajectory)), tuple(notes)


def _new_trajectory(request: ResumeRequest, rollout: Rollout, frames: int) -> Trajectory | None:
    if rollout.spec.method == "helios":
        if request.camera is not None:
            raise RolloutError(
                f"The rollout {request.folder} was made with method helios, which follows no "
                "camera; drop --camera."
            )
        return None
    extra = 1 if rollout.chunks else 0
    convention, camera = request.camera_convention, request.camera or "static"
    trajectory = trajectory_from(
        camera, frames + extra, rollout.spec.fps, convention, request.camera_scale
    )
    check_metres(trajectory, rollout.spec.geometry)
    return trajectory
