"""Crop and scale a picture to a size, and the same change for its intrinsics.

Pixel centres lie at half-integers: the left edge of the first column is x = 0 and the right edge of
the last one is x = width, so a crop subtracts its corner and a scaling multiplies, nothing else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from flythrough.errors import MediaError

DEFAULT_HORIZONTAL_FOV = 60.0
"""Degrees, assumed for the fitted picture when nothing is known about the lens."""

_FULL_FRAME_DIAGONAL = math.hypot(36.0, 24.0)


@dataclass(frozen=True)
class CropBox:
    """The part of a source picture that is kept, in source pixels, and its size after scaling.

    Fields are real numbers: the box need not lie on pixel borders, so both axes are scaled by
    exactly the same factor and pixels stay square.
    """

    left: float
    top: float
    width: float
    height: float
    target: tuple[int, int]

    @property
    def scale(self) -> float:
        """Target pixels per source pixel; above 1 the picture is enlarged."""
        return self.target[1] / self.width

    @property
    def edges(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) in source pixels."""
        return self.left, self.top, self.left + self.width, self.top + self.height

    def intrinsics(self, matrix: np.ndarray) -> np.ndarray:
        """Intrinsics [...,3,3] at the source size -> float64 intrinsics at the target size."""
        change = np.array(
            [
                [self.scale, 0.0, -self.left * self.scale],
                [0.0, self.scale, -self.top * self.scale],
                [0.0, 0.0, 1.0],
            ]
        )
        return change @ np.asarray(matrix, dtype=np.float64)


def centre_crop(source: tuple[int, int], target: tuple[int, int]) -> CropBox:
    """The largest centred box of ``source`` (height, width) with the aspect of ``target``."""
    (height, width), (rows, columns) = source, target
    kept_width = min(float(width), height * columns / rows)
    kept_height = min(float(height), width * rows / columns)
    return CropBox(
        left=(width - kept_width) / 2,
        top=(height - kept_height) / 2,
        width=kept_width,
        height=kept_height,
        target=target,
    )


def default_intrinsics(
    height: int, width: int, horizontal_fov: float = DEFAULT_HORIZONTAL_FOV
) -> np.ndarray:
    """Intrinsics [3,3] float64 of a centred camera with square pixels.

    Args:
        height, width: picture size in pixels.
        horizontal_fov: degrees from the left edge to the right edge, between 1 and 179.

    Raises:
        MediaError: the field of view is out of range.
    """
    if not 1.0 <= horizontal_fov <= 179.0:
        raise MediaError(
            f"The horizontal field of view {horizontal_fov:g} must lie between 1 and 179 degrees; "
            f"{DEFAULT_HORIZONTAL_FOV:g} suits most photos."
        )
    focal = width / 2 / math.tan(math.radians(horizontal_fov) / 2)
    return centred_intrinsics(height, width, focal)


def intrinsics_from_35mm(height: int, width: int, focal_35mm: float) -> np.ndarray:
    """Intrinsics [3,3] float64 of an uncropped photo from its 35 mm equivalent focal length.

    The equivalent is taken along the diagonal (43.27 mm on film), as the EXIF standard's "35 mm
    film" field is filled by makers of cameras whose sensors are not 3:2.
    """
    focal = focal_35mm * math.hypot(height, width) / _FULL_FRAME_DIAGONAL
    return centred_intrinsics(height, width, focal)


def centred_intrinsics(height: int, width: int, focal: float) -> np.ndarray:
    """Intrinsics [3,3] float64 with ``focal`` in pixels and the principal point (W/2, H/2)."""
    return np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
