"""Still photographs as training clips: crops that drift, zoom and turn a little over the frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from flythrough.errors import MediaError

_SUFFIXES = {".jpg", ".jpeg", ".png"}


def photo_files(folder: Path) -> list[Path]:
    """The photos of ``folder`` in order of name.

    Raises:
        MediaError: there are none.
    """
    files = sorted(p for p in folder.glob("*") if p.suffix.lower() in _SUFFIXES)
    if not files:
        raise MediaError(f"{folder} holds no .jpg or .png photo; name a folder that does.")
    return files


class PhotoClips:
    """All photos of a folder, kept as one uint8 tensor on the device.

    Args:
        folder: JPEG or PNG files; each is scaled so that it covers ``side`` = (height, width).
        device: where the pixels are kept and the clips are cut.
    """

    def __init__(
        self, folder: Path, device: torch.device, side: tuple[int, int] = (384, 576)
    ) -> None:
        pixels = [_covering(Image.open(p).convert("RGB"), side) for p in photo_files(folder)]
        self.pixels = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).to(device)

    def __len__(self) -> int:
        return len(self.pixels)

    def clips(
        self,
        batch: int,
        frames: int,
        size: tuple[int, int],
        generator: torch.Generator,
        *,
        zoom: tuple[float, float] = (0.35, 0.95),
    ) -> Tensor:
        """``batch`` clips [B,3,T,H,W] in [0,1]; the draw depends on ``generator`` alone. ``zoom``
        bounds the share of a photo's sides that the first frame shows."""
        device = self.pixels.device

        def uniform(*shape: int, low: float, high: float) -> Tensor:
            draw = torch.rand(*shape, generator=generator, device=generator.device)
            return (low + (high - low) * draw).to(device)

        which = torch.randint(len(self), (batch,), generator=generator, device=generator.device)
        photos = self.pixels[which.to(device)].float() / 255
        shown = uniform(batch, 1, low=zoom[0], high=zoom[1])
        shown = shown * (uniform(batch, 1, low=0.85, high=1.18) ** _ramp(frames, device))
        angle = uniform(batch, 1, low=-0.06, high=0.06) * (_ramp(frames, device) + 0.5)
        margin = (1 - shown.amax(1)).clamp_min(0)[:, None]
        start = uniform(batch, 2, low=-1, high=1) * margin
        drift = uniform(batch, 2, low=-0.25, high=0.25)
        centre = start[:, None] + drift[:, None] * _ramp(frames, device)[:, :, None]
        flip = torch.where(uniform(batch, low=0, high=1) < 0.5, -1.0, 1.0)[:, None]
        cos, sin = shown * angle.cos(), shown * angle.sin()
        top = torch.stack((flip * cos, -sin, centre[..., 0]), dim=-1)
        bottom = torch.stack((flip * sin, cos, centre[..., 1]), dim=-1)
        affine = torch.stack((top, bottom), dim=-2).flatten(0, 1)
        grid = functional.affine_grid(affine, [batch * frames, 3, *size], align_corners=False)
        source = photos.repeat_interleave(frames, dim=0)
        moved = functional.grid_sample(source, grid, padding_mode="reflection", align_corners=False)
        return moved.view(batch, frames, 3, *size).transpose(1, 2).clamp(0, 1)


def _ramp(frames: int, device: torch.device) -> Tensor:
    return torch.linspace(0, 1, frames, device=device)[None]


def _covering(image: Image.Image, side: tuple[int, int]) -> np.ndarray:
    height, width = side
    scale = max(height / image.height, width / image.width)
    resized = image.resize(
        (max(width, round(image.width * scale)), max(height, round(image.height * scale))),
        Image.Resampling.LANCZOS,
    )
    left, top = (resized.width - width) // 2, (resized.height - height) // 2
    return np.asarray(resized.crop((left, top, left + width, top + height)))
