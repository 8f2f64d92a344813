"""How far pixels lie from the world's exact render, and how colours wander over time.

On pixels that the photo showed, the render is what should be there. On dis-occluded pixels it is
one answer among many: other plausible answers are punished, so that figure compares methods on
the same worlds and says nothing on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from flythrough.errors import InputError

BEST_PSNR = 60.0
"""dB; equal pictures score this."""

LEAST_SHARE = 0.05
"""Of a frame's pixels; figures of a frame on fewer are left out."""

_WINDOW = 11

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
    return decibels(total / (3 * count))


def decibels(error: float) -> float:
    """PSNR in dB of a mean squared error of values in [0,1], at most 60."""
    return min(BEST_PSNR, -10 * float(np.log10(max(error, 1e-12))))


def colour_drift(video: np.ndarray, exact: np.ndarray, mask: np.ndarray) -> float:
    """Slope over 100 frames of the distance (CIE Lab, Delta E 1976) between the mean colours of
    ``video`` and ``exact`` uint8 [T,H,W,3] on the pixels of ``mask`` [T,H,W].

    Frames with an empty mask are left out; 0 where fewer than two are left.
    """
    frames, distances = [], []
    for index, (shown, truth, chosen) in enumerate(zip(video, exact, mask, strict=True)):
        if chosen.any():
            frames.append(index)
            distances.append(_colours_apart(shown, truth, chosen))
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


def frame_psnr(video: np.ndarray, exact: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """PSNR in dB [T] of each frame (uint8 [T,H,W,3]) over its pixels of ``mask`` [T,H,W] (all for
    None), at most 60; NaN where fewer than 5 % are chosen."""

    def psnr(shown: np.ndarray, truth: np.ndarray, chosen: np.ndarray) -> float:
        step = (shown[chosen].astype(np.float64) - truth[chosen]) / 255
        return decibels(float((step**2).mean()))

    return each_frame(psnr, video, exact, mask)


def colour_distance(video: np.ndarray, exact: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Delta E 1976 [T] between the mean colours of each frame on its pixels of ``mask`` (all for
    None); NaN where fewer than 5 % are chosen."""
    return each_frame(_colours_apart, video, exact, mask)


def _colours_apart(shown: np.ndarray, truth: np.ndarray, chosen: np.ndarray) -> float:
    one, other = (lab(frame[chosen]).mean(0) for frame in (shown, truth))
    return float(np.linalg.norm(one - other))


def each_frame(
    figure: Callable[[np.ndarray, np.ndarray, np.ndarray], float],
    video: np.ndarray,
    exact: np.ndarray,
    mask: np.ndarray | None,
) -> np.ndarray:
    """``figure`` [T] of each frame of ``video``, of ``exact`` and of the pixels that ``mask``
    [T,H,W] chooses (all for None); NaN where these are fewer than 5 %."""
    found = np.full(len(video), np.nan)
    for index, (shown, truth) in enumerate(zip(video, exact, strict=True)):
        chosen = np.ones(shown.shape[:2], bool) if mask is None else mask[index]
        if chosen.mean() >= LEAST_SHARE:
            found[index] = figure(shown, truth, chosen)
    return found


def masked_ssims(
    video: np.ndarray, exact: np.ndarray, masks: Sequence[np.ndarray]
) -> list[float | None]:
    """SSIM (Wang et al. 2004: 11x11 Gaussian window, sigma 1.5, C1 = 0.01^2, C2 = 0.03^2 on [0,1],
    every channel by itself) of uint8 [T,H,W,3], for each of some masks [T,H,W] the mean over the
    windows around its pixels; None if it is empty or a side is below 11."""
    if min(video.shape[1:3]) < _WINDOW:
        return [None] * len(masks)
    inner, edge = np.stack(masks), _WINDOW // 2
    inner = inner[:, :, edge:-edge, edge:-edge]
    totals = np.zeros(len(masks))
    for index, (shown, truth) in enumerate(zip(video, exact, strict=True)):
        values = _ssim_map(shown, truth)
        totals += [values[chosen].sum() for chosen in inner[:, index]]
    counts = inner.sum((1, 2, 3))
    return [
        float(total / count) if count else None for total, count in zip(totals, counts, strict=True)
    ]


def _ssim_map(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """[H-10,W-10], mean over channels."""
    import torch

    from flythrough.scene.ssim import Ssim

    x, y = (torch.from_numpy(p).permute(2, 0, 1).double() / 255 for p in (one, other))
    return Ssim(y).around(x).mean(0).numpy()
