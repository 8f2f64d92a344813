"""How much fine structure a video has, beside the exact render: softness, and invented detail.

A mean over pixels of the absolute Laplacian of luminance is what is compared. Blur lowers it, noise
and invented texture raise it; it says nothing about whether the structure is right.
"""

from __future__ import annotations

import numpy as np

from flythrough.evaluation.photometry import each_frame

_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
_FLOOR = 0.25  # 8-bit levels; below, both pictures count as flat


def detail_ratio(video: np.ndarray, exact: np.ndarray, mask: np.ndarray | None) -> float | None:
    """Detail of ``video`` over that of ``exact`` (uint8 [T,H,W,3]) on the pixels of ``mask``
    [T,H,W] (all for None) in all frames together; None where it is empty."""
    chosen = np.ones(video.shape[:3], bool) if mask is None else mask
    if not chosen.any():
        return None
    own, true = (
        sum(float(laplacian(f)[m].sum()) for f, m in zip(pictures, chosen, strict=True))
        for pictures in (video, exact)
    )
    pixels = int(chosen.sum())
    return (own / pixels + _FLOOR) / (true / pixels + _FLOOR)


def frame_detail(video: np.ndarray, exact: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """The same ratio [T] of each frame; NaN where fewer than 5 % of its pixels are chosen."""

    def ratio(shown: np.ndarray, truth: np.ndarray, chosen: np.ndarray) -> float:
        own, true = (float(laplacian(frame)[chosen].mean()) for frame in (shown, truth))
        return (own + _FLOOR) / (true + _FLOOR)

    return each_frame(ratio, video, exact, mask)


def laplacian(frame: np.ndarray) -> np.ndarray:
    """Absolute Laplacian [H,W] of the luminance of uint8 [H,W,3], in 8-bit levels."""
    grey = np.pad(frame @ _LUMINANCE, 1, mode="edge")
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return np.abs(around - 4 * grey[1:-1, 1:-1])
