"""The Python entrance: ``ft.load("nano")`` gives a pipeline to call or to step.

``pipe(image, camera=..., frames=...)`` makes a clip; ``start``, ``step`` and rollouts' own
``rewound`` give live control.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from flythrough.cameras.path_language import parse_path
from flythrough.cameras.trajectory import Trajectory
from flythrough.engine.build import Session, build_rollout, build_session, build_spec
from flythrough.engine.plan import Leg, Plan
from flythrough.engine.request import CHUNK_FRAMES, GenerateRequest, check
from flythrough.engine.run import Job, advance, scene_scale
from flythrough.errors import InputError
from flythrough.media.video import write_video
from flythrough.models.catalog import find_model
from flythrough.rollout.rollout import Rollout


@dataclass(frozen=True, eq=False)
class Clip:
    """A finished video: ``frames`` uint8 [T,H,W,3] at ``fps``, and the rollout it came from."""

    frames: np.ndarray
    fps: float
    rollout: Rollout

    def save(self, path: str | Path) -> None:
        """Write an mp4."""
        write_video(Path(path), self.frames, self.fps, {"flythrough": self.rollout.digest()})


def path(text: str, frames: int = CHUNK_FRAMES, fps: float = 16.0) -> Trajectory:
    """A camera path from the path language."""
    return parse_path(text, frames, fps)


def load(model: str = "nano", device: str = "auto") -> Pipeline:
    """A pipeline over a model name or folder; weights load on the first use."""
    find_model(model)
    return Pipeline(model, device)


class Pipeline:
    """Photo and camera in, clip out.

    The loaded model is kept between calls as long as the settings that shaped it stay the same.
    """

    def __init__(self, model: str, device: str) -> None:
        self.model, self.device = model, device
        self._session: tuple[object, Session] | None = None
        self._scale: dict[str, tuple[float | None, bool]] = {}

    def __call__(
        self,
        image: str | Path | None = None,
        *,
        camera: str | None = None,
        prompt: str = "",
        frames: int = 66,
        seed: int = 0,
        size: tuple[int, int] | None = None,
        callback: Callable[[int, str, float], None] | None = None,
    ) -> Clip:
        """Make a clip of ``frames`` frames; ``callback(chunk, label, share)`` reports progress."""
        request = GenerateRequest(
            image=None if image is None else Path(image),
            camera=camera,
            prompt=prompt,
            model=self.model,
            frames=frames,
            seed=seed,
            size=size,
            device=self.device,
        )
        checked = check(request)
        session = self._ready(build_spec(checked))
        rollout = build_rollout(build_spec(checked), checked, session)
        leg = Leg(0, frames, prompt, checked.trajectory)
        job = Job(session, rollout, Plan((leg,), *scene_scale(session, rollout)))
        for _ in advance(job, callback or _ignored):
            pass
        made = np.stack(list(job.rollout.frames()))[:frames]
        return Clip(made, job.rollout.spec.fps, job.rollout)

    def start(
        self,
        image: str | Path,
        *,
        prompt: str = "",
        seed: int = 0,
        size: tuple[int, int] | None = None,
    ) -> Rollout:
        """An empty rollout from a photo, to be stepped."""
        request = GenerateRequest(
            image=Path(image),
            camera="static",
            prompt=prompt,
            model=self.model,
            seed=seed,
            size=size,
            device=self.device,
        )
        checked = check(request)
        spec = build_spec(checked)
        return build_rollout(spec, checked, self._ready(spec))

    def step(self, rollout: Rollout, camera: Trajectory | str, prompt: str | None = None) -> Rollout:
        """One more chunk along ``camera``, which starts at the last camera; the given rollout stays
        valid."""
        if rollout.start is None:
            raise InputError("This rollout has no photo to move the camera in; begin with start().")
        session = self._ready(rollout.spec)
        extra = 1 if rollout.chunks else 0
        trajectory = camera if isinstance(camera, Trajectory) else None
        if trajectory is None:
            assert isinstance(camera, str)
            trajectory = parse_path(camera, CHUNK_FRAMES + extra, rollout.spec.fps)
        elif len(trajectory) != CHUNK_FRAMES + extra:
            trajectory = trajectory.resampled(CHUNK_FRAMES + extra)
        said = rollout.spec.prompt if prompt is None else prompt
        leg = Leg(len(rollout.chunks), CHUNK_FRAMES, said, trajectory)
        plan = Plan((leg,), *self._scene_scale(session, rollout))
        job = Job(session, rollout, plan)
        for _ in advance(job, _ignored):
            pass
        return job.rollout

    def _scene_scale(self, session: Session, rollout: Rollout) -> tuple[float | None, bool]:
        assert rollout.start is not None
        key = rollout.start.digest()
        if key not in self._scale:
            self._scale = {key: scene_scale(session, rollout)}
        return self._scale[key]

    def _ready(self, spec: object) -> Session:
        from flythrough.rollout.spec import RolloutSpec

        assert isinstance(spec, RolloutSpec)
        key = replace(spec, seed=0, prompt="", height=64, width=64)
        if self._session is None or self._session[0] != key:
            folder = find_model(spec.model)
            self._session = (key, build_session(spec, folder, self.device, _announce))
        return self._session[1]


def _ignored(index: int, label: str, share: float) -> None:
    del index, label, share


def _announce(text: str) -> None:
    import warnings

    warnings.warn(text, stacklevel=2)
