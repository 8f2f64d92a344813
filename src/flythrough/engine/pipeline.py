"""The Python entrance: ``ft.load("nano")`` gives a pipeline to call or to step.

``pipe(image, camera=..., frames=...)`` makes a clip; ``start``, ``warp``, ``step`` and the
``rewind`` and ``branch`` of rollouts give live control. Importing this module loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np

from flythrough.cameras.path_language import parse_path
from flythrough.cameras.source import BelievedFile, believed_file
from flythrough.cameras.trajectory import Trajectory
from flythrough.engine.announce import announce as _announce
from flythrough.engine.hardware import ONE_DEVICE, Hardware
from flythrough.engine.live import (
    Camera,
    WarpPreview,
    chunk_along_warp,
    path_on,
    plan_of,
    preview,
    request_along,
)
from flythrough.engine.plan import Leg, Plan, current_prompt
from flythrough.engine.presets import CameraSwitches, known_switches
from flythrough.engine.request import CheckedRequest, GenerateRequest, check
from flythrough.engine.sessions import Sessions
from flythrough.engine.warp_video import warp_in_memory
from flythrough.engine.words import CodecPrecision, Compute, MemoryChoice
from flythrough.errors import InputError
from flythrough.media.image import Photo
from flythrough.media.in_memory import Picture, clip_of, photo_of
from flythrough.media.video import write_video
from flythrough.models.catalog import find_model
from flythrough.rollout.chunk import CHUNK_FRAMES, ChunkRequest
from flythrough.rollout.rollout import Rollout
from flythrough.rollout.spec import Anchor, Seams
from flythrough.rollout.window import MOST_FRAMES

if TYPE_CHECKING:
    from flythrough.engine.build import Session
    from flythrough.media import video as media
    from flythrough.sampling.pyramid import AfterStep

_SEVERAL_CHUNKS = 2 * MOST_FRAMES
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


def load(  # noqa: PLR0913 - what a model is loaded with
    model: str | Path = "nano",
    *,
    device: str = "auto",
    geometry: str = "default",
    lora: str | Path = "default",
    lora_scale: float = 1.0,
    memory: MemoryChoice = "auto",
    compute: Compute = "auto",
    gpus: int = 1,
    graphs: bool | None = None,
    geometry_device: str | None = None,
    codec_device: str | None = None,
    codec_precision: CodecPrecision = "auto",
) -> Pipeline:
    """A pipeline over a model name or folder; weights load on the first use.

    Args:
        device: auto, cpu, mps, cuda or cuda:N.
        geometry: ``default`` (the model's own network), ``flat``, a depth network by name or
            folder, or a depth or 3D file of the photo.
        lora: ``default`` (the model's camera adapter), ``off``, or an adapter: a .safetensors file
            or a PEFT folder. Clips with a camera use it as the camera's adapter, others in every
            stage.
        lora_scale: how much the adapter counts, in [-4, 4] and not 0.
        memory: where weights lie: ``resident``, ``drop-text``, ``offload``, or the first that fits.
        compute: the denoiser's path: ``plain``, ``fast``, ``compiled``, ``fp8`` or ``fp8-all``
            (see docs/speed.md); auto is fast on CUDA GPUs and plain elsewhere.
        gpus, graphs: how many share each denoising step; if calls are recorded (None: given room).
        geometry_device, codec_device: where those networks run, if not on ``device``.
        codec_precision: ``fp16``, ``bf16`` (CUDA GPUs) or ``fp32`` for the video codec; auto is
            fp16 on CUDA GPUs, unless ``compute`` is plain, and fp32 elsewhere.

    Raises:
        WeightsError: there is no such model, or its folder is incomplete.
    """
    find_model(str(model))
    hardware = Hardware(gpus, geometry_device, codec_device, graphs)
    return Pipeline(
        str(model), device, geometry, lora, lora_scale, memory, compute, hardware, codec_precision
    )


class Pipeline:
    """Photo and camera in, clip out.

    The loaded model is kept between calls. ``lora`` and ``lora_scale`` may be set at any time: only
    the adapter is exchanged for the next clip. Fallbacks are announced as Python warnings.
    """

    def __init__(
        self,
        model: str,
        device: str = "auto",
        geometry: str = "default",
        lora: str | Path = "default",
        lora_scale: float = 1.0,
        memory: MemoryChoice = "auto",
        compute: Compute = "auto",
        hardware: Hardware = ONE_DEVICE,
        codec_precision: CodecPrecision = "auto",
    ) -> None:
        self.model, self.device, self.memory = model, device, memory
        self.geometry, self.lora, self.lora_scale = geometry, lora, lora_scale
        self.compute, self.hardware, self.codec_precision = compute, hardware, codec_precision
        self._sessions = Sessions(device, memory, _announce, compute, hardware, codec_precision)

    def __call__(  # noqa: PLR0913 - the options of ``flythrough generate``
        self,
        image: str | Path | Picture | None = None,
        *,
        camera: Camera | None = None,
        video: str | Path | Sequence[Picture | str | Path] | np.ndarray | None = None,
        prompt: str = "",
        negative_prompt: str = "",
        frames: int = 66,
        seed: int = 0,
        size: tuple[int, int] | None = None,
        steps: tuple[int, ...] | None = None,
        guidance: float | None = None,
        anchor: Anchor = "first",
        seams: Seams = "independent",
        callback: Callback | None = None,
        after_step: AfterStep | None = None,
        **led: Unpack[CameraSwitches],
    ) -> Clip:
        """Make a clip of ``frames`` frames.

        With a camera it follows the path (Warp-as-History); without one it starts from the image,
        goes on from the video, or comes from the prompt alone (Helios). Further keywords are
        switches of the camera method (``engine.presets.CameraSwitches``), ``method`` (``worldwarp``
        for the other one), and ``strength``, ``chunk_frames`` and ``overlap`` for WorldWarp.

        Args:
            image: a path, a PIL picture, or an array [H,W,3] of uint8 or of floats in [0,1].
            video: a path, a list of such pictures, or an array [T,H,W,3]; 33 frames or more.
            size: (height, width) in pixels; the model's own if None.
            steps: for each pyramid stage; ``guidance`` 1 is none. None takes the model's own.
            anchor: the chunk whose first latent is remembered for good, without a camera.
            seams: ``smooth`` leads the first frames of each chunk over from the chunk before.
            after_step: sees the latents of every step and says which to go on with
                (``sampling.pyramid.AfterStep``); such a clip cannot be made again from its rollout.

        Raises:
            InputError: any argument that is wrong, before a model is loaded.
        """
        request = replace(self._request(image, prompt, seed, size), **known_switches(led))
        clip: Path | media.Clip | None = None
        if video is not None:
            fps = find_model(self.model).defaults.fps
            clip = Path(video) if isinstance(video, str | Path) else clip_of(video, fps)
        request = replace(
            request,
            camera=camera,
            video=clip,
            negative_prompt=negative_prompt,
            frames=frames,
            steps=steps,
            guidance=guidance,
            anchor=anchor,
            seams=seams,
        )
        checked = check(request)
        if after_step is not None and checked.method == "worldwarp":
            raise InputError(
                "after_step cannot be used with method worldwarp, whose cells take part from "
                "different steps on; drop it or use another method."
            )
        from flythrough.engine.build import stepping

        session, rollout = self._begin(checked)
        leg = Leg(0, frames, prompt, checked.trajectory)
        with stepping(session, after_step):
            made = self._made(session, rollout, leg, callback, checked.believed)
        pixels = np.concatenate([chunk.frames for chunk in made.chunks])[:frames]
        return Clip(pixels, made.spec.fps, made)

    def start(
        self,
        image: str | Path | Picture,
        *,
        prompt: str = "",
        seed: int = 0,
        size: tuple[int, int] | None = None,
        steps: tuple[int, ...] | None = None,
        guidance: float | None = None,
        negative_prompt: str = "",
        seams: Seams = "independent",
        **led: Unpack[CameraSwitches],
    ) -> Rollout:
        """An empty rollout from a photo, to be stepped; the options are those of a call.

        Raises:
            InputError: any argument that is wrong, before a model is loaded.
        """
        request = replace(
            self._request(image, prompt, seed, size),
            steps=steps,
            guidance=guidance,
            negative_prompt=negative_prompt,
            seams=seams,
            **known_switches(led),
        )
        # a rollout to be stepped has borders to come: so many frames are more than one chunk
        checked = check(replace(request, camera="static", frames=_SEVERAL_CHUNKS))
        return self._begin(checked)[1]

    def step(
        self,
        rollout: Rollout,
        camera: Camera | None = None,
        prompt: str | None = None,
        callback: Callback | None = None,
        *,
        warp: np.ndarray | None = None,
        mask: np.ndarray | None = None,
        camera_convention: str | None = None,
        camera_scale: float | None = None,
    ) -> Rollout:
        """One more chunk along ``camera`` or ``warp``; the given rollout stays valid.

        A path starts at the last camera: its first camera is that one and is not shown again, so
        as many further cameras are used as the chunk adds frames (33; fewer in later chunks of
        WorldWarp). A trajectory of another length is resampled over the chunk. Intrinsics may
        differ from frame to frame.

        Args:
            prompt: from here on; None keeps the last one.
            warp: uint8 [33,H,W,3], what is seen on the way, rendered elsewhere at the rollout's
                size. A camera beside it says where from, so that later steps can go on by camera.
            mask: [33,H,W] of bool, uint8 (255: seen) or floats in [0,1]; None: all was seen.
            camera_convention: what the matrices of a camera file mean, like "opengl".
            camera_scale: median depths in a length of 1 of a camera file that states no unit.

        Raises:
            InputError: a rollout without photo, neither path nor warp, or one that cannot be used.
        """
        said = current_prompt(rollout) if prompt is None else prompt
        if warp is None and mask is not None:
            raise InputError("A mask has no effect without a warp; give both or drop the mask.")
        if warp is None and camera is None:
            raise InputError("A step needs a way to go; give a camera path or a warp.")
        if rollout.spec.method == "helios":
            raise InputError("This rollout has no camera to move on from; begin with start().")
        if warp is not None and rollout.spec.method == "worldwarp":
            raise InputError(
                "Method worldwarp renders its own hints and follows no warp; drop it or begin with "
                "method warp-as-history."
            )
        given = None if warp is None else warp_in_memory(warp, mask, rollout.size)
        path = None
        if camera is not None:
            path = path_on(rollout, camera, camera_convention, camera_scale)
        session = self._sessions.ready(rollout.spec)
        index = len(rollout.chunks)
        if path is not None and given is None:
            leg = Leg(index, rollout.spec.window.shown(index), said, path)
            return self._made(
                session, rollout, leg, callback, believed_file(camera, camera_convention)
            )
        assert given is not None
        request = ChunkRequest(index=index, prompt=said)
        if path is not None:
            request = request_along(session, rollout, path, said)
        told = callback or _ignored
        made = chunk_along_warp(
            session, rollout, request, given, lambda label, share: told(index, label, share)
        )
        told(index, "done", 1.0)
        return made

    def warp(
        self,
        rollout: Rollout,
        camera: Camera,
        camera_convention: str | None = None,
        camera_scale: float | None = None,
    ) -> WarpPreview:
        """What a step along ``camera`` would be conditioned on, without making it.

        Frames uint8 [T,H,W,3] and mask float32 [T,H,W] of the new frames, 1 where the scene
        was seen; ``camera_convention`` says what the matrices of a camera file mean and
        ``camera_scale`` how many median depths a length of 1 in it is.

        Raises:
            InputError: as :meth:`step`.
        """
        path = path_on(rollout, camera, camera_convention, camera_scale)
        session = self._sessions.ready(rollout.spec)
        from flythrough.engine.camera_reading import hold_against_scene
        from flythrough.engine.run import scene_scale

        scale = scene_scale(session, rollout)
        plan = plan_of(rollout, path, current_prompt(rollout), scale)
        believed = believed_file(camera, camera_convention)
        hold_against_scene(session, rollout, plan, believed, _announce)
        return preview(session, rollout, plan.request(rollout))

    def _request(
        self,
        image: str | Path | Picture | None,
        prompt: str,
        seed: int,
        size: tuple[int, int] | None,
    ) -> GenerateRequest:
        photo: Path | Photo | None = None
        if image is not None:
            photo = Path(image) if isinstance(image, str | Path) else photo_of(image)
        return GenerateRequest(
            image=photo,
            prompt=prompt,
            model=self.model,
            seed=seed,
            size=size,
            geometry=self.geometry,
            lora=str(self.lora),
            lora_scale=self.lora_scale,
            device=self.device,
            memory=self.memory,
            compute=self.compute,
            hardware=self.hardware,
            codec_precision=self.codec_precision,
        )

    def _begin(self, checked: CheckedRequest) -> tuple[Session, Rollout]:
        from flythrough.engine.build import announce_cut_prompt, build_rollout, build_spec
        from flythrough.engine.first_picture import with_first_picture

        for text in checked.notes:
            _announce(text)
        checked = with_first_picture(checked, self._sessions, _announce)
        spec = build_spec(checked)
        session = self._sessions.ready(spec, folder=checked.model)
        if session.memory is not None:
            session.memory.say_again()
        announce_cut_prompt(session, spec.prompt, _announce)
        return session, build_rollout(spec, checked, session, _announce)

    def _made(
        self,
        session: Session,
        rollout: Rollout,
        leg: Leg,
        callback: Callback | None,
        believed: BelievedFile | None,
    ) -> Rollout:
        from flythrough.engine.camera_reading import hold_against_scene
        from flythrough.engine.foresight import foresee
        from flythrough.engine.run import Job, advance, scene_scale

        plan = Plan((leg,), *scene_scale(session, rollout), window=rollout.spec.window)
        job = Job(session, rollout, plan)
        hold_against_scene(session, rollout, job.plan, believed, _announce)
        if not rollout.chunks:
            foresee(session, rollout, job.plan, _announce)
        for _ in advance(job, callback or _ignored):
            pass
        return job.rollout


def _ignored(index: int, label: str, share: float) -> None:
    del index, label, share
