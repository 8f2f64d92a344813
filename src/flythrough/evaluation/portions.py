"""Figures of a stretch of a video by itself: one chunk of a long rollout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flythrough.evaluation.columns import ALL, Column
from flythrough.evaluation.detail import detail_ratio
from flythrough.evaluation.photometry import masked_psnr
from flythrough.evaluation.pose import LEAST_INLIERS
from flythrough.evaluation.seam import SeamScore
from flythrough.evaluation.truth import Truth

Curve = tuple[float | None, ...]

FIELDS = (
    "rotation",
    "translation",
    "failure_rate",
    "psnr_visible",
    "psnr_disoccluded",
    "detail",
    "detail_disoccluded",
    "seam",
    "drift",
)
"""What is said of a portion, as in ``columns.ALL``; ``drift`` is the mean distance of colours there
instead of a slope."""

_COLOUR = "colour off (Delta E)"


@dataclass(frozen=True)
class Portion:
    """Frames ``first`` to ``last`` (the latter not among them) under a short ``name``."""

    name: str
    first: int
    last: int

    def field(self, figure: str) -> str:
        """The name of one of its figures among a video's."""
        return f"{self.name}_{figure}"


def portion_columns(portions: Sequence[Portion]) -> tuple[Column, ...]:
    """Columns for all figures, portion after portion."""
    found = []
    for portion in portions:
        for name in FIELDS:
            usual = ALL[name]
            title = _COLOUR if name == "drift" else usual.title
            form = ".1f" if name == "drift" else usual.form
            words = f"{portion.name.replace('_', ' ')}: {title}"
            found.append(Column(portion.field(name), words, form, usual.factor))
    return tuple(found)


def portion_values(
    portion: Portion,
    video: np.ndarray,
    truth: Truth,
    curves: Mapping[str, Curve],
    seam: SeamScore | None,
) -> dict[str, float | None]:
    """The figures of ``portion``.

    Args:
        video: uint8 [T,H,W,3], all of it.
        curves: of the whole video, from frame 1 on (``measures.Judge``).
        seam: its borders, of which the one that the portion begins with counts.
    """
    part = slice(max(portion.first, 1), portion.last)
    line = slice(part.start - 1, part.stop - 1)
    turn, way, inliers, colour = (
        _line(curves.get(f"frame_{name}"), line)
        for name in ("rotation", "translation", "inliers", "colour")
    )
    judged = ~np.isnan(turn)
    values: dict[str, float | None] = {
        "rotation": _mean(turn),
        "translation": _mean(way),
        "failure_rate": float((inliers[judged] < LEAST_INLIERS).mean()) if judged.any() else None,
        "drift": _mean(colour),
    }
    if truth.filmed and truth.visible is not None:
        shown, exact = video[part], truth.frames[part]
        still = np.ones(shown.shape[:3], bool) if truth.still is None else truth.still[part]
        for suffix, mask in (("", truth.visible[part]), ("_disoccluded", ~truth.visible[part])):
            values["psnr" + (suffix or "_visible")] = masked_psnr(shown, exact, mask & still)
            values["detail" + suffix] = detail_ratio(shown, exact, mask & still)
    starts = {} if seam is None else {border.frame: border.score for border in seam.borders}
    values["seam"] = starts.get(portion.first)
    return {portion.field(name): values.get(name) for name in FIELDS}


def _line(curve: Curve | None, part: slice) -> np.ndarray:
    if curve is None:
        return np.full(max(0, part.stop - part.start), np.nan)
    return np.array([np.nan if value is None else value for value in curve[part]], np.float64)


def _mean(values: np.ndarray) -> float | None:
    return None if np.isnan(values).all() else float(np.nanmean(values))
