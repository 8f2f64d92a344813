"""How far pixels lie from the world's exact render, and how colours wander over time.

On pixels that the photo showed, the render is what should be there. On dis-occluded pixels it is
one answer among many: other plausible answers are punished, so that figure compares methods on
the same worlds and says nothing on its own.
"""

from __future__ import annotations

import numpy as np

from flythrough.errors import InputError

BEST_PSNR = 60.0
"""dB; equal pictures score this."""

_WHITE = np.array([0.95047, 1.0, 1.08883])
_XYZ_FROM_RGB = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.072175],
        [0.0193339, 0.119192, 0.9503041],
    ]
)


def masked_psnr(video: np.ndarray, exact: np.ndarray, mask: np.ndarray) -> float | None:
    """PSNR in dB of ``video`` against ``exact``, both uint8 [T,H,W,3], over the pixels of ``mask``
    [T,H,W] bool in all frames together, at most 60; None for an empty mask.

    Raises:
        InputError: shapes that differ.
    """
    if video.shape != exact.shape or mask.shape != video.shape[:3]:
        raise InputError(
            f"a video of shape {video.shape}, an exact one of {exact.shape} and a mask of "
            f"{mask.shape} were given; their frames, heights and widths must be equal."
        )
    total, count = 0.0, int(mask.sum())
    if count == 0:
        return None
    for shown, truth, chosen in zip(video, exact, mask, strict=True):
        step = (shown[chosen].astype(np.float64) - truth[chosen]) / 255
        total += float((step**2).sum())
    return min(BEST_PSNR, -10 * float(np.log10(max(total / (3 * count), 1e-12))))


def colour_drift(video: np.ndarray, exact: np.ndarray, mask: np.ndarray) -> float:
    """Slope over 100 frames of the distance (CIE Lab, Delta E 1976) between the mean colours of
    ``video`` and ``exact`` uint8 [T,H,W,3] on the pixels of ``mask`` [T,H,W].

    Frames with an empty mask are left out; 0 where fewer than two are left.
    """
    frames, distances = [], []
    for index, (shown, truth, chosen) in enumerate(zip(video, exact, mask, strict=True)):
        if chosen.any():
            means = [lab(frame[chosen]).mean(0) for frame in (shown, truth)]
            frames.append(index)
            distances.append(float(np.linalg.norm(means[0] - means[1])))
    if len(frames) < 2:
        return 0.0
    return 100 * float(np.polyfit(frames, distances, 1)[0])


def lab(pixels: np.ndarray) -> np.ndarray:
    """CIE Lab (D65) float64 [...,3] of sRGB uint8 [...,3]; L in [0,100]."""
    grey = np.asarray(pixels, np.float64) / 255
    linear = np.where(grey <= 0.04045, grey / 12.92, ((grey + 0.055) / 1.055) ** 2.4)
    share = linear @ _XYZ_FROM_RGB.T / _WHITE
    edge = 6 / 29
    f = np.where(share > edge**3, np.cbrt(share), share / (3 * edge**2) + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
