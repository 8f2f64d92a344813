"""What a study leaves in its folder: results.json, table.md, contact sheets and one page."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from flythrough.disk import replacing, writing
from flythrough.evaluation.measures import VERSION, Figures
from flythrough.evaluation.page import page
from flythrough.evaluation.study import Study, Track
from flythrough.evaluation.table import markdown_table, means
from flythrough.evaluation.truth import Case
from flythrough.evaluation.verdicts import TOLD_ROTATION, TOLD_TRANSLATION, Verdict, verdicts
from flythrough.media.image import write_picture
from flythrough.media.picture import contact_sheet

_PACKAGES = ("flythrough", "torch", "diffusers", "numpy", "opencv-python-headless")
_SHEET_WIDTH = 1000  # of one strip, pixels

Lines = list[dict[str, Any]]


@dataclass(frozen=True)
class Report:
    """The files that were written; ``lines`` of each track's table; what was found about the
    measures."""

    results: Path
    table: Path
    page: Path
    sheets: tuple[Path, ...]
    lines: dict[str, Lines]
    markdown: str
    verdicts: tuple[Verdict, ...]

    @property
    def passed_controls(self) -> tuple[str, ...]:
        """``row (check)`` of every verdict that is not as it must be."""
        return tuple(f"{v.row} ({v.check})" for v in self.verdicts if not v.as_it_must)


def write_report(study: Study, results: Sequence[Figures]) -> Report:
    """Write everything from the figures and strips in the folder.

    Raises:
        FaultError: the disk failed.
    """
    own = {track.name: _own(track, results) for track in study.tracks}
    lines = {
        track.name: [
            line for line in means(own[track.name], track.rows, track.columns) if line["clips"]
        ]
        for track in study.tracks
    }
    found = [
        (track.name, verdict)
        for track in study.tracks
        for verdict in verdicts(own[track.name], track.rows)
    ]
    folder, text = study.folder, _markdown(study, lines)
    with writing(folder, "then run the evaluation again"):
        sheets = {
            case.name: sheet
            for track in study.tracks
            for case in track.cases
            if (sheet := _sheet(study, track, case, own[track.name])) is not None
        }
        data = _data(study, results, lines, found)
        file = _written(folder / "results.json", json.dumps(data, indent=1) + "\n")
        table = _written(folder / "table.md", text)
        html = _written(folder / "index.html", page(study, own, lines, found, sheets, data))
    every = tuple(verdict for _, verdict in found)
    return Report(file, table, html, tuple(sheets.values()), lines, text, every)


def _own(track: Track, results: Sequence[Figures]) -> list[Figures]:
    clips = {case.name for case in track.cases}
    rows = {row.name for row in track.rows}
    return [result for result in results if result.clip in clips and result.row in rows]


def _data(
    study: Study,
    results: Sequence[Figures],
    lines: dict[str, Lines],
    found: Sequence[tuple[str, Verdict]],
) -> dict[str, Any]:
    single = len(study.tracks) == 1
    return {
        "suite": study.name,
        "metrics_version": VERSION,
        "configuration": {**study.configuration, "size": list(study.size)},
        "versions": {"python": platform.python_version(), **_versions()},
        "not_run": list(study.not_run),
        "cases": {track.name: [asdict(case) for case in track.cases] for track in study.tracks},
        "rows": [
            {"track": track.name, "row": row.name, "title": row.title, "told_by": row.told_by,
             "switches": dict(row.switches)}
            for track in study.tracks
            for row in track.rows
        ],
        "told_from_path": {"rotation": TOLD_ROTATION, "translation": TOLD_TRANSLATION},
        "means": next(iter(lines.values())) if single else lines,
        "checks": [{"track": track, **asdict(verdict)} for track, verdict in found],
        "controls_fail": _controls_fail(found),
        "clips": [result.flat() for result in results],
    }  # fmt: skip


def _controls_fail(found: Sequence[tuple[str, Verdict]]) -> dict[str, bool]:
    """For each control whether it failed every check that it must fail."""
    fails: dict[str, bool] = {}
    for _, verdict in found:
        if verdict.row != "truth":
            fails[verdict.row] = fails.get(verdict.row, True) and verdict.as_it_must
    return fails


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _markdown(study: Study, lines: dict[str, Lines]) -> str:
    if len(study.tracks) == 1:
        track = study.tracks[0]
        return markdown_table(lines[track.name], track.columns)
    return "\n".join(
        f"### {track.title}\n\n{markdown_table(lines[track.name], track.columns)}"
        for track in study.tracks
    )


def _written(file: Path, text: str) -> Path:
    with replacing(file) as partial:
        partial.write_text(text, encoding="utf-8")
    return file


def _sheet(study: Study, track: Track, case: Case, own: Sequence[Figures]) -> Path | None:
    """All rows' frames of one clip, one strip a row."""
    there = {result.row for result in own if result.clip == case.name}
    rows = [row for row in track.rows if row.name in there]
    strips = []
    for row in rows:
        with Image.open(study.file(row, case).with_suffix(".jpg")) as picture:
            height = max(1, round(picture.height * _SHEET_WIDTH / picture.width))
            small = picture.convert("RGB").resize((_SHEET_WIDTH, height), Image.Resampling.LANCZOS)
            strips.append(np.array(small))
    if not strips:
        return None
    file = study.folder / f"sheet-{case.name}.png"
    write_picture(file, contact_sheet(strips, 1, [row.title for row in rows]))
    return file
