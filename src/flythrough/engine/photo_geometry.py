"""Geometry of the photo itself, with a field of view that can be true."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from flythrough.geometry.estimator import Estimator
from flythrough.geometry.types import Geometry
from flythrough.media.image import FittedPhoto

_FIELD_DEG = (5.0, 150.0)
"""Horizontal and vertical fields of view that a photo may have."""


def estimate_photo(
    estimator: Estimator,
    photo: FittedPhoto,
    device: torch.device,
    notify: Callable[[str], None],
) -> Geometry:
    """One frame of geometry for ``photo``.

    The focal length is that of the photo if its file states one, else the estimator's. When that
    cannot be a photo's, the photo's assumed 60 degrees are used, and the user is told.
    """
    pixels = torch.from_numpy(np.array(photo.pixels)).to(device, torch.float32)
    images = pixels.permute(2, 0, 1)[None] / 255
    known = torch.from_numpy(np.array(photo.intrinsics)).to(device, torch.float32)[None]
    with torch.inference_mode():
        if photo.focal_known:
            return estimator.estimate(images, intrinsics=known)
        geometry = estimator.estimate(images)
        if plausible(geometry):
            return geometry
        focal = float(geometry.intrinsics[0, 0, 0])
        notify(
            f"{estimator.name} finds a focal length of {focal:.0f} pixels, which cannot be true; "
            "60 degrees across are assumed."
        )
        return estimator.estimate(images, intrinsics=known)


def plausible(geometry: Geometry) -> bool:
    """Whether both fields of view of the first frame lie between 5 and 150 degrees."""
    height, width = geometry.size
    for axis, side in enumerate((width, height)):
        focal = float(geometry.intrinsics[0, axis, axis])
        if not (math.isfinite(focal) and focal > 0):
            return False
        field = 2 * math.degrees(math.atan(side / 2 / focal))
        if not _FIELD_DEG[0] <= field <= _FIELD_DEG[1]:
            return False
    return True
