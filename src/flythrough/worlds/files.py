"""A ground-truth clip on disk: video, first frame, depth, cameras and caption."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from flythrough.disk import replacing
from flythrough.errors import InputError
from flythrough.media.video import write_video
from flythrough.worlds.clips import Clip, ClipSettings, clip

NAMES = ("frames.mp4", "photo.png", "depth.npz", "cameras.npz", "caption.txt")


@dataclass(frozen=True)
class ClipRequest:
    """What to render: world ``seed``, ``camera`` path or file, ``frames``, ``size`` (height,
    width), ``kind`` of world or None, horizontal ``view_angle`` in degrees, ``supersample`` and
    ``device`` (auto, cpu, cuda or cuda:N)."""

    seed: int
    camera: str
    frames: int = 66
    size: tuple[int, int] = (192, 320)
    kind: str | None = None
    view_angle: float = 60.0
    supersample: int = 1
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise InputError(f"the seed {self.seed} is negative, but seeds start at 0; choose one.")
        if self.frames < 1:
            raise InputError(f"{self.frames} frames were asked for, but a clip needs at least 1.")
        if min(self.size) < 8 or max(self.size) > 8192:
            raise InputError(
                f"the size {self.size[0]}x{self.size[1]} is out of range: both sides must lie "
                "between 8 and 8192 pixels; choose another size."
            )


@dataclass(frozen=True)
class WrittenClip:
    """What was written: world ``kind`` and ``caption``, ``frames``, median depth in metres."""

    kind: str
    caption: str
    frames: int
    median_depth: float


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(
            f"the device {name!r} is unknown; use auto, cpu, cuda or cuda:N."
        ) from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"the device {name!r} was asked for, but no GPU is usable; use cpu.")
    return device


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"the output {folder} is a file, but a folder is written; name another.")
    parent = folder.absolute()
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(f"the folder {parent} cannot be written to; choose another output.")


def write_clip(request: ClipRequest, folder: Path) -> WrittenClip:
    """Render a clip and write it to ``folder`` (made if missing).

    frames.mp4; photo.png (frame 0, lossless); depth.npz: ``depth`` [T,H,W] float32 z-depth in
    metres (0 where sky, as in all depth files) and ``sky`` [T,H,W] bool; cameras.npz:
    ``camera_poses`` [T,4,4] float64 world-from-camera relative to frame 0 in metres (OpenCV axes),
    ``intrinsics`` [T,3,3], ``size`` (height, width), ``fps``, ``unit``; caption.txt.
    Raises InputError (or CameraError for the path) before anything is written.
    """
    _check_folder(folder)
    settings = ClipSettings(
        kind=request.kind, view_angle=request.view_angle, supersample=request.supersample
    )
    made = clip(
        request.seed,
        request.camera,
        request.frames,
        request.size,
        device=_device(request.device),
        settings=settings,
    )
    folder.mkdir(parents=True, exist_ok=True)
    _write_files(made, folder, settings.fps, request)
    return WrittenClip(
        kind=made.frames.worlds.kinds[0],
        caption=made.caption,
        frames=len(made),
        median_depth=float(made.frames.median_depth()[0]),
    )


def _write_files(made: Clip, folder: Path, fps: float, request: ClipRequest) -> None:
    pictures = (
        (made.rgb.permute(0, 2, 3, 1) * 255 + 0.5).clamp(0, 255).to(torch.uint8).cpu().numpy()
    )
    metadata = {"world": request.seed, "camera": request.camera, "caption": made.caption}
    write_video(folder / NAMES[0], iter(pictures), fps, metadata)
    with replacing(folder / NAMES[1]) as part:
        Image.fromarray(pictures[0]).save(part)
    depth = made.depth.masked_fill(made.sky, 0.0).cpu().numpy()
    with replacing(folder / NAMES[2]) as part:
        np.savez_compressed(part, depth=depth, sky=made.sky.cpu().numpy())
    with replacing(folder / NAMES[3]) as part:
        np.savez(
            part,
            camera_poses=made.world_from_camera.cpu().numpy(),
            intrinsics=made.intrinsics.cpu().numpy(),
            size=np.array(request.size),
            fps=np.array(fps),
            unit=np.array("metre"),
        )
    with replacing(folder / NAMES[4]) as part:
        part.write_text(made.caption + "\n", encoding="utf-8")
