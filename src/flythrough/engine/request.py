"""A request as the user states it, checked before anything heavy is loaded. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from flythrough.cameras.source import trajectory_from
from flythrough.cameras.trajectory import Trajectory
from flythrough.errors import InputError, MediaError
from flythrough.media.image import FittedPhoto, fit, read_photo
from flythrough.media.video import check_video_target, read_video
from flythrough.models.catalog import ModelFolder, find_model

CHUNK_FRAMES = 33
Method = Literal["warp-as-history", "helios"]


@dataclass(frozen=True, kw_only=True)
class GenerateRequest:
    """Everything ``flythrough generate`` and :class:`flythrough.Pipeline` accept.

    ``size`` is (height, width); ``camera`` is a path in the path language or a camera file.
    """

    image: Path | None = None
    camera: str | None = None
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
    device: str = "auto"
    output: Path | None = None
    rollout: Path | None = None
    save_warp: Path | None = None


@dataclass(frozen=True, eq=False)
class WarpVideo:
    """A pre-rendered warp: ``frames`` uint8 [T,H,W,3] and ``mask`` uint8 [T,H,W] (255 = seen)."""

    frames: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True, eq=False)
class CheckedRequest:
    """A request whose every part was read and found consistent."""

    request: GenerateRequest
    method: Method
    model: ModelFolder
    size: tuple[int, int]
    photo: FittedPhoto | None
    trajectory: Trajectory | None
    warp: WarpVideo | None

    @property
    def chunks(self) -> int:
        return -(-self.request.frames // CHUNK_FRAMES)


def check(request: GenerateRequest) -> CheckedRequest:
    """Read the small inputs and refuse what cannot work, in one sentence.

    Raises:
        InputError: any option that is wrong, contradictory or without effect.
    """
    method = _method(request)
    _check_numbers(request)
    for target in (request.output, request.save_warp):
        if target is not None:
            check_video_target(target)
    model = find_model(request.model)
    size = request.size or (model.defaults.height, model.defaults.width)
    _check_size(size)
    if request.rollout is not None and (request.rollout / "rollout.json").exists():
        raise InputError(
            f"{request.rollout} already holds a rollout; run `flythrough continue "
            f"{request.rollout}` or name another folder."
        )
    trajectory = None
    if request.camera is not None:
        trajectory = trajectory_from(request.camera, request.frames, model.defaults.fps)
    photo = None if request.image is None else fit(read_photo(request.image), *size)
    warp = None
    if request.warp is not None:
        warp = _read_warp(request.warp, request.warp_mask, request.frames, size)
    return CheckedRequest(request, method, model, size, photo, trajectory, warp)


def _method(request: GenerateRequest) -> Method:
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
    if request.camera is not None and request.warp is not None:
        raise InputError("--camera and --warp were both given; keep the one that should lead.")
    if request.image is None:
        raise InputError("A camera path needs a photo to start from; give IMAGE.")
    if request.warp is not None and request.geometry != "default":
        raise InputError(
            f"--geometry {request.geometry} has no effect with a pre-rendered --warp; drop it."
        )
    if request.warp_mask is not None and request.warp is None:
        raise InputError("--warp-mask has no effect without --warp; give both or neither.")


def _check_plain_method(request: GenerateRequest, controlled: bool) -> None:
    if controlled or request.warp_mask is not None:
        raise InputError(
            "Method 'helios' follows no camera; drop --camera/--warp or use --method "
            "warp-as-history."
        )
    for name, value in (("--geometry", request.geometry), ("--lora", request.lora)):
        if value != "default":
            raise InputError(f"{name} {value} has no effect with --method helios; drop it.")
    if request.save_warp is not None:
        raise InputError("--save-warp has no effect with --method helios; drop it.")
    if request.image is None and not request.prompt:
        raise InputError("Neither an image nor a prompt was given; give IMAGE or --prompt TEXT.")


def _check_numbers(request: GenerateRequest) -> None:
    if not 1 <= request.frames <= 100_000:
        raise InputError(f"--frames {request.frames} is out of range; give 1 to 100000.")
    if not 0 <= request.seed < 2**63:
        raise InputError(f"--seed {request.seed} is out of range; give 0 to 2**63 - 1.")
    if request.steps is not None and (
        len(request.steps) != 3 or any(n < 1 or n > 50 for n in request.steps)
    ):
        given = ",".join(map(str, request.steps))
        raise InputError(f"--steps {given} must be three counts from 1 to 50, such as 2,2,2.")


def _check_size(size: tuple[int, int]) -> None:
    for side, value in zip(("height", "width"), size, strict=True):
        if value < 64 or value > 4096 or value % 64:
            near = max(64, round(value / 64) * 64)
            raise InputError(
                f"The {side} {value} must be a multiple of 64 from 64 to 4096 (three pyramid "
                f"stages of 16-pixel tokens); try {near}."
            )


def _read_warp(
    video: Path, mask: Path | None, frames: int, size: tuple[int, int]
) -> WarpVideo:
    clip = read_video(video).frames
    needed = -(-frames // CHUNK_FRAMES) * CHUNK_FRAMES
    if len(clip) < frames:
        raise MediaError(
            f"The warp video {video} has {len(clip)} frames but {frames} are to be made; give a "
            f"longer warp or --frames {len(clip)}."
        )
    _check_same_size(video, clip, size)
    seen = np.full(clip.shape[:3], 255, np.uint8)
    if mask is not None:
        pixels = read_video(mask).frames
        if len(pixels) != len(clip):
            raise MediaError(
                f"The mask {mask} has {len(pixels)} frames but its warp has {len(clip)}; they must "
                "be equally long."
            )
        _check_same_size(mask, pixels, size)
        seen = pixels.mean(axis=3).round().astype(np.uint8)
    last = np.minimum(np.arange(needed), len(clip) - 1)
    return WarpVideo(clip[last], seen[last])


def _check_same_size(path: Path, frames: np.ndarray, size: tuple[int, int]) -> None:
    if frames.shape[1:3] != size:
        raise MediaError(
            f"{path} is {frames.shape[1]}x{frames.shape[2]} but the output is {size[0]}x{size[1]}; "
            f"give --size {frames.shape[1]}x{frames.shape[2]} or render the warp at the output size."
        )
