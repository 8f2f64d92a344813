"""A request as the user states it, checked before anything heavy is loaded.

Torch is imported only where a depth file or an adapter file has to be opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flythrough.cameras.source import (
    BelievedFile,
    believed_file,
    check_no_options,
    trajectory_from,
)
from flythrough.cameras.trajectory import Trajectory
from flythrough.engine.camera_options import camera_recipe, has_adapter
from flythrough.engine.files import check_lora, file_of, names_file
from flythrough.engine.geometry_source import check_geometry, check_metres
from flythrough.engine.hardware import ONE_DEVICE, Hardware, check_hardware
from flythrough.engine.options import (
    check_blend,
    check_codec_precision,
    check_compute,
    check_device,
    check_lora_scale,
    check_memory,
    check_numbers,
    check_sampling,
    check_seams,
    check_size,
    check_style,
    check_targets,
    check_words,
)
from flythrough.engine.presets import PresetName, WarpBand
from flythrough.engine.request_notes import request_notes, size_notes, video_notes
from flythrough.engine.start_video import StartVideo, read_start_video
from flythrough.engine.warp_options import Fill
from flythrough.engine.warp_video import WarpVideo, read_warp
from flythrough.engine.words import CodecPrecision, Compute, MemoryChoice, NoiseField
from flythrough.engine.worldwarp_options import (
    check_denoiser,
    check_worldwarp,
    only_st_diff,
    worldwarp_window,
)
from flythrough.errors import InputError
from flythrough.media.image import FittedPhoto, Photo, fit, read_photo
from flythrough.media.video import Clip
from flythrough.models.catalog import ModelFolder, find_model
from flythrough.rollout.spec import Anchor, Method, Seams
from flythrough.rollout.window import STANDARD, Window
from flythrough.scene.settings import SceneKind


@dataclass(frozen=True, kw_only=True)
class GenerateRequest:
    """Everything ``flythrough generate`` and :class:`flythrough.Pipeline` accept.

    ``size`` is (height, width); ``camera`` is a path in the path language, a camera file or a
    trajectory, of which ``frames`` cameras are used (its last camera is held when it is shorter).
    ``image`` and ``video`` may also be pictures in memory. ``lora_scale`` multiplies the adapter's
    update. ``anchor``: which latent stays in the history of method helios for good; ``seams``:
    smooth leads the first frames of each chunk over from the chunk before; ``memory``: where
    weights lie (``engine.words.MemoryChoice``); ``compute``: the
    denoiser's path (``engine.words.Compute``); ``hardware``: other devices that take part
    (``engine.hardware``); ``codec_precision``: what the video codec computes in
    (``engine.words.CodecPrecision``); ``guidance`` None takes the model's own;
    ``blend_chunks`` lead from an old prompt to a new one.

    ``strength``, ``chunk_frames`` and ``overlap`` belong to method worldwarp, whose rollouts take
    None from the model: how much of what was rendered is rewritten, and how chunks are cut.
    ``noise_field`` other than both is an ablation (``conditioning.noise_field.Variation``);
    ``caption`` names what describes each chunk's prompt (``models.captioner``); ``restyle``
    repaints the photo from the prompt first (``engine.first_picture``).

    With a camera: ``preset`` fills in what was not given; ``warp_band`` takes the warp;
    ``visible_threshold`` is the share of a token's area that must have been seen; without ``align``
    the warp lies before the target in time, without ``select`` unseen tokens stay (ablations).
    ``fill`` and ``warp_settings`` (``engine.warp_options``) say how warps are rendered, ``scene``
    what is kept of the scene: meshes or fitted Gaussians.
    ``style_lora`` counts ``style_scale`` times in every stage, beside the camera's own ``lora``.
    ``camera_convention`` says what the matrices of the file ``camera`` mean
    (``cameras.formats.conventions``), ``camera_scale`` how many median depths a length of 1 in it
    is, where it states no unit.
    """

    image: Path | Photo | None = None
    video: Path | Clip | None = None
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
    lora_scale: float = 1.0
    steps: tuple[int, ...] | None = None
    guidance: float | None = None
    negative_prompt: str = ""
    blend_chunks: int = 0
    anchor: Anchor = "first"
    seams: Seams = "independent"
    device: str = "auto"
    memory: MemoryChoice = "auto"
    compute: Compute = "auto"
    hardware: Hardware = ONE_DEVICE
    codec_precision: CodecPrecision = "auto"
    output: Path | None = None
    rollout: Path | None = None
    save_warp: Path | None = None
    save_mask: Path | None = None
    preset: PresetName | None = None
    warp_band: WarpBand | None = None
    visible_threshold: float | None = None
    align: bool = True
    select: bool = True
    fill: Fill | None = None
    warp_settings: str | None = None
    style_lora: Path | None = None
    style_scale: float = 1.0
    camera_convention: str | None = None
    camera_scale: float | None = None
    scene: SceneKind | None = None
    strength: float | None = None
    chunk_frames: int | None = None
    overlap: int | None = None
    noise_field: NoiseField | None = None
    caption: str | None = None
    restyle: float | None = None


@dataclass(frozen=True, eq=False)
class CheckedRequest:
    """A request whose every part was read and found consistent; ``notes`` are for the user and
    ``settings`` those of the camera method that the rollout keeps; ``believed`` is a camera file
    whose convention is still to be held against the scene."""

    request: GenerateRequest
    method: Method
    model: ModelFolder
    size: tuple[int, int]
    photo: FittedPhoto | None
    trajectory: Trajectory | None
    warp: WarpVideo | None
    video: StartVideo | None = None
    notes: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    believed: BelievedFile | None = None
    window: Window = STANDARD

    @property
    def chunks(self) -> int:
        return self.window.chunks(self.request.frames)


def check(request: GenerateRequest) -> CheckedRequest:
    """Read the small inputs and refuse what cannot work, in one sentence.

    Raises:
        InputError: any option that is wrong, contradictory or without effect.
    """
    check_words(
        model=request.model, geometry=request.geometry, lora=request.lora, device=request.device
    )
    method = _method(request)
    check_numbers(request.frames, request.seed, request.steps)
    check_device(request.device)
    check_memory(request.memory, request.device)
    check_compute(request.compute, request.device)
    renders = method != "helios" and request.warp is None
    check_hardware(
        request.hardware, request.device, request.memory, request.compute, method, renders=renders
    )
    check_codec_precision(request.codec_precision, request.device)
    check_targets(request.output, request.save_warp, request.save_mask, request.rollout)
    _check_no_input_is_overwritten(request)
    model = find_model(request.model)
    check_denoiser(method, model)
    window = worldwarp_window(request, method, model)
    recipe = camera_recipe(request, method, model)
    request = recipe.request
    check_sampling(model, request.steps, request.guidance, request.negative_prompt, method)
    check_blend(request.blend_chunks, request.rollout)
    band = recipe.settings.get("warp_band", "short")
    check_lora_scale(request.lora_scale, has_adapter(request, method, model, band))
    check_style(request.style_lora, request.style_scale, method)
    preceded = request.rollout is not None or request.video is not None
    check_seams(request.seams, request.frames, preceded)
    size = request.size or (model.defaults.height, model.defaults.width)
    check_size(size, pyramid=method != "worldwarp")
    photo = None if request.image is None else fit(_decoded(request.image), *size)
    trajectory = _trajectory(request, model.defaults.fps)
    warp = None
    if request.warp is not None:
        whole = None if photo is None else photo.source_size
        warp = read_warp(request.warp, request.warp_mask, request.frames, size, whole)
    check_lora(request.lora)
    if request.style_lora is not None:
        check_lora(str(request.style_lora))
    if method != "helios":
        _check_files(request, model, photo)
    video = None if request.video is None else read_start_video(request.video, size)
    notes = (
        *size_notes(size, model),
        *request_notes(request, photo, trajectory, warp),
        *video_notes(request, video, model),
    )
    return CheckedRequest(
        request,
        method,
        model,
        size,
        photo,
        trajectory,
        warp,
        video,
        recipe.notes + notes,
        recipe.settings,
        believed_file(request.camera, request.camera_convention),
        window,
    )


def _decoded(image: Path | Photo) -> Photo:
    return image if isinstance(image, Photo) else read_photo(image)


def _check_no_input_is_overwritten(request: GenerateRequest) -> None:
    given: list[object] = [request.image, request.video, request.warp, request.warp_mask]
    given.append(request.style_lora)
    given += [file_of(v) for v in (request.geometry, request.lora) if names_file(v)]
    if isinstance(request.camera, str | Path) and Path(request.camera).is_file():
        given.append(Path(request.camera))
    inputs = {path.resolve() for path in given if isinstance(path, Path)}
    for target in (request.output, request.save_warp, request.save_mask):
        if target is not None and target.resolve() in inputs:
            raise InputError(
                f"The output {target} is also an input and would be overwritten; name another file."
            )


def _trajectory(request: GenerateRequest, fps: float) -> Trajectory | None:
    camera, frames = request.camera, request.frames
    convention, scale = request.camera_convention, request.camera_scale
    if camera is None:
        check_no_options("a video without a camera path", convention, scale)
        return None
    if isinstance(camera, Trajectory):
        check_no_options("a trajectory, whose meaning is fixed", convention, scale)
        trajectory = camera.padded(frames)[:frames]
    else:
        trajectory = trajectory_from(camera, frames, fps, convention, scale)
    check_metres(trajectory, request.geometry)
    return trajectory


def _check_files(request: GenerateRequest, model: ModelFolder, photo: FittedPhoto | None) -> None:
    if request.warp is None:
        check_geometry(request.geometry, model, photo)


def _method(request: GenerateRequest) -> Method:
    if request.warp_mask is not None and request.warp is None:
        raise InputError("--warp-mask has no effect without --warp; give both or neither.")
    controlled = request.camera is not None or request.warp is not None
    method: Method = request.method or ("warp-as-history" if controlled else "helios")
    if request.method is None and controlled and only_st_diff(request.model):
        method = "worldwarp"
    if method == "worldwarp":
        check_worldwarp(request)
    elif method == "warp-as-history":
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
    for name, saved in (("--save-warp", request.save_warp), ("--save-mask", request.save_mask)):
        if request.warp is not None and saved is not None:
            raise InputError(
                f"{name} {saved} has no effect with a pre-rendered --warp, which is the warp "
                "already; drop it."
            )


def _check_plain_method(request: GenerateRequest, controlled: bool) -> None:
    if request.image is not None and request.video is not None:
        raise InputError("IMAGE and --video were both given; keep the one to start from.")
    if controlled:
        raise InputError(
            "Method 'helios' follows no camera; drop --camera/--warp or use --method "
            "warp-as-history."
        )
    idle = {
        "--geometry": None if request.geometry == "default" else request.geometry,
        "--lora": "off" if request.lora == "off" else None,
        "--save-warp": request.save_warp,
        "--save-mask": request.save_mask,
    }
    for name, value in idle.items():
        if value is not None:
            raise InputError(
                f"{name} {value} has no effect without a camera (method helios); drop it or give "
                "--camera."
            )
    given = request.image is not None or request.video is not None
    if not given and not request.prompt.strip():
        raise InputError(
            "Neither an image, a video nor a prompt was given; give IMAGE, --video CLIP or "
            "--prompt TEXT."
        )
