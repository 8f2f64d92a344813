"""A request as the user states it, checked before anything heavy is loaded.

Torch is imported only where a depth file or an adapter file has to be opened.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flythrough.cameras.formats import read_trajectory
from flythrough.cameras.source import camera_file, trajectory_from
from flythrough.cameras.trajectory import LengthUnit, Trajectory
from flythrough.engine.files import check_geometry_file, check_lora, is_network, names_file
from flythrough.engine.options import (
    MemoryChoice,
    check_blend,
    check_device,
    check_memory,
    check_numbers,
    check_sampling,
    check_size,
    check_targets,
)
from flythrough.engine.start_video import StartVideo, read_start_video
from flythrough.engine.warp_video import WarpVideo, read_warp
from flythrough.errors import CameraError, InputError, WeightsError
from flythrough.media.image import FittedPhoto, fit, read_photo
from flythrough.models.catalog import ModelFolder, find_model
from flythrough.rollout.chunk import CHUNK_FRAMES
from flythrough.rollout.spec import Anchor, Method


@dataclass(frozen=True, kw_only=True)
class GenerateRequest:
    """Everything ``flythrough generate`` and :class:`flythrough.Pipeline` accept.

    ``size`` is (height, width); ``camera`` is a path in the path language, a camera file or a
    trajectory, of which ``frames`` cameras are used (its last camera is held when it is shorter).
    ``anchor``: which latent stays in the history of method helios for good;
    ``memory``: where weights lie (``engine.options.MemoryChoice``);
    ``guidance`` None takes the model's own; ``blend_chunks`` lead from an old prompt to a new one.
    """

    image: Path | None = None
    video: Path | None = None
    camera: str | Path | Trajectory | None = None
    warp: Path | None = None
    warp_mask: Path | None = None
    prompt: str = ""
    model: str = "nano"
    method: Method | None = None
    frames: int = 66
    size: tuple[int, int] | None = None
    seed: int = 0
    geometry: str = "default"
    lora: str = "default"
    steps: tuple[int, ...] | None = None
    guidance: float | None = None
    negative_prompt: str = ""
    blend_chunks: int = 0
    anchor: Anchor = "first"
    device: str = "auto"
    memory: MemoryChoice = "auto"
    output: Path | None = None
    rollout: Path | None = None
    save_warp: Path | None = None


@dataclass(frozen=True, eq=False)
class CheckedRequest:
    """A request whose every part was read and found consistent; ``notes`` are for the user."""

    request: GenerateRequest
    method: Method
    model: ModelFolder
    size: tuple[int, int]
    photo: FittedPhoto | None
    trajectory: Trajectory | None
    warp: WarpVideo | None
    video: StartVideo | None = None
    notes: tuple[str, ...] = ()

    @property
    def chunks(self) -> int:
        return -(-self.request.frames // CHUNK_FRAMES)


def check(request: GenerateRequest) -> CheckedRequest:
    """Read the small inputs and refuse what cannot work, in one sentence.

    Raises:
        InputError: any option that is wrong, contradictory or without effect.
    """
    method = _method(request)
    check_numbers(request.frames, request.seed, request.steps)
    check_device(request.device)
    check_memory(request.memory, request.device)
    _check_words(request)
    check_targets(request.output, request.save_warp, request.rollout)
    _check_no_input_is_overwritten(request)
    model = find_model(request.model)
    check_sampling(model, request.steps, request.guidance, request.negative_prompt)
    check_blend(request.blend_chunks, request.rollout)
    size = request.size or (model.defaults.height, model.defaults.width)
    check_size(size)
    photo = None if request.image is None else fit(read_photo(request.image), *size)
    trajectory = _trajectory(request, model.defaults.fps)
    warp = None
    if request.warp is not None:
        whole = None if photo is None else photo.source_size
        warp = read_warp(request.warp, request.warp_mask, request.frames, size, whole)
    if method == "warp-as-history":
        _check_files(request, model, photo)
    video = None if request.video is None else read_start_video(request.video, size)
    notes = _notes(request, photo, trajectory, warp) + _video_notes(request, video, model)
    return CheckedRequest(request, method, model, size, photo, trajectory, warp, video, notes)


def _check_words(request: GenerateRequest) -> None:
    for name in ("model", "geometry", "lora", "device"):
        if not getattr(request, name).strip():
            raise InputError(f"--{name} is empty; give a value or leave the option out.")


def _check_no_input_is_overwritten(request: GenerateRequest) -> None:
    given = [request.image, request.video, request.warp, request.warp_mask]
    given += [Path(v) for v in (request.geometry, request.lora) if names_file(v)]
    if isinstance(request.camera, str | Path) and Path(request.camera).is_file():
        given.append(Path(request.camera))
    inputs = {path.resolve() for path in given if path is not None}
    for target in (request.output, request.save_warp):
        if target is not None and target.resolve() in inputs:
            raise InputError(
                f"The output {target} is also an input and would be overwritten; name another file."
            )


def _trajectory(request: GenerateRequest, fps: float) -> Trajectory | None:
    camera, frames = request.camera, request.frames
    if camera is None:
        return None
    if isinstance(camera, Trajectory):
        trajectory = camera.padded(frames)[:frames]
    else:
        trajectory = trajectory_from(camera, frames, fps)
    if trajectory.unit is LengthUnit.METRE and not is_network(request.geometry):
        raise CameraError(
            f"The camera path is in metres but --geometry {request.geometry} has no metric scale; "
            "write the amounts without 'm', as multiples of the median depth."
        )
    return trajectory


def _check_files(request: GenerateRequest, model: ModelFolder, photo: FittedPhoto | None) -> None:
    check_lora(request.lora)
    if request.warp is not None:
        return
    if is_network(request.geometry):
        if model.geometry is None:
            raise WeightsError(
                f"The model {model.name} ships no geometry network; give --geometry FILE with a "
                "depth map of the photo, or --geometry flat."
            )
    elif photo is not None:
        check_geometry_file(request.geometry, photo.pixels)


def _notes(
    request: GenerateRequest,
    photo: FittedPhoto | None,
    trajectory: Trajectory | None,
    warp: WarpVideo | None,
) -> tuple[str, ...]:
    notes = []
    if request.output is not None and request.output.exists():
        notes.append(f"{request.output} exists and will be replaced.")
    if request.camera is not None and not isinstance(request.camera, Trajectory):
        file = camera_file(request.camera)
        given = request.frames if file is None else len(read_trajectory(file))
        if given > request.frames:
            notes.append(
                f"the camera file {file} has {given} cameras: only the first {request.frames} are "
                "used; give --frames for more."
            )
    if photo is not None and photo.scale > 1:
        notes.append(
            f"the photo {request.image} is smaller than the video and is enlarged "
            f"{photo.scale:.2g} times."
        )
    if isinstance(request.camera, Trajectory) and len(request.camera) != request.frames:
        what = "cut" if len(request.camera) > request.frames else "held at its last camera"
        notes.append(
            f"the trajectory has {len(request.camera)} cameras for {request.frames} frames: it is "
            f"{what}."
        )
    if warp is not None and warp.given > request.frames:
        notes.append(
            f"the warp {request.warp} has {warp.given} frames: only the first {request.frames} are "
            "used."
        )
    if warp is not None and photo is not None and warp.shape != photo.pixels.shape[:2]:
        notes.append(
            f"the warp {request.warp} is {warp.shape[0]}x{warp.shape[1]} and is cut and scaled to "
            f"{photo.pixels.shape[0]}x{photo.pixels.shape[1]} as the photo is."
        )
    if trajectory is not None and not is_network(request.geometry):
        unknown = photo is not None and not photo.focal_known
        if unknown and trajectory.intrinsics is None:
            notes.append(
                f"the photo {request.image} states no focal length: it is taken from the geometry "
                f"{request.geometry} or assumed as 60 degrees across."
            )
    return tuple(notes)


def _video_notes(
    request: GenerateRequest, video: StartVideo | None, model: ModelFolder
) -> tuple[str, ...]:
    if video is None:
        return ()
    notes = []
    if abs(video.fps - model.defaults.fps) > 0.5:
        notes.append(
            f"the video {request.video} runs at {video.fps:g} frames a second and is continued at "
            f"{model.defaults.fps:g}: speeds change."
        )
    if video.given > len(video.frames):
        notes.append(
            f"of the {video.given} frames of {request.video} the last {len(video.frames)} and the "
            "first are remembered."
        )
    return tuple(notes)


def _method(request: GenerateRequest) -> Method:
    if request.warp_mask is not None and request.warp is None:
        raise InputError("--warp-mask has no effect without --warp; give both or neither.")
    controlled = request.camera is not None or request.warp is not None
    method: Method = request.method or ("warp-as-history" if controlled else "helios")
    if method == "warp-as-history":
        _check_camera_method(request, controlled)
    else:
        _check_plain_method(request, controlled)
    return method


def _check_camera_method(request: GenerateRequest, controlled: bool) -> None:
    if not controlled:
        raise InputError(
            "Method 'warp-as-history' was chosen without a camera; give --camera PATH or --warp "
            "VIDEO, or use --method helios."
        )
    if request.anchor != "first":
        raise InputError(
            f"--anchor {request.anchor} has no effect with a camera, whose history keeps the "
            "photo; drop it."
        )
    if request.video is not None:
        raise InputError(
            "A --video is continued without camera control; drop --camera/--warp, or give its last "
            "frame as IMAGE."
        )
    if request.camera is not None and request.warp is not None:
        raise InputError("--camera and --warp were both given; keep the one that should lead.")
    if request.image is None:
        what = "camera path" if request.camera is not None else "warp"
        raise InputError(f"A {what} needs a photo to start from, and none was given; give IMAGE.")
    if request.warp is not None and request.geometry != "default":
        raise InputError(
            f"--geometry {request.geometry} has no effect with a pre-rendered --warp; drop it."
        )
    if request.warp is not None and request.save_warp is not None:
        raise InputError(
            f"--save-warp {request.save_warp} has no effect with a pre-rendered --warp, which is "
            "the warp already; drop it."
        )


def _check_plain_method(request: GenerateRequest, controlled: bool) -> None:
    if request.image is not None and request.video is not None:
        raise InputError("IMAGE and --video were both given; keep the one to start from.")
    if controlled:
        raise InputError(
            "Method 'helios' follows no camera; drop --camera/--warp or use --method "
            "warp-as-history."
        )
    for name, value in (("--geometry", request.geometry), ("--lora", request.lora)):
        if value != "default":
            raise InputError(
                f"{name} {value} has no effect without a camera (method helios); drop it or give "
                "--camera."
            )
    if request.save_warp is not None:
        raise InputError(
            f"--save-warp {request.save_warp} has no effect without a camera (method helios); drop "
            "it or give --camera."
        )
    given = request.image is not None or request.video is not None
    if not given and not request.prompt.strip():
        raise InputError(
            "Neither an image, a video nor a prompt was given; give IMAGE, --video CLIP or "
            "--prompt TEXT."
        )
