"""Describing frames with Qwen2.5-VL, so that each chunk has a prompt that fits what it goes on from
(WorldWarp, arXiv 2512.19678; the words of the instructions are this project's own).

The processor of transformers needs torchvision for pictures; what it does to them is small and
stands here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from flythrough.errors import WeightsError
from flythrough.models.captioner_folder import CaptionerFolder
from flythrough.models.quiet import quiet_loading

TASK = (
    "You write prompts for a video generator. You are shown frames of one camera that moves "
    "through a place where nothing else moves, the newest frame last. Answer with a single English "
    "paragraph of 80 to 120 words and nothing else. Say what stands where and how far away, which "
    "materials, textures and light there are, and what probably continues beyond the edges of the "
    "newest frame. The place is empty and frozen: mention no people, no animals and no motion. "
    "Name a drawing or painting technique only if the frames were made with one."
)
_STYLE = "Describe it in keeping with these words of the user: {}"
_ASK = "Describe this place."

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_LEAST_CELLS, _MOST_CELLS = 256, 1280
"""Of a picture, each 28 pixels square: what the network was published with."""


class Captioner(Protocol):
    """Whatever describes frames in words."""

    def describe(self, frames: np.ndarray, wish: str = "") -> str:
        """Words for frames uint8 [T,H,W,3], the newest last; ``wish`` is what the user said."""
        ...


@dataclass(frozen=True, kw_only=True)
class CaptionSettings:
    """``frames`` shown at most; ``tokens`` of an answer; cells of a picture at least and most."""

    frames: int = 4
    tokens: int = 512
    least_cells: int = _LEAST_CELLS
    most_cells: int = _MOST_CELLS


class QwenCaptioner:
    """Greedy, so the same frames give the same words on one device.

    Args:
        folder: of Qwen2.5-VL in the layout of transformers; only safetensors are read.
        parked: weights wait in host memory and come to ``device`` to describe something.
    """

    def __init__(
        self,
        folder: CaptionerFolder,
        device: torch.device,
        dtype: torch.dtype,
        *,
        parked: bool = False,
        settings: CaptionSettings | None = None,
    ) -> None:
        self.settings = settings or CaptionSettings()
        self.device, self._parked = device, parked
        self.net, self.tokenizer = _loaded(folder, dtype)
        self._config = self.net.config
        if not parked:
            self.net.to(device)

    def describe(self, frames: np.ndarray, wish: str = "") -> str:
        """See :class:`Captioner`."""
        given = self._inputs(frames, wish)
        self.net.to(self.device)
        try:
            with torch.inference_mode(), quiet_loading():
                made = self.net.generate(
                    **given, max_new_tokens=self.settings.tokens, do_sample=False
                )
        finally:
            if self._parked:
                self.net.to("cpu")
        answer = made[0, given["input_ids"].shape[1] :]
        text: str = self.tokenizer.decode(answer, skip_special_tokens=True)
        return " ".join(text.split())

    def _inputs(self, frames: np.ndarray, wish: str) -> dict[str, Tensor]:
        vision = self._config.vision_config
        at = np.unique(np.linspace(0, len(frames) - 1, self.settings.frames).round().astype(int))
        pictures = torch.from_numpy(np.ascontiguousarray(frames[at])).permute(0, 3, 1, 2)
        patches, grid = picture_patches(
            pictures.float() / 255, vision.patch_size, vision.spatial_merge_size, self.settings
        )
        cells = int(grid[0].prod()) // vision.spatial_merge_size**2
        one = "<|vision_start|>" + "<|image_pad|>" * cells + "<|vision_end|>"
        asked = f"{_ASK} {_STYLE.format(wish.strip())}" if wish.strip() else _ASK
        text = (
            f"<|im_start|>system\n{TASK}<|im_end|>\n<|im_start|>user\n{one * len(at)}{asked}"
            "<|im_end|>\n<|im_start|>assistant\n"
        )
        ids = self.tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
        seen = ids == self._config.image_token_id
        if int(seen.sum()) != cells * len(at):
            raise WeightsError(
                f"The captioner's tokenizer makes {int(seen.sum())} picture tokens of "
                f"{cells * len(at)}; it does not belong to its weights, so download them again."
            )
        given = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "mm_token_type_ids": seen.int(),
            "pixel_values": patches.to(self.net.dtype),
            "image_grid_thw": grid,
        }
        return {name: value.to(self.device) for name, value in given.items()}


def picture_patches(
    pictures: Tensor, patch: int, merge: int, settings: CaptionSettings
) -> tuple[Tensor, Tensor]:
    """Pictures [N,3,H,W] in [0,1] as the network reads them: patches [P,C*2*patch*patch], those of
    a merged cell next to each other and every picture shown twice (as a video of two frames), and
    each picture's grid [N,3] of patches over time, height and width."""
    unit = patch * merge
    height, width = fitted_size(
        (pictures.shape[2], pictures.shape[3]), unit, settings.least_cells, settings.most_cells
    )
    sized = functional.interpolate(
        pictures, (height, width), mode="bicubic", antialias=True, align_corners=False
    ).clamp(0, 1)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _STD))
    normed = (sized - mean) / std
    rows, columns = height // patch, width // patch
    twice = normed[:, None].expand(-1, 2, -1, -1, -1)
    cells = twice.reshape(
        len(pictures), 2, 3, rows // merge, merge, patch, columns // merge, merge, patch
    )
    cells = cells.permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
    patches = cells.reshape(len(pictures) * rows * columns, 3 * 2 * patch * patch)
    return patches, torch.tensor([[1, rows, columns]]).expand(len(pictures), -1).contiguous()


def fitted_size(size: tuple[int, int], unit: int, least: int, most: int) -> tuple[int, int]:
    """Sides near ``size`` that are multiples of ``unit``, with ``least`` to ``most`` cells."""
    sides = [max(1, round(side / unit)) for side in size]
    cells = size[0] * size[1] / unit**2
    if sides[0] * sides[1] > most:
        sides = [max(1, int(side / unit * (most / cells) ** 0.5)) for side in size]
    elif sides[0] * sides[1] < least:
        sides = [-int(-side / unit * (least / cells) ** 0.5 // 1) for side in size]
    return sides[0] * unit, sides[1] * unit


def _loaded(folder: CaptionerFolder, dtype: torch.dtype) -> tuple[Any, Any]:
    from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

    try:
        with quiet_loading():
            tokenizer = AutoTokenizer.from_pretrained(folder.path, local_files_only=True)
            loader: Any = Qwen2_5_VLForConditionalGeneration
            net, report = loader.from_pretrained(
                folder.path,
                local_files_only=True,
                use_safetensors=True,
                dtype=dtype,
                output_loading_info=True,
            )
    except Exception as error:  # the library raises many kinds for one broken file
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise WeightsError(
            f"The captioner in {folder.path} cannot be loaded ({reason}); download it again."
        ) from error
    if report["missing_keys"]:
        lost = sorted(str(key) for key in report["missing_keys"])
        raise WeightsError(
            f"The captioner in {folder.path} lacks {len(lost)} tensors, such as {lost[0]}; "
            "download it again."
        )
    return net.eval().requires_grad_(False), tokenizer
