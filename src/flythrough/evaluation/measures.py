"""All figures of one video against the truth, and the file that keeps them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flythrough.disk import read_json, replacing
from flythrough.evaluation.detail import detail_ratio, frame_detail
from flythrough.evaluation.epipolar import epipolar_errors
from flythrough.evaluation.features import features
from flythrough.evaluation.photometry import (
    colour_distance,
    colour_drift,
    frame_psnr,
    masked_psnr,
    masked_ssims,
)
from flythrough.evaluation.portions import Portion, portion_values
from flythrough.evaluation.pose import LEAST_INLIERS, AnchoredView, FirstView, pose_track
from flythrough.evaluation.revisit import Return, returns, revisit
from flythrough.evaluation.rows import Row
from flythrough.evaluation.seam import Motion, SeamScore, motion_from_depth, seam_score
from flythrough.evaluation.temporal import flicker, motion_ratio, slope, windows
from flythrough.evaluation.truth import Truth
from flythrough.rollout.chunk import CHUNK_FRAMES

VERSION = 2
"""Of the definitions below; figures of another version are measured again."""

ANCHOR_STRIDE = 16
"""Frames between the exact renders in which the photo's features are looked for over long ways."""

_CLEAR = 2 * LEAST_INLIERS
"""Features that the exact render of a frame must share with the photo for the frame to be judged"""

Values = dict[str, float | None]
Curves = dict[str, tuple[float | None, ...]]


@dataclass(frozen=True)
class Figures:
    """One row's video of one clip.

    Attributes:
        digest: of everything the figures depend on; ``pixels`` of the frames themselves.
        row, clip: names; ``source``, ``seed``, ``kind``, ``path`` of the clip.
        values: figures by name (``columns.COLUMNS`` says what they are); None where undefined.
        curves: figures over time; those over frames begin at frame 1.
        seconds: that making the video took; no part of any comparison.
    """

    digest: str
    row: str
    clip: str
    source: str
    seed: int
    kind: str
    path: str
    values: Mapping[str, float | None]
    curves: Mapping[str, tuple[float | None, ...]]
    pixels: str
    seconds: float

    def flat(self) -> dict[str, Any]:
        """Plain values for JSON, figures and curves beside the rest."""
        data = asdict(self)
        return {**data, **data.pop("values"), **data.pop("curves")}

    def write(self, file: Path) -> None:
        """Put the figures on disk, whole or not at all."""
        with replacing(file) as partial:
            partial.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")


