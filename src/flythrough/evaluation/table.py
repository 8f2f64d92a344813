"""Figures of many clips in one table: a mean for each row, and whether the controls failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flythrough.evaluation.measures import ClipResult
from flythrough.evaluation.rows import Row

TOLD_ROTATION, TOLD_TRANSLATION = 1.0, 2.5
"""Degrees and percent of the median depth from which on a control counts as told from the path:
five times what the exact render scores after a pass through nano's codec (0.2 and 0.5)."""


@dataclass(frozen=True)
class Column:
    """A field of ``ClipResult``, its title with unit, and how it is written."""

    field: str
    title: str
    form: str = ".2f"
    factor: float = 1.0


COLUMNS = (
    Column("rotation", "R-Err (deg)"),
    Column("translation", "T-Err (% median depth)"),
    Column("measured_rotation", "R-Err, measured frames"),
    Column("measured_translation", "T-Err, measured frames"),
    Column("length_ratio", "path-length ratio"),
    Column("failure_rate", "failures (%)", ".0f", 100.0),
    Column("psnr_visible", "PSNR visible (dB)", ".1f"),
    Column("psnr_disoccluded", "PSNR dis-occluded (dB)", ".1f"),
    Column("seam", "seam"),
    Column("drift", "drift (Delta E / 100 frames)", "+.1f"),
)

NOTES = (
    "Means over clips. Poses by PnP from features of the photo lifted with its exact depth; "
    "nothing is aligned or scaled.",
    "A frame with fewer than 30 inliers is a failure; it stays in R-Err and T-Err, charged like a "
    "camera that never moved. The columns of measured frames leave failures out; never read them "
    "without the rate of failures.",
    "Path-length ratio: through every eighth measured frame, over clips whose path moves (a pan "
    "does not). 1 is right; a still camera has 0.",
    "PSNR is pooled over all pixels of a clip and at most 60 dB. On dis-occluded pixels plausible "
    "inventions are punished.",
    "Drift: slope of the distance between mean colours (CIE Lab) of video and truth on visible "
    "pixels. The seam score needs two chunks.",
    "The table measures geometry and stability; it says nothing about how good a picture looks.",
)


def means(results: Sequence[ClipResult], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One line a row: its mean over the clips in which a figure is defined, None where in none."""
    lines = []
    for row in rows:
        own = [result for result in results if result.row == row.name]
        line: dict[str, Any] = {"row": row.name, "title": row.title, "kind": row.kind}
        line["clips"] = len(own)
        for field in [*(column.field for column in COLUMNS), "seconds"]:
            values = [getattr(result, field) for result in own]
            known = [value for value in values if value is not None]
            line[field] = round(sum(known) / len(known), 4) if known else None
        lines.append(line)
    return lines


def control_failures(lines: Sequence[dict[str, Any]]) -> dict[str, bool]:
    """For each control whether its camera is found to be off the path, as it must be."""
    return {
        line["row"]: line["rotation"] >= TOLD_ROTATION or line["translation"] >= TOLD_TRANSLATION
        for line in lines
        if line["kind"] == "control" and line["rotation"] is not None
    }


def cells(line: dict[str, Any]) -> list[str]:
    """The texts of one line, in the order of ``COLUMNS``."""
    texts = []
    for column in COLUMNS:
        value = line[column.field]
        texts.append("-" if value is None else f"{column.factor * value:{column.form}}")
    return texts


def markdown_table(lines: Sequence[dict[str, Any]]) -> str:
    """The table as Markdown."""
    titles = ["row", *(column.title for column in COLUMNS)]
    text = [f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]
    text += [f"| {' | '.join([line['title'], *cells(line)])} |" for line in lines]
    return "\n".join(text) + "\n"
