"""The Python entrance: ``ft.load("nano")`` gives a pipeline to call or to step.

``pipe(image, camera=..., frames=...)`` makes a clip; ``start``, ``step`` and rollouts' own
``rewind`` give live control. Importing this module loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flythrough.cameras.path_language import parse_path
from flythrough.cameras.source import trajectory_from
from flythrough.cameras.trajectory import Trajectory
from flythrough.engine.announce import announce as _announce
from flythrough.engine.options import MemoryChoice
from flythrough.engine.plan import Leg, Plan, current_prompt
from flythrough.engine.request import CheckedRequest, GenerateRequest, check
from flythrough.engine.sessions import Sessions
from flythrough.errors import InputError
from flythrough.media.video import write_video
from flythrough.models.catalog import find_model
from flythrough.rollout.chunk import CHUNK_FRAMES
from flythrough.rollout.rollout import Rollout

if TYPE_CHECKING:
    from flythrough.engine.build import Session

Camera = str | Path | Trajectory
Callback = Callable[[int, str, float], None]
"""Called with the chunk index, a label and the finished share of that chunk."""


@dataclass(frozen=True, eq=False)
class Clip:
    """A finished video: ``frames`` uint8 [T,H,W,3] at ``fps``, and the rollout it came from."""

    frames: np.ndarray
    fps: float
    rollout: Rollout

    def save(self, path: str | Path) -> None:
        """Write .mp4, .mov or .mkv; the file appears whole or not at all."""
        metadata = {"flythrough": self.rollout.digest(), "seed": self.rollout.spec.seed}
        write_video(Path(path), self.frames, self.fps, metadata)


def path(text: str, frames: int = CHUNK_FRAMES, fps: float = 16.0) -> Trajectory:
    """A camera path from the path language.

    Raises:
        CameraError: words that are no path.
    """
    return parse_path(text, frames, fps)


def load(
    model: str | Path = "nano",
    *,
    device: str = "auto",
    geometry: str = "default",
    lora: str = "default",
    memory: MemoryChoice = "auto",
) -> Pipeline:
    """A pipeline over a model name or folder; weights load on the first use.

    Args:
        device: auto, cpu, mps, cuda or cuda:N.
        geometry: ``default`` (the model's own network), ``flat``, or a depth file of the photo.
        lora: ``default`` (the model's camera adapter), ``off``, or a .safetensors adapter.
        memory: where weights lie: ``resident``, ``drop-text``, ``offload``, or the first that fits.

    Raises:
        WeightsError: there is no such model, or its folder is incomplete.
    """
    find_model(str(model))
    return Pipeline(str(model), device, geometry, lora, memory)


class Pipeline:
    """Photo and camera in, clip out.

    The loaded model is kept between calls as long as the settings that shaped it stay the same.
    Fallbacks are announced as Python warnings.
    """

    def __init__(
        self,
        model: str,
        device: str = "auto",
        geometry: str = "default",
        lora: str = "default",
        memory: MemoryChoice = "auto",
    ) -> None:
        self.model, self.device = model, device
        self.geometry, self.lora, self.memory = geometry, lora, memory
        self._sessions = Sessions(device, memory, _announce)

    def __call__(
        self,
        image: str | Path | None = None,
        *,
        camera: Camera | None = None,
        prompt: str = "",
        frames: int = 66,
        seed: int = 0,
        size: tuple[int, int] | None = None,
        callback: Callback | None = None,
    ) -> Clip:
        """Make a clip of ``frames`` frames.

        With a camera it follows the path (Warp-as-History); without one it starts from the image,
        or from the prompt alone (Helios). ``size`` is (height, width).

        Raises:
            InputError: any argument that is wrong, before a model is loaded.
        """
        request = self._request(image, prompt, seed, size)
        checked = check(replace(request, camera=camera, frames=frames))
        session, rollout = self._begin(checked)
        leg = Leg(0, frames, prompt, checked.trajectory)
        made = self._made(session, rollout, leg, callback)
        pixels = np.concatenate([chunk.frames for chunk in made.chunks])[:frames]
        return Clip(pixels, made.spec.fps, made)

    def start(
        self,
        image: str | Path,
        *,
        prompt: str = "",
        seed: int = 0,
        size: tuple[int, int] | None = None,
    ) -> Rollout:
        """An empty rollout from a photo, to be stepped.

        Raises:
            InputError: any argument that is wrong, before a model is loaded.
        """
        request = self._request(image, prompt, seed, size)
        checked = check(replace(request, camera="static", frames=CHUNK_FRAMES))
        return self._begin(checked)[1]

    def step(
        self,
        rollout: Rollout,
        camera: Camera,
        prompt: str | None = None,
        callback: Callback | None = None,
    ) -> Rollout:
        """One more chunk (33 frames) along ``camera``; the given rollout stays valid.

        The path starts at the last camera: its first camera is that one and is not shown again, so
        33 further cameras are used. A trajectory of another length is resampled over the chunk.

        Raises:
            InputError: a rollout without photo, or a path that cannot be used.
        """
        led = rollout.spec.method == "warp-as-history"
        if not led or rollout.start is None or rollout.last_camera() is None:
            raise InputError("This rollout has no camera to move on from; begin with start().")
        count = CHUNK_FRAMES + (1 if rollout.chunks else 0)
        if not isinstance(camera, Trajectory):
            camera = trajectory_from(camera, count, rollout.spec.fps)
        elif len(camera) != count:
            camera = camera.resampled(count)
        said = current_prompt(rollout) if prompt is None else prompt
        session = self._sessions.ready(rollout.spec)
        leg = Leg(len(rollout.chunks), CHUNK_FRAMES, said, camera)
        return self._made(session, rollout, leg, callback)

    def _request(
        self,
        image: str | Path | None,
        prompt: str,
        seed: int,
        size: tuple[int, int] | None,
    ) -> GenerateRequest:
        return GenerateRequest(
            image=None if image is None else Path(image),
            prompt=prompt,
            model=self.model,
            seed=seed,
            size=size,
            geometry=self.geometry,
            lora=self.lora,
            device=self.device,
            memory=self.memory,
        )

    def _begin(self, checked: CheckedRequest) -> tuple[Session, Rollout]:
        from flythrough.engine.build import announce_cut_prompt, build_rollout, build_spec

        for text in checked.notes:
            _announce(text)
        spec = build_spec(checked)
        session = self._sessions.ready(spec)
        announce_cut_prompt(session, spec, spec.prompt, _announce)
        return session, build_rollout(spec, checked, session, _announce)

    def _made(
        self, session: Session, rollout: Rollout, leg: Leg, callback: Callback | None
    ) -> Rollout:
        from flythrough.engine.run import Job, advance, scene_scale

        job = Job(session, rollout, Plan((leg,), *scene_scale(session, rollout)))
        for _ in advance(job, callback or _ignored):
            pass
        return job.rollout


def _ignored(index: int, label: str, share: float) -> None:
    del index, label, share
