"""Pinhole matrices in pixels: checks, change of picture size, change of focal length.

Pixel centres lie at half-integers, so a centred camera has its principal point at (W/2, H/2).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from flythrough.errors import CameraError


def check_intrinsics(matrices: ArrayLike, name: str = "intrinsics") -> np.ndarray:
    """Matrices [...,3,3] as float64 after checking that they are pinhole matrices in pixels.

    Raises:
        CameraError: another shape, a value that is not finite, a focal length that is not
            positive, or a last row other than 0 0 1.
    """
    k = np.asarray(matrices, np.float64)
    if k.shape[-2:] != (3, 3):
        raise CameraError(f"{name} has shape {list(k.shape)}; give 3x3 pinhole matrices, [T,3,3].")
    flat = k.reshape(-1, 3, 3)
    faults = {
        "holds a value that is not finite": ~np.isfinite(flat).all((1, 2)),
        "has a focal length that is not positive": (flat[:, 0, 0] <= 0) | (flat[:, 1, 1] <= 0),
        "has a last row other than 0 0 1": np.abs(flat[:, 2] - [0, 0, 1]).max(1) > 1e-6,
        "has an entry below the diagonal": np.abs(flat[:, 1, 0]) > 1e-6,
    }
    for fault, bad in faults.items():
        if bad.any():
            raise CameraError(
                f"{name} of frame {int(np.argmax(bad))} {fault}; "
                "write [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in pixels."
            )
    return k


def check_size(size: object) -> tuple[int, int]:
    """(height, width) as two positive whole numbers, or a CameraError."""
    values = np.asarray(size).tolist()
    if (
        not isinstance(values, list)
        or len(values) != 2
        or not all(isinstance(v, (int, float)) and v == v // 1 and v > 0 for v in values)
    ):
        raise CameraError(
            f"The picture size {values!r} is not two positive whole numbers; "
            "give it as (height, width)."
        )
    return int(values[0]), int(values[1])


def refitted(k: np.ndarray, old: tuple[int, int], new: tuple[int, int]) -> np.ndarray:
    """Matrices [...,3,3] of a picture of size ``old`` (h,w) after fitting it to size ``new``.

    Photos are fitted by one scale factor and a centred crop, never stretched, and so are cameras:
    pixels stay square and the principal point keeps its scaled distance from the centre.
    """
    factor = max(new[0] / old[0], new[1] / old[1])
    out = np.array(k, np.float64)
    out[..., :2, :2] *= factor
    for row, side in ((0, 1), (1, 0)):
        out[..., row, 2] = (k[..., row, 2] - old[side] / 2) * factor + new[side] / 2
    return out


def with_focal(k: ArrayLike, factor: ArrayLike) -> np.ndarray:
    """One matrix [3,3] with its focal lengths times ``factor`` [T]: [T,3,3]."""
    factor = np.asarray(factor, np.float64)
    out = np.broadcast_to(np.asarray(k, np.float64), (*factor.shape, 3, 3)).copy()
    out[..., 0, :2] *= factor[..., None]
    out[..., 1, :2] *= factor[..., None]
    return out
