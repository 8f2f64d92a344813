"""One more chunk of a rollout in memory, along a camera path or a warp rendered elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from flythrough.cameras.source import camera_notes, check_no_options, trajectory_from
from flythrough.cameras.trajectory import Trajectory
from flythrough.engine.announce import announce
from flythrough.engine.geometry_source import check_metres
from flythrough.engine.plan import Leg, Plan
from flythrough.engine.warp_video import warp_digest
from flythrough.errors import InputError
from flythrough.rollout.chunk import ChunkRequest
from flythrough.rollout.rollout import Rollout

if TYPE_CHECKING:
    from flythrough.engine.build import Session
    from flythrough.generators.base import Report

Camera = str | Path | Trajectory


class WarpPreview(NamedTuple):
    """What a step is conditioned on: ``frames`` uint8 [T,H,W,3] sRGB (the chunk's new frames), one
    colour where nothing was seen, and ``mask`` float32 [T,H,W] in [0,1], 1 where it was seen."""

    frames: np.ndarray
    mask: np.ndarray


def path_on(
    rollout: Rollout, camera: Camera, convention: str | None = None, scale: float | None = None
) -> Trajectory:
    """The cameras of the next chunk, the first being the last camera so far (or the photo's own).

    Raises:
        InputError: a rollout without a last camera, or a path that cannot be used.
    """
    led = rollout.spec.method != "helios"
    if not led or rollout.start is None:
        raise InputError("This rollout has no camera to move on from; begin with start().")
    if rollout.last_camera() is None:
        raise InputError(
            "This rollout has no camera to move on from, since its last chunk followed a warp "
            "alone; rewind it, or give that step its camera beside the warp."
        )
    done = len(rollout.chunks)
    count = rollout.spec.window.shown(done) + (1 if done else 0)
    if not isinstance(camera, Trajectory):
        path = trajectory_from(camera, count, rollout.spec.fps, convention, scale)
        check_metres(path, rollout.spec.geometry)
        for text in camera_notes(camera, count, scale):
            announce(text)
        return path
    check_no_options("a trajectory, whose meaning is fixed", convention, scale)
    if len(camera) != count:
        camera = camera.resampled(count)
    check_metres(camera, rollout.spec.geometry)
    return camera


def request_along(
    session: Session, rollout: Rollout, camera: Trajectory, prompt: str
) -> ChunkRequest:
    """The request for the chunk after ``rollout`` along the cameras of :func:`path_on`.

    Raises:
        CameraError: the path does not resolve in the photo's scene.
    """
    from flythrough.engine.run import scene_scale

    return plan_of(rollout, camera, prompt, scene_scale(session, rollout)).request(rollout)


def plan_of(
    rollout: Rollout, camera: Trajectory | None, prompt: str, scale: tuple[float | None, bool]
) -> Plan:
    """One more chunk; ``scale`` is the photo's median depth and whether it is in metres."""
    window, done = rollout.spec.window, len(rollout.chunks)
    return Plan((Leg(done, window.shown(done), prompt, camera),), *scale, window=window)


def preview(session: Session, rollout: Rollout, request: ChunkRequest) -> WarpPreview:
    """The warp of ``request``, which the next chunk would be conditioned on."""
    import torch

    from flythrough.generators.warp import levels

    assert session.source is not None
    with torch.inference_mode():
        clip = session.source.warp(rollout, request)
        mask = clip.visible.clamp(0, 1).float().cpu().numpy()
        return WarpPreview(levels(clip)[0], np.array(mask))


def chunk_along_warp(
    session: Session,
    rollout: Rollout,
    request: ChunkRequest,
    warp: tuple[np.ndarray, np.ndarray],
    report: Report,
) -> Rollout:
    """``rollout`` with the chunk of ``request`` made along ``warp`` = frames and mask as uint8.

    The cameras of the request, if it has any, only say where the warp was seen from.
    """
    from flythrough.engine.build import led_by

    frames, mask = warp
    led = led_by(session, frames, mask, request.index)
    request = replace(request, warp_digest=warp_digest(frames, mask))
    return rollout.appended(led.generator.chunk(rollout, request, report))
