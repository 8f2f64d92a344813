"""What an ablation leaves in its folder: results.json, table.md, contact sheets and one page."""

from __future__ import annotations

import base64
import io
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from flythrough.disk import replacing
from flythrough.errors import FaultError
from flythrough.evaluation.ablation import CheckedAblation
from flythrough.evaluation.chart import line_chart
from flythrough.evaluation.measures import VERSION, ClipResult
from flythrough.evaluation.rows import Row
from flythrough.evaluation.suite import Case
from flythrough.evaluation.table import (
    COLUMNS,
    NOTES,
    TOLD_ROTATION,
    TOLD_TRANSLATION,
    cells,
    control_failures,
    markdown_table,
    means,
)
from flythrough.media.image import write_picture
from flythrough.media.picture import contact_sheet

_PACKAGES = ("flythrough", "torch", "diffusers", "numpy", "opencv-python-headless")
_SHEET_WIDTH = 1000  # of one strip, pixels
_STYLE = (
    "body{font:15px/1.5 sans-serif;color:#262b36;max-width:1180px;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;font-size:14px}td,th{padding:4px 10px;text-align:right;"
    "border-bottom:1px solid #e0e3e9}td:first-child,th:first-child{text-align:left}"
    "tr.control td{color:#68707e}tr.reference td{background:#f7f8fa}img{max-width:100%}"
    ".plots{display:flex;flex-wrap:wrap;gap:16px}"
)


@dataclass(frozen=True)
class Report:
    """The files that were written, and the controls that were not told from the truth."""

    results: Path
    table: Path
    page: Path
    sheets: tuple[Path, ...]
    lines: tuple[dict[str, Any], ...]
    passed_controls: tuple[str, ...]


def write_report(checked: CheckedAblation, results: Sequence[ClipResult]) -> Report:
    """Write everything from the figures and strips in the folder.

    Raises:
        FaultError: the disk failed.
    """
    folder = checked.request.folder
    lines = means(results, checked.rows)
    failures = control_failures(lines)
    try:
        sheets = tuple(_sheet(checked, case) for case in checked.cases)
        table = _written(folder / "table.md", markdown_table(lines))
        data = _data(checked, results, lines, failures)
        file = _written(folder / "results.json", json.dumps(data, indent=1) + "\n")
        page = _written(folder / "index.html", _page(checked, results, lines, data, sheets))
    except OSError as error:
        raise FaultError(
            f"Writing to {folder} failed ({error.strerror or error}); check its permissions and "
            "the free space, then run the evaluation again."
        ) from error
    passed = tuple(name for name, failed in failures.items() if not failed)
    return Report(file, table, page, sheets, tuple(lines), passed)


def _data(
    checked: CheckedAblation,
    results: Sequence[ClipResult],
    lines: list[dict[str, Any]],
    failures: dict[str, bool],
) -> dict[str, Any]:
    return {
        "suite": "ablation",
        "metrics_version": VERSION,
        "configuration": checked.configuration(),
        "versions": {"python": platform.python_version(), **_versions()},
        "cases": [asdict(case) for case in checked.cases],
        "rows": [
            {"row": row.name, "title": row.title, "switches": dict(row.switches)}
            for row in checked.rows
        ],
        "told_from_path": {"rotation": TOLD_ROTATION, "translation": TOLD_TRANSLATION},
        "means": lines,
        "controls_fail": failures,
        "clips": [asdict(result) for result in results],
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _written(file: Path, text: str) -> Path:
    with replacing(file) as partial:
        partial.write_text(text, encoding="utf-8")
    return file


def _sheet(checked: CheckedAblation, case: Case) -> Path:
    """All rows' frames of one clip, one strip a row."""
    strips = []
    for row in checked.rows:
        with Image.open(checked.file(row, case).with_suffix(".jpg")) as picture:
            height = max(1, round(picture.height * _SHEET_WIDTH / picture.width))
            small = picture.convert("RGB").resize((_SHEET_WIDTH, height), Image.Resampling.LANCZOS)
            strips.append(np.array(small))
    file = checked.request.folder / f"sheet-{case.name}.png"
    write_picture(file, contact_sheet(strips, 1, [row.title for row in checked.rows]))
    return file


def _page(
    checked: CheckedAblation,
    results: Sequence[ClipResult],
    lines: list[dict[str, Any]],
    data: dict[str, Any],
    sheets: Sequence[Path],
) -> str:
    """One page that needs no other file."""
    facts = {**data["configuration"], **data["versions"]}
    heads = "".join(f"<th>{escape(column.title)}</th>" for column in COLUMNS)
    body = "".join(
        f'<tr class="{line["kind"]}"><td>{escape(line["title"])}</td>'
        + "".join(f"<td>{escape(text)}</td>" for text in cells(line))
        + "</tr>"
        for line in lines
    )
    pictures = "".join(
        f"<h3>{escape(case.kind)} {case.seed}: {escape(case.path)}</h3>"
        f'<img alt="{escape(case.name)}" src="{_embedded(sheet)}">'
        for case, sheet in zip(checked.cases, sheets, strict=True)
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>Ablation</title><style>{_STYLE}</style></head><body>"
        f"<h1>Ablation of the camera method</h1><p>{len(checked.cases)} held-out clips of "
        f"{33 * checked.request.chunks} frames, geometry {escape(checked.request.geometry)}.</p>"
        f"<table><tr><th>row</th>{heads}</tr>{body}</table>"
        f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in NOTES)}</ul>"
        f'<div class="plots">{"".join(_plots(checked.rows, results))}</div>'
        f"<h2>Frames</h2>{pictures}"
        f"<h2>Made with</h2><p>{escape(', '.join(f'{k} {v}' for k, v in facts.items()))}</p>"
        "</body></html>\n"
    )


def _plots(rows: Sequence[Row], results: Sequence[ClipResult]) -> list[str]:
    """Errors of generated rows and the warp over frames, means of all clips."""
    shown = [row for row in rows if row.kind == "generated" or row.name == "warp"]
    if not shown:
        return []
    plots = []
    for field, title in (
        ("frame_rotation", "R-Err (deg)"),
        ("frame_translation", "T-Err (% of median depth)"),
    ):
        curves = {
            row.title: np.mean(
                [getattr(r, field) for r in results if r.row == row.name], 0
            ).tolist()
            for row in shown
        }
        plots.append(line_chart(title, "frame", curves, first=1))
    return plots


def _embedded(picture: Path) -> str:
    """A picture as a data address (JPEG, for size)."""
    with Image.open(picture) as opened:
        held = io.BytesIO()
        opened.convert("RGB").save(held, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(held.getvalue()).decode()
