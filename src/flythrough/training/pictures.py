"""Tensors as pictures for the training previews."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor


def to_bytes(image: Tensor) -> np.ndarray:
    """[3,H,W] in [0,1] -> uint8 [H,W,3]."""
    pixels = (image.detach().float().clamp(0, 1) * 255 + 0.5).byte()
    return np.asarray(pixels.permute(1, 2, 0).cpu().numpy())


def save_png(image: np.ndarray | Image.Image, path: Path) -> None:
    """Write a picture, creating the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(path)
