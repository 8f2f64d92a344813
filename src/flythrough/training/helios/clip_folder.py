"""Folders of encoded videos, one safetensors file a video, and how videos become such files.

A file holds ``latents`` [S,16,9,h,w] (S windows of 33 frames, each encoded on its own and
normalised, as at inference) and ``prompt_embeds`` [L,D] (features of the caption, rows of padding
zero); its metadata may state ``prompt``. Nothing else in the folder is read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from flythrough import seeds
from flythrough.conditioning.history import HISTORY_SIZES, LATENT_FRAMES
from flythrough.disk import replacing
from flythrough.errors import InputError
from flythrough.media.image import Photo, fit
from flythrough.media.video import read_video
from flythrough.models.text import PromptEncoder
from flythrough.models.wan_codec import Codec
from flythrough.training.helios.material import Material
from flythrough.training.latents import CHUNK
from flythrough.training.run_folder import edges_digest

_LATENTS, _TEXT = "latents", "prompt_embeds"


class ClipFolder:
    """Material from encoded videos (Helios, section on training data).

    Every epoch is a new order of all files, shared out over ranks. A draw picks a window as target;
    its past are the 19 latents before it, zeros before the video began, and its anchor is the
    video's first latent (zeros for the first window, which starts from text).

    Args:
        files: what :func:`check_clips` found.
        plain: features of the negative prompt [1,L,D].
        ranks: processes times micro-batches.

    Raises:
        InputError: no files.
    """

    def __init__(
        self, files: Sequence[Path], plain: Tensor, *, batch: int, seed: int, ranks: int
    ) -> None:
        if not files:
            raise InputError("A folder of training clips is empty; give one with clips.")
        self.plain, self._files = plain, tuple(files)
        self._batch, self._seed, self._ranks = batch, seed, ranks
        self._order = lru_cache(maxsize=2)(self._new_order)

    def __call__(self, step: int, rank: int, *, later: bool = False) -> Material:
        first = (step * self._ranks + rank) * self._batch
        items = [self._item(number, later) for number in range(first, first + self._batch)]
        device = self.plain.device
        past, prefix, target, text = (
            torch.stack(parts).to(device) for parts in zip(*items, strict=True)
        )
        return Material(past, prefix, target, text)

    def prompt(self, number: int) -> Tensor:
        with safe_open(self._file(number), framework="pt") as opened:
            text: Tensor = opened.get_tensor(_TEXT).float()[None]
        return text.to(self.plain.device)

    def _file(self, number: int) -> Path:
        epoch, place = divmod(number, len(self._files))
        return self._files[self._order(epoch)[place]]

    def _item(self, number: int, later: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        epoch, place = divmod(number, len(self._files))
        with safe_open(self._file(number), framework="pt") as opened:
            windows = opened.get_tensor(_LATENTS).float()
            text = opened.get_tensor(_TEXT).float()
        start = 1 if later and len(windows) > 1 else 0
        source = seeds.generator(self._seed, "window", epoch, place)
        window = int(torch.randint(start, len(windows), (1,), generator=source))
        return (*windows_around(windows, window), text)

    def _new_order(self, epoch: int) -> list[int]:
        source = seeds.generator(self._seed, "epoch", epoch)
        return [int(i) for i in torch.randperm(len(self._files), generator=source)]


def windows_around(windows: Tensor, index: int) -> tuple[Tensor, Tensor, Tensor]:
    """(past [16,19,h,w], prefix [16,1,h,w], target [16,9,h,w]) of window ``index`` of
    ``windows`` [S,16,9,h,w]; what lies before the video is zero."""
    length = sum(HISTORY_SIZES)
    frames = windows.transpose(0, 1).flatten(1, 2)
    before = frames[:, : LATENT_FRAMES * index][:, -length:]
    past = functional.pad(before, (0, 0, 0, 0, length - before.shape[1], 0))
    prefix = frames[:, :1] if index > 0 else torch.zeros_like(frames[:, :1])
    return past, prefix, windows[index]


def data_files(folder: Path) -> list[Path]:
    """What of ``folder`` a run reads: its videos and their captions, else its latents.

    Raises:
        InputError: it has neither, or a caption is missing or empty.
    """
    videos = captioned_videos(folder)
    found = [file for video, _ in videos for file in (video, video.with_suffix(".txt"))]
    found = found or sorted(folder.glob("*.safetensors"))
    if not found:
        raise InputError(
            f"{folder} holds neither .mp4 videos nor .safetensors latents; name a folder that does."
        )
    return found


def check_clips(
    folder: Path,
    size: tuple[int, int, int],
    text: tuple[int, int],
    files: Sequence[Path] | None = None,
) -> list[Path]:
    """The files of ``folder``, or of them ``files``, whose shapes must be those of the run.

    Args:
        size: channels, height and width of a latent.
        text: length and width of prompt features.

    Raises:
        InputError: none, or one that cannot be read or has another shape.
    """
    found = data_files(folder) if files is None else list(files)
    for file in found:
        try:
            with safe_open(file, framework="pt") as opened:
                shape = tuple(opened.get_slice(_LATENTS).get_shape())
                rows = tuple(opened.get_slice(_TEXT).get_shape())
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{file} is not an encoded video ({error}); it must hold {_LATENTS} and {_TEXT}."
            ) from error
        wanted = (size[0], LATENT_FRAMES, *size[1:])
        if len(shape) != 5 or shape[1:] != wanted or shape[0] < 1:
            raise InputError(
                f"{file} has latents {list(shape)}, but this run needs [windows, "
                f"{', '.join(map(str, wanted))}]; encode the videos at the recipe's size."
            )
        if rows != text:
            raise InputError(
                f"{file} has prompt features {list(rows)}, but this run needs {list(text)}; encode "
                "the captions with this model and the recipe's max_length."
            )
    return found


def captioned_videos(folder: Path) -> list[tuple[Path, str]]:
    """The ``.mp4`` files of ``folder`` with the text of the ``.txt`` file of the same name.

    Raises:
        InputError: a caption that is missing or empty.
    """
    found = []
    for video in sorted(folder.glob("*.mp4")):
        file = video.with_suffix(".txt")
        try:
            caption = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            caption = ""
        if not caption:
            raise InputError(f"The video {video} has no caption; write it into {file}.")
        found.append((video, caption))
    return found


def encode_video(
    video: Path,
    caption: str,
    target: Path,
    codec: Codec,
    prompts: PromptEncoder,
    *,
    size: tuple[int, int],
    max_length: int,
    dtype: torch.dtype,
    device: torch.device,
    model: str = "",
) -> None:
    """Write the clip file of one video, cut to whole windows of 33 frames and to ``size`` pixels.

    Frames are scaled to cover the size and cut in the middle. A file that is there is kept if it
    was made of this video and caption, as is asked, by the same ``model`` (a digest).

    Raises:
        InputError: fewer than 33 frames.
    """
    made = {
        "prompt": caption,
        "video": edges_digest([video]),
        "model": model,
        "size": f"{size[0]}x{size[1]}",
        "max_length": str(max_length),
        "dtype": str(dtype),
    }
    if _metadata(target).items() >= made.items():
        return
    frames = read_video(video).frames
    count = len(frames) // CHUNK
    if count == 0:
        raise InputError(
            f"The video {video} has {len(frames)} frames, but a window has {CHUNK}; give a longer "
            "one."
        )
    windows = []
    with torch.no_grad():
        for i in range(count):
            pixels = covering(frames[CHUNK * i : CHUNK * (i + 1)], size).to(device)
            windows.append(codec.encode(pixels[None])[0])
        text = prompts.encode([caption], max_length)[0]
    target.parent.mkdir(parents=True, exist_ok=True)
    tensors = {_LATENTS: torch.stack(windows).to(dtype).cpu(), _TEXT: text.to(dtype).cpu()}
    with replacing(target) as partial:
        save_file(
            {name: value.contiguous() for name, value in tensors.items()},
            partial,
            metadata={**made, "source": json.dumps({"frames": count * CHUNK})},
        )


def _metadata(file: Path) -> dict[str, str]:
    """What a clip file says of itself; nothing where it is missing or damaged."""
    try:
        with safe_open(file, framework="pt") as opened:
            return dict(opened.metadata() or {})
    except (SafetensorError, OSError):
        return {}


def covering(frames: np.ndarray, size: tuple[int, int]) -> Tensor:
    """uint8 [T,H,W,3] to [3,T,h,w] in [0,1]: the middle of each, cut and scaled as inference fits a
    photo (``media.image.fit``)."""
    cut = [fit(Photo(frame, None, Path(), ""), *size).pixels for frame in frames]
    return torch.from_numpy(np.stack(cut)).permute(3, 0, 1, 2).float() / 255
