"""The loop: chunk after chunk until the plan is done, each stored before the next begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from flythrough.engine.ahead import chunks_ahead
from flythrough.engine.build import (
    Session,
    announce_cut_prompt,
    build_rollout,
    build_spec,
)
from flythrough.engine.camera_reading import hold_against_scene
from flythrough.engine.first_picture import with_first_picture
from flythrough.engine.foresight import foresee
from flythrough.engine.plan import Leg, Plan
from flythrough.engine.request import CheckedRequest
from flythrough.engine.sessions import Sessions
from flythrough.engine.spool import spooled
from flythrough.errors import FaultError
from flythrough.generators.warp import levels
from flythrough.geometry.types import ScaleKind
from flythrough.media.video import VideoWriter
from flythrough.rollout import store
from flythrough.rollout.chunk import Chunk
from flythrough.rollout.lock import held
from flythrough.rollout.rollout import Rollout

Notify = Callable[[str], None]
Progress = Callable[[int, str, float], None]
"""Called with the chunk index, a label and the finished share of that chunk."""


@dataclass(eq=False)
class Job:
    """A rollout under way: the session, the newest rollout value, the plan, the folder; ``spool``
    puts frames of finished chunks on disk."""

    session: Session
    rollout: Rollout
    plan: Plan
    folder: Path | None = None
    spool: bool = False

    @property
    def finished(self) -> bool:
        return len(self.rollout.chunks) >= self.plan.chunks


def start_job(checked: CheckedRequest, notify: Notify, sessions: Sessions | None = None) -> Job:
    """Load the model, settle focal length and scale, and create the folder if one was named.

    ``sessions`` may have the model loaded from an earlier job.
    """
    request = checked.request
    for text in checked.notes:
        notify(text)
    sessions = sessions or Sessions(
        request.device,
        request.memory,
        notify,
        request.compute,
        request.hardware,
        request.codec_precision,
    )
    checked = with_first_picture(checked, sessions, notify)
    spec = build_spec(checked)
    session = sessions.ready(spec, checked.warp, checked.model)
    announce_cut_prompt(session, request.prompt, notify)
    rollout = build_rollout(spec, checked, session, notify)
    leg = Leg(0, request.frames, request.prompt, checked.trajectory)
    output = None if request.output is None else str(request.output.resolve())
    depth, metric = scene_scale(session, rollout)
    warp = None if checked.warp is None else checked.warp.record
    plan = Plan((leg,), depth, metric, output, warp, spec.window)
    plan.request(rollout)  # a path that does not resolve must fail before anything is written
    hold_against_scene(session, rollout, plan, checked.believed, notify)
    foresee(session, rollout, plan, notify)
    if request.rollout is not None:
        store.create(request.rollout, rollout, plan.to_dict())
    return Job(session, rollout, plan, request.rollout, spool=True)


def scene_scale(session: Session, rollout: Rollout) -> tuple[float | None, bool]:
    """Median depth of the photo and whether it is in metres."""
    if session.memory is None:
        return None, False
    with torch.inference_mode():
        geometry = session.memory.photo_geometry(rollout)
        return float(geometry.median_depth()), geometry.scale is ScaleKind.METRIC


def advance(job: Job, progress: Progress) -> Iterator[Rollout]:
    """Generate the remaining chunks; yields the rollout after each. Stopping loses at most one.

    The folder, if there is one, is held for this long (``rollout/lock.py``).

    Raises:
        RolloutError: another process works on the folder, or has changed it.
    """
    if job.folder is None:
        yield from _chunks(job, progress)
        return
    with held(job.folder):
        store.check_current(job.folder, job.rollout)
        yield from _chunks(job, progress)


def _chunks(job: Job, progress: Progress) -> Iterator[Rollout]:
    def keep(chunk: Chunk) -> Rollout:
        if job.folder is not None:
            store.append(job.folder, chunk)
        if job.spool:
            chunk = spooled(chunk)
        job.rollout = job.rollout.appended(chunk)
        progress(chunk.request.index, "done", 1.0)
        return job.rollout

    yield from chunks_ahead(
        job.session.generator, job.rollout, job.plan.chunks, job.plan.request, keep, progress
    )


def write_result(
    rollout: Rollout, plan: Plan, output: Path, written: Callable[[int, int], None] | None = None
) -> int:
    """The trimmed video of a rollout; returns the number of frames written. ``written`` is told how
    many are there, of how many."""
    count = min(plan.frames, rollout.frame_count)
    metadata = {"flythrough": rollout.digest(), "seed": rollout.spec.seed}
    with VideoWriter(output, rollout.spec.fps, metadata=metadata) as writer:
        for number, frame in enumerate(rollout.frames()):
            if number == count:
                break
            writer.write(frame)
            if written is not None:
                written(number + 1, count)
    return count


def write_warp(job: Job, output: Path | None, mask: Path | None = None) -> None:
    """The warp video the finished rollout was conditioned on, unseen pixels black, and its
    visibility as a grey video (white: seen); None leaves one of the two out."""
    source = job.session.source
    if source is None:
        raise FaultError(f"The method {job.rollout.spec.method} renders no warp to write.")
    left, fps = job.plan.frames, job.rollout.spec.fps
    with ExitStack() as files, torch.inference_mode():
        shown, seen = (
            None if file is None else files.enter_context(VideoWriter(file, fps))
            for file in (output, mask)
        )
        for index, chunk in enumerate(job.rollout.chunks):
            clip = source.warp(job.rollout.kept(index), chunk.request)
            frames, visible = levels(clip)
            if shown is not None:
                for frame in np.where(visible[..., None] > 127, frames, 0)[:left]:
                    shown.write(frame)
            if seen is not None:
                for grey in visible[:left]:
                    seen.write(np.repeat(grey[..., None], 3, axis=2))
            left -= len(frames)
