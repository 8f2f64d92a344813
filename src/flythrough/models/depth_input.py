"""Pictures as monocular depth networks want them: resized and normalised, in torch alone.

The processors of transformers for these networks need torchvision; their arithmetic is small and
stands here, driven by the same ``preprocessor_config.json``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from flythrough.disk import read_json
from flythrough.errors import WeightsError

PREPROCESSOR_FILE = "preprocessor_config.json"
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_FILTERS: dict[int, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}


@dataclass(frozen=True, kw_only=True)
class DepthInput:
    """What a network's pictures go through.

    Attributes:
        size: (height, width) to resize to.
        multiple: sides are rounded to multiples of it.
        keep_shape: scale both sides by the factor of the side that needs to change less, rather
            than stretch to ``size``.
        mean, std: of the three channels, for values in [0, 1].
        mode: how to interpolate, as ``torch.nn.functional.interpolate`` names it.
        antialias: smooth before shrinking.
    """

    size: tuple[int, int]
    multiple: int = 1
    keep_shape: bool = False
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mode: Literal["bilinear", "bicubic"]
    antialias: bool

    def inner_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) at which the network sees a picture of ``height`` x ``width``."""
        down, across = self.size[0] / height, self.size[1] / width
        if self.keep_shape:
            factor = across if abs(1 - across) < abs(1 - down) else down
            down = across = factor
        sides = (round(down * height / self.multiple), round(across * width / self.multiple))
        return max(1, sides[0]) * self.multiple, max(1, sides[1]) * self.multiple

    def __call__(self, images: Tensor) -> Tensor:
        """Float32 [N,3,h,w] for the network from pictures [N,3,H,W] in [0, 1]."""
        size = self.inner_size(images.shape[-2], images.shape[-1])
        images = images.float()
        if images.shape[-2:] != size:
            images = functional.interpolate(
                images, size, mode=self.mode, antialias=self.antialias
            ).clamp(0, 1)
        mean, std = (images.new_tensor(v)[:, None, None] for v in (self.mean, self.std))
        return (images - mean) / std


def depth_input(folder: Path, config: dict[str, Any]) -> DepthInput:
    """How the network of ``folder`` wants its pictures; without a preprocessor file, as the
    published networks of its kind do.

    Raises:
        WeightsError: the file cannot be read or states something impossible.
    """
    file = folder / PREPROCESSOR_FILE
    pro = config["model_type"] == "depth_pro"
    usual = _depth_pro(config) if pro else _depth_anything(config)
    if not file.is_file():
        return usual
    try:
        stated = read_json(file)
        size = stated.get("size", {"height": usual.size[0], "width": usual.size[1]})
        found = DepthInput(
            size=(int(size["height"]), int(size["width"])),
            # Patches must be whole whatever the file says.
            multiple=int(stated.get("ensure_multiple_of") or usual.multiple),
            keep_shape=bool(stated.get("keep_aspect_ratio", usual.keep_shape)),
            mean=tuple(float(v) for v in stated.get("image_mean") or usual.mean),
            std=tuple(float(v) for v in stated.get("image_std") or usual.std),
            mode=_FILTERS[int(stated["resample"])] if "resample" in stated else usual.mode,
            antialias=usual.antialias,
        )
        if min(*found.size, found.multiple, *found.std) <= 0 or len(found.mean) != 3:
            raise ValueError("a size or deviation is not positive, or a channel is missing")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise WeightsError(
            f"{file} does not say how to prepare pictures ({type(error).__name__}: {error}); "
            "restore the file."
        ) from error
    return found


def _depth_pro(config: dict[str, Any]) -> DepthInput:
    """The side at which the smallest scale of the pyramid is one patch wide (1536 as published)."""
    least = min(config.get("scaled_images_ratios", (0.25,)))
    side = round(int(config.get("patch_size", 384)) / float(least))
    half = (0.5, 0.5, 0.5)
    return DepthInput(size=(side, side), mean=half, std=half, mode="bilinear", antialias=False)


def _depth_anything(config: dict[str, Any]) -> DepthInput:
    patch = int(config.get("patch_size", 14))
    side = int((config.get("backbone_config") or {}).get("image_size", 518))
    return DepthInput(
        size=(side, side),
        multiple=patch,
        keep_shape=True,
        mean=_IMAGENET[0],
        std=_IMAGENET[1],
        mode="bicubic",
        antialias=True,
    )


def full_precision() -> Any:
    """A context in which convolutions on a GPU keep all bits of float32."""
    return torch.backends.cudnn.flags(
        enabled=torch.backends.cudnn.enabled,
        benchmark=torch.backends.cudnn.benchmark,
        deterministic=True,
        allow_tf32=False,
    )
