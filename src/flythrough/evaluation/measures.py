"""All figures of one video against the truth, and the file that keeps them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flythrough.disk import read_json, replacing
from flythrough.evaluation.photometry import colour_drift, masked_psnr
from flythrough.evaluation.pose import FirstView, pose_track
from flythrough.evaluation.seam import motion_from_depth, seam_score
from flythrough.evaluation.suite import Truth
from flythrough.rollout.chunk import CHUNK_FRAMES

VERSION = 1
"""Of the definitions below; figures of another version are measured again."""


@dataclass(frozen=True)
class ClipResult:
    """One row's video of one clip.

    Attributes:
        digest: of everything the figures depend on.
        rotation, translation: means over frames 1 to T-1 in degrees and percent of the median
            depth, failed frames charged as in ``pose.PoseTrack``; ``measured_*`` without them.
        length_ratio, failure_rate: as in ``pose.PoseTrack``; the rate in [0,1].
        psnr_visible, psnr_disoccluded: dB on pixels that the photo showed and on all others.
        seam: None for a single chunk.
        drift: Delta E per 100 frames (``photometry.colour_drift``) on visible pixels.
        frame_rotation, frame_translation, frame_inliers: per frame, from frame 1.
        seconds: that making the video took; no part of any comparison.
    """

    digest: str
    row: str
    seed: int
    kind: str
    path: str
    rotation: float
    translation: float
    measured_rotation: float | None
    measured_translation: float | None
    length_ratio: float | None
    failure_rate: float
    psnr_visible: float | None
    psnr_disoccluded: float | None
    seam: float | None
    drift: float
    frame_rotation: tuple[float, ...]
    frame_translation: tuple[float, ...]
    frame_inliers: tuple[int, ...]
    seconds: float

    def write(self, file: Path) -> None:
        """Put the figures on disk, whole or not at all."""
        with replacing(file) as partial:
            partial.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")


def read_result(file: Path, digest: str) -> ClipResult | None:
    """What :meth:`ClipResult.write` wrote, if it has this digest; None where it must be made."""
    try:
        data = read_json(file)
        if data.get("digest") != digest:
            return None
        values: dict[str, Any] = {field.name: data[field.name] for field in fields(ClipResult)}
    except (OSError, ValueError, TypeError, KeyError):
        return None
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return ClipResult(**{**values, **lists})


def measured(
    frames: np.ndarray, truth: Truth, first: FirstView, row: str, digest: str, seconds: float
) -> ClipResult:
    """Measure ``frames`` uint8 [T,H,W,3] against ``truth``, of which ``first`` is the photo."""
    track = pose_track(frames, first, truth.world_from_camera, truth.median_depth)
    later = slice(1, None)  # frame 0 is the photo
    shown, exact, seen = frames[later], truth.frames[later], truth.visible[later]
    return ClipResult(
        digest=digest,
        row=row,
        seed=truth.case.seed,
        kind=truth.case.kind,
        path=truth.case.path,
        rotation=float(track.rotation.mean()),
        translation=float(track.translation.mean()),
        measured_rotation=track.measured_rotation,
        measured_translation=track.measured_translation,
        length_ratio=track.length_ratio,
        failure_rate=track.failure_rate,
        psnr_visible=masked_psnr(shown, exact, seen),
        psnr_disoccluded=masked_psnr(shown, exact, ~seen),
        seam=_seam(frames, truth) if len(frames) > CHUNK_FRAMES else None,
        drift=colour_drift(shown, exact, seen),
        frame_rotation=_short(track.rotation),
        frame_translation=_short(track.translation),
        frame_inliers=tuple(int(count) for count in track.inliers),
        seconds=round(seconds, 1),
    )


def _seam(frames: np.ndarray, truth: Truth) -> float:
    video = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    count = len(truth)
    motion = motion_from_depth(
        torch.from_numpy(truth.depth),
        torch.from_numpy(truth.world_from_camera),
        torch.from_numpy(truth.intrinsics).expand(count, 3, 3),
    )
    return seam_score(video, motion).score


def _short(values: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in values)