def read_figures(file: Path, digest: str) -> Figures | None:
    """What :meth:`Figures.write` wrote, if it has this digest; None where it must be made."""
    try:
        data = read_json(file)
        if data.get("digest") != digest:
            return None
        found: dict[str, Any] = {field.name: data[field.name] for field in fields(Figures)}
        found["curves"] = {name: tuple(line) for name, line in found["curves"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return Figures(**found)


class Judge:
    """Measures videos of one clip; what all of them share is computed once.

    Args:
        truth: the clip.
        anchored: features of the photo may also be found by way of exact renders along the path.
        portions: stretches of frames that are also judged by themselves.
    """

    def __init__(
        self, truth: Truth, anchored: bool = False, portions: Sequence[Portion] = ()
    ) -> None:
        self.truth, self._anchored = truth, anchored and len(truth) > CHUNK_FRAMES
        self._portions = tuple(portions)

    def figures(self, video: np.ndarray, borders: Sequence[int] = ()) -> tuple[Values, Curves]:
        """Everything that can be said of ``video`` uint8 [T,H,W,3], whose later chunks begin with
        the frames ``borders``; what the truth does not allow is None or left out."""
        video = np.require(video, requirements=["C", "W"])  # PyTorch shares memory it may write
        values: Values = {}
        curves: Curves = {}
        for part in (self._camera, self._epipolar, self._pixels, self._time, self._revisit):
            more, lines = part(video)
            values |= more
            curves |= lines
        seam = self._seam(video, borders)
        values["seam"] = None if seam is None else seam.score
        for portion in self._portions:
            values |= portion_values(portion, video, self.truth, curves, seam)
        return values, curves

    @cached_property
    def _view(self) -> FirstView | AnchoredView | None:
        truth = self.truth
        photo = truth.frames[0]
        if truth.world_from_camera is None:
            return None
        if truth.depth is None or truth.visible is None:
            if truth.landmarks is None or len(truth.landmarks) < _CLEAR:
                return None
            return FirstView.of_landmarks(photo, truth.landmarks, truth.intrinsics)
        first = FirstView(photo, truth.depth[0], truth.intrinsics)
        if not self._anchored:
            return first
        anchors = {}
        for index in range(ANCHOR_STRIDE, len(truth), ANCHOR_STRIDE):
            view = FirstView(
                truth.frames[index],
                truth.depth[index],
                truth.intrinsics,
                truth.world_from_camera[index],
                truth.visible[index],
            )
            if len(view) >= LEAST_INLIERS:
                anchors[index] = view
        return AnchoredView(first, anchors)

    @cached_property
    def _judged(self) -> np.ndarray:
        """Frames [T] whose exact picture shares enough features with the photo."""
        truth, view = self.truth, self._view
        judged = np.ones(len(truth), bool)
        if view is not None and truth.filmed:
            for index in range(1, len(truth)):
                judged[index] = view.camera(truth.frames[index], index)[1] >= _CLEAR
        return judged

    @cached_property
    def _motion(self) -> Motion | None:
        truth = self.truth
        if truth.depth is None or truth.world_from_camera is None:
            return None
        still = None if truth.still is None else torch.from_numpy(truth.still)
        return motion_from_depth(
            torch.from_numpy(truth.depth),
            torch.from_numpy(truth.world_from_camera),
            torch.from_numpy(truth.intrinsics).expand(len(truth), 3, 3),
            still,
        )

    @cached_property
    def _returns(self) -> tuple[Return, ...]:
        return returns(self.truth)

    def _camera(self, video: np.ndarray) -> tuple[Values, Curves]:
        truth, view = self.truth, self._view
        if view is None or truth.world_from_camera is None or truth.median_depth is None:
            return {}, {}
        # Without anchors every frame is judged, as in the published ablation.
        judged = self._judged if self._anchored or truth.landmarks is not None else None
        track = pose_track(video, view, truth.world_from_camera, truth.median_depth, judged)
        turn, way = (
            np.where(track.judged, line, np.nan) for line in (track.rotation, track.translation)
        )
        values = {
            "rotation": track.mean_rotation,
            "translation": track.mean_translation,
            "measured_rotation": track.measured_rotation,
            "measured_translation": track.measured_translation,
            "length_ratio": track.length_ratio,
            "failure_rate": track.failure_rate,
            "inliers": float(np.median(track.inliers[track.judged]))
            if track.judged.any()
            else None,
            "judged": float(track.judged.mean()),
            "drift_rotation": slope(turn),
            "drift_translation": slope(way),
        }
        curves = {
            "frame_rotation": _short(turn),
            "frame_translation": _short(way),
            "frame_inliers": _short(track.inliers),
        }
        return values, curves

    def _epipolar(self, video: np.ndarray) -> tuple[Values, Curves]:
        truth = self.truth
        if truth.world_from_camera is None:
            return {}, {}
        errors = epipolar_errors(
            video,
            features(truth.frames[0]),
            truth.intrinsics,
            truth.world_from_camera,
            truth.median_depth,
        )
        known = errors[~np.isnan(errors)]
        mean = float(known.mean()) if known.size else None
        return {"epipolar": mean}, {"frame_epipolar": _short(errors)}

    def _pixels(self, video: np.ndarray) -> tuple[Values, Curves]:
        truth = self.truth
        if not truth.filmed:
            return {}, {}
        later = slice(1, None)  # frame 0 is the photo
        shown, exact = video[later], truth.frames[later]
        every = np.ones(shown.shape[:3], bool) if truth.still is None else truth.still[later]
        seen = every if truth.visible is None else truth.visible[later] & every
        psnr, detail = frame_psnr(shown, exact, seen), frame_detail(shown, exact, seen)
        ssims = masked_ssims(shown, exact, (every, seen))
        values: Values = {
            "psnr": masked_psnr(shown, exact, every),
            "ssim": ssims[0],
            "detail": detail_ratio(shown, exact, seen),
            "drift": colour_drift(shown, exact, seen),
            "drift_psnr": slope(psnr),
            "drift_detail": slope(100 * detail),
            "worst_psnr": _least(windows(psnr)),
            "motion": motion_ratio(video, truth.frames),
        }
        if truth.visible is not None:
            hidden = ~truth.visible[later] & every
            values["psnr_visible"] = masked_psnr(shown, exact, seen)
            values["ssim_visible"] = ssims[1]
            values["psnr_disoccluded"] = masked_psnr(shown, exact, hidden)
            values["detail_disoccluded"] = detail_ratio(shown, exact, hidden)
        curves = {
            "frame_psnr": _short(psnr),
            "frame_detail": _short(detail),
            "frame_colour": _short(colour_distance(shown, exact, seen)),
        }
        return values, curves

    def _time(self, video: np.ndarray) -> tuple[Values, Curves]:
        truth = self.truth
        if not truth.filmed:
            return {}, {}
        return {"flicker": flicker(video, truth.frames, self._motion)}, {}

    def _seam(self, video: np.ndarray, borders: Sequence[int]) -> SeamScore | None:
        if not borders:
            return None
        frames = torch.from_numpy(video).permute(0, 3, 1, 2).float() / 255
        return seam_score(frames, self._motion, borders[0], borders)

    def _revisit(self, video: np.ndarray) -> tuple[Values, Curves]:
        found = revisit(video, self._returns) if self._returns else None
        if found is None:
            return {"revisit": None}, {}
        away: tuple[float | None, ...] = tuple(float(frames) for frames, _ in found.curve)
        lines = {"revisit_away": away, "revisit_psnr": tuple(round(db, 2) for _, db in found.curve)}
        return {"revisit": found.score}, lines


def measured(judge: Judge, video: np.ndarray, row: Row, digest: str, seconds: float) -> Figures:
    """Measure ``video`` uint8 [T,H,W,3], the ``row`` of the clip that ``judge`` knows."""
    values, curves = judge.figures(video, row.borders(len(video)))
    case = judge.truth.case
    return Figures(
        digest=digest,
        row=row.name,
        clip=case.name,
        source=case.source,
        seed=case.seed,
        kind=case.kind,
        path=case.path,
        values={name: None if v is None else round(v, 5) for name, v in values.items()},
        curves=curves,
        pixels=blake2b(np.ascontiguousarray(video).tobytes(), digest_size=16).hexdigest(),
        seconds=round(seconds, 1),
    )


def _least(values: np.ndarray) -> float | None:
    return None if np.isnan(values).all() else float(np.nanmin(values))


def _short(values: Sequence[float] | np.ndarray) -> tuple[float | None, ...]:
    return tuple(None if np.isnan(value) else round(float(value), 4) for value in values)
