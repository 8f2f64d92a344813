"""The training clips: frames at the training size, with cameras and depth where they are given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from PIL import Image

from flythrough.cameras.formats import files_of, read_recorded
from flythrough.cameras.trajectory import Trajectory
from flythrough.conditioning.prompts import with_trigger
from flythrough.disk import UNREADABLE_ARRAYS, array_fault
from flythrough.errors import InputError
from flythrough.media.fitting import centre_crop
from flythrough.media.image import Photo, fit, read_photo
from flythrough.media.video import read_video
from flythrough.training.clip_sampling import WINDOW
from flythrough.training.data_csv import TrainingVideo, read_training_list
from flythrough.training.lora.settings import LoraPlan, LoraRequest, is_list
from flythrough.training.run_folder import add_file
from flythrough.worlds.files import NAMES

Notify = Callable[[str], None]

_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_FRAMES, _, _DEPTH, _CAMERAS, _CAPTION = NAMES


@dataclass(frozen=True, eq=False)
class TrainingClip:
    """One clip.

    Attributes:
        id: by which its items are drawn.
        frames: uint8 [T,H,W,3] at the training size.
        caption, prompt: its text without and with the trigger.
        camera: T cameras, or None to estimate them.
        depth: [T,H,W] float32 z-depth in the cameras' unit, 0 where unknown; None to estimate it.
    """

    id: str
    frames: np.ndarray
    caption: str
    prompt: str
    camera: Trajectory | None = None
    depth: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.frames)


@dataclass(frozen=True)
class Source:
    """Files of one clip before anything is decoded."""

    id: str
    video: Path
    caption: str
    camera: Path | None = None
    depth: Path | None = None

    def files(self) -> list[Path]:
        """Every file that is read."""
        pictures = _pictures(self.video) if self.video.is_dir() else [self.video]
        cameras = [] if self.camera is None else files_of(self.camera)
        return pictures + cameras + ([] if self.depth is None else [self.depth])


def find_sources(request: LoraRequest) -> tuple[Source, ...]:
    """The clips that ``request.data`` names; nothing is decoded.

    Raises:
        InputError: a list that cannot be used, a missing file, or a folder without frames.
    """
    if is_list(request.data):
        return _listed(request)
    data = request.data
    camera, depth, caption = request.camera, request.depth, request.prompt
    if data.is_dir() and (data / _FRAMES).is_file():
        own = data / _CAMERAS
        camera = camera or (own if own.is_file() else None)
        shown = data / _DEPTH
        depth = depth or (shown if shown.is_file() and camera == own else None)
        if caption is None and (data / _CAPTION).is_file():
            caption = (data / _CAPTION).read_text(encoding="utf-8").strip()
        data = data / _FRAMES
    elif data.is_dir() and not _pictures(data):
        raise InputError(
            f"The folder {data} holds neither {_FRAMES} nor pictures; name a video, a folder that "
            "`flythrough world` wrote, or one of numbered pictures."
        )
    return (Source("clip", data, caption or "", camera, depth),)


def data_digest(sources: tuple[Source, ...]) -> str:
    """A fingerprint of all files and captions."""
    total = blake2b(digest_size=16)
    for source in sources:
        total.update(f"{source.id}|{source.caption}|".encode())
        for path in source.files():
            add_file(total, path)
    return total.hexdigest()


def read_clip(source: Source, plan: LoraPlan) -> TrainingClip:
    """Decode one clip: every ``frame_stride``-th frame, cut and scaled to the training size.

    Raises:
        InputError: fewer than 33 frames, or cameras or depth that are not one a frame.
    """
    request = plan.request
    pixels = _decoded(source.video)
    given = len(pixels)
    camera = None
    if source.camera is not None:
        camera = read_recorded(source.camera, own_lengths=source.depth is not None)
    if camera is not None and len(camera) != given:
        raise InputError(
            f"The camera file {source.camera} has {len(camera)} cameras but the clip "
            f"{source.video} has {given} frames; give one camera a frame."
        )
    depth = None if source.depth is None else _read_depth(source.depth, given, pixels[0].shape[:2])
    chosen = range(given)[:: request.frame_stride][: request.max_frames]
    if len(chosen) < WINDOW:
        how = "" if len(chosen) == given else f" ({len(chosen)} with the stride that was given)"
        raise InputError(
            f"The clip {source.video} has {given} frames{how}, but training needs at least "
            f"{WINDOW}; give a longer clip or a smaller --frame-stride."
        )
    frames = np.stack(
        [fit(Photo(pixels[n], None, source.video, ""), *plan.size).pixels for n in chosen]
    )
    if camera is not None:
        camera = camera[:: request.frame_stride][: len(chosen)]
    return TrainingClip(
        id=source.id,
        frames=frames,
        caption=source.caption,
        prompt=with_trigger(source.caption, plan.model.defaults.prompt_trigger),
        camera=camera,
        depth=None if depth is None else _fitted_depth(depth[list(chosen)], plan.size),
    )


def _listed(request: LoraRequest) -> tuple[Source, ...]:
    found = read_training_list(
        request.data,
        video_column=request.video_column,
        prompt_column=request.prompt_column,
        trigger="",
        limit=request.limit,
    )
    return tuple(_row(video, request.data) for video in found.videos)


def _row(video: TrainingVideo, data: Path) -> Source:
    path = video.located(data.absolute().parent)
    if not path.exists():
        raise InputError(
            f"The training video {path} of the list {data} does not exist; correct the path "
            "(relative ones start at the list)."
        )
    if path.is_dir() and not _pictures(path):
        raise InputError(f"The folder {path} of the list {data} holds no pictures; name another.")
    return Source(video.id, path, video.caption)


def _pictures(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in _PICTURES)


def _decoded(path: Path) -> list[np.ndarray] | np.ndarray:
    if not path.is_dir():
        return read_video(path).frames
    frames = [read_photo(file).pixels for file in _pictures(path)]
    if len({frame.shape for frame in frames}) > 1:
        raise InputError(f"The pictures in {path} differ in size; bring them to one size.")
    return frames


def _read_depth(path: Path, frames: int, size: tuple[int, ...]) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as archive:
            depth = np.asarray(archive["depth"] if hasattr(archive, "files") else archive)
    except UNREADABLE_ARRAYS as error:
        raise InputError(
            f"The depth file {path} cannot be read: {array_fault(path, error)}; give an .npz with "
            "an array 'depth' [T,H,W]."
        ) from error
    if depth.shape != (frames, *size) or depth.dtype.kind != "f":
        raise InputError(
            f"The depth file {path} holds {depth.dtype} {list(depth.shape)} but the clip has "
            f"{frames} frames of {size[0]}x{size[1]}; give floats, one map a frame, at its size."
        )
    return np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)


def _fitted_depth(depth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Cut and scaled as the frames are, without blending."""
    box = centre_crop((depth.shape[1], depth.shape[2]), size).edges
    across = (size[1], size[0])
    return np.stack(
        [
            np.asarray(Image.fromarray(one).resize(across, Image.Resampling.NEAREST, box=box))
            for one in depth
        ]
    )
