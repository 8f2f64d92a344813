"""Pictures of training: what an item consists of, and the curve of the loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from flythrough.disk import replacing
from flythrough.evaluation.chart import line_chart
from flythrough.evaluation.photometry import masked_psnr
from flythrough.media.image import write_picture
from flythrough.media.picture import contact_sheet
from flythrough.training.clip_sampling import Clip
from flythrough.training.lora.items import RenderedItem
from flythrough.training.run_folder import read_log

_SHOWN = (0, 8, 16, 24, 32)
_SMOOTHED = 20


def write_batch_picture(path: Path, item: RenderedItem, clip: Clip) -> None:
    """Rows: target, warp, mask; in front of them the frame that the past consists of."""
    blank = np.full_like(item.anchor, 24)
    rows = [
        ("target", list(item.target[list(_SHOWN)]), item.source, "source"),
        ("warp", _pixels(item.warp[list(_SHOWN)]), blank, ""),
        ("mask", _masks(item.visible[list(_SHOWN)]), blank, ""),
    ]
    pictures, labels = [], []
    for name, frames, lead, said in rows:
        pictures += [lead, *frames]
        labels += [said, *(f"{name} {n}" for n in _SHOWN)]
    labels[0] = f"source: {clip.direction} {clip.kind}, frame {clip.condition}"
    labels[6] = f"keyframes {clip.keyframes[0]}..{clip.keyframes[-1]} ({len(clip.keyframes)})"
    labels[12] = f"{100 * float(item.visible.mean()):.0f} % seen, past {len(item.past)} frames"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(path, contact_sheet(pictures, columns=6, labels=labels))


def fit_of_warp(item: RenderedItem) -> tuple[float, float] | None:
    """dB against the target on pixels that the warp shows, of the warp and of the source frame
    standing still; None where it shows nothing."""
    seen = item.visible.cpu().numpy() > 0.5
    target = np.ascontiguousarray(item.target)
    warped = masked_psnr(np.stack(_pixels(item.warp)), target, seen)
    still = masked_psnr(np.broadcast_to(item.source, target.shape), target, seen)
    return None if warped is None or still is None else (warped, still)


def write_rows(path: Path, rows: dict[str, np.ndarray]) -> None:
    """Clips uint8 [33,H,W,3] (or masks [33,H,W]) under each other, five frames of each."""
    pictures, labels = [], []
    for name, frames in rows.items():
        shown = frames[list(_SHOWN)]
        pictures += list(shown if shown.ndim == 4 else np.repeat(shown[..., None], 3, axis=3))
        labels += [f"{name} {n}" for n in _SHOWN]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(path, contact_sheet(pictures, columns=len(_SHOWN), labels=labels))


def write_loss_plot(path: Path, log: Path) -> str:
    """The logged loss, each point the mean of up to 20 steps before it; returns the SVG."""
    losses = [line["losses"]["total"] for line in read_log(log)]
    means = [float(np.mean(losses[max(0, n + 1 - _SMOOTHED) : n + 1])) for n in range(len(losses))]
    chart = line_chart(
        f"Loss (mean of {_SMOOTHED} steps)", "step", {"training": means or [0.0]}, first=1
    )
    with replacing(path) as partial:
        partial.write_text(chart, encoding="utf-8")
    return chart


def _pixels(frames: Tensor) -> list[np.ndarray]:
    bytes_ = (frames.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1)
    return list(bytes_.cpu().numpy())


def _masks(visible: Tensor) -> list[np.ndarray]:
    grey = (visible.clamp(0, 1) * 255).round().byte().cpu().numpy()
    return list(np.repeat(grey[..., None], 3, axis=3))
