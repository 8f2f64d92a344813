"""The page of a study: tables, checks of the measures, curves and pictures in one HTML file that
needs no other."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from flythrough.evaluation.chart import line_chart
from flythrough.evaluation.columns import notes
from flythrough.evaluation.measures import Figures
from flythrough.evaluation.study import Study, Track
from flythrough.evaluation.table import cells
from flythrough.evaluation.verdicts import Verdict

_STYLE = (
    "body{font:15px/1.5 sans-serif;color:#262b36;max-width:1180px;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;font-size:14px}td,th{padding:4px 10px;text-align:right;"
    "border-bottom:1px solid #e0e3e9}td:first-child,th:first-child{text-align:left}"
    ".wide{overflow-x:auto}tr.control td{color:#68707e}tr.reference td{background:#f7f8fa}"
    "tr.generated td{font-weight:600}tr.bad td{background:#fde8e8}img{max-width:100%}"
    ".plots{display:flex;flex-wrap:wrap;gap:16px}"
)
_PLOTTED_REFERENCES = ("truth", "codec", "warp")


def page(
    study: Study,
    own: Mapping[str, Sequence[Figures]],
    lines: Mapping[str, list[dict[str, Any]]],
    found: Sequence[tuple[str, Verdict]],
    sheets: Mapping[str, Path],
    data: Mapping[str, Any],
) -> str:
    """The whole document.

    Args:
        own, lines: figures and lines of the table by track; ``sheets`` pictures by clip.
        found: tracks and what was found about the measures there.
        data: what results.json holds.
    """
    facts = {**data["configuration"], **data["versions"]}
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(study.title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(study.title)}</h1>",
        *(f"<p>{escape(text)}</p>" for text in study.about),
    ]
    if len(study.tracks) > 1:
        parts.append(f"<p>{_verdict_sentence(found)}</p>")
    for track in study.tracks:
        if len(study.tracks) > 1:
            parts.append(f"<h2>{escape(track.title)}</h2>")
        parts.append(_table(track, lines[track.name]))
        plots = "".join(_plots(track, own[track.name]))
        parts.append(f'<div class="plots">{plots}</div>')
    if found:
        parts.append("<h2>Do the measures see what they are there to see?</h2>" + _checks(found))
    parts.append("<h2>Frames</h2>")
    for case in study.cases:
        if case.name in sheets:
            parts.append(
                f"<h3>{escape(case.name)}: {escape(case.path)}</h3>"
                f'<img alt="{escape(case.name)}" src="{_embedded(sheets[case.name])}">'
            )
    if study.not_run:
        listed = "".join(f"<li>{escape(text)}</li>" for text in study.not_run)
        parts.append(f"<h2>Not run here</h2><ul>{listed}</ul>")
    made = escape(", ".join(f"{name} {value}" for name, value in facts.items()))
    parts.append(f"<h2>Made with</h2><p>{made}</p></body></html>\n")
    return "".join(parts)


def _table(track: Track, lines: Sequence[dict[str, Any]]) -> str:
    heads = "".join(f"<th>{escape(column.title)}</th>" for column in track.columns)
    body = "".join(
        f'<tr class="{line["kind"]}"><td>{escape(line["title"])}</td>'
        + "".join(f"<td>{escape(text)}</td>" for text in cells(line, track.columns))
        + "</tr>"
        for line in lines
    )
    listed = "".join(f"<li>{escape(text)}</li>" for text in notes(track.columns))
    clips = f"Means over {len(track.cases)} clip{'s' if len(track.cases) > 1 else ''}."
    return (
        f'<div class="wide"><table><tr><th>row</th>{heads}</tr>{body}</table></div>'
        f"<ul><li>{clips}</li>{listed}</ul>"
    )


def _verdict_sentence(found: Sequence[tuple[str, Verdict]]) -> str:
    wrong = [v for _, v in found if not v.as_it_must]
    if not found:
        return "No controls were made, so nothing shows that the measures see anything."
    if not wrong:
        return f"All {len(found)} checks of the measures came out as they must."
    names = escape(", ".join(f"{v.row} ({v.check})" for v in wrong))
    return (
        f"{len(wrong)} of {len(found)} checks of the measures did NOT come out as they must: "
        f"{names}. Do not trust these measures here."
    )


def _checks(found: Sequence[tuple[str, Verdict]]) -> str:
    rows = []
    for track, verdict in found:
        figures = ", ".join(f"{name} {value:g}" for name, value in verdict.figures.items())
        must = "passes" if verdict.row == "truth" else "fails"
        answer = f"it {must}" if verdict.as_it_must else f"NO: it must, and does not ({must})"
        rows.append(
            f'<tr class="{"good" if verdict.as_it_must else "bad"}"><td>{escape(verdict.title)}'
            f"</td><td>{escape(track)}</td><td>{escape(verdict.check)}</td>"
            f"<td>{escape(verdict.rule)}</td><td>{escape(figures)}</td><td>{verdict.clips}</td>"
            f"<td>{answer}</td></tr>"
        )
    heads = "<th>row</th><th>track</th><th>check</th><th>fails if</th><th>found</th>"
    return (
        "<p>Every control is wrong in one known way and must fail the measures named; the exact "
        "render must pass them all. A control that equals the path on a clip is left out there.</p>"
        f'<div class="wide"><table><tr>{heads}<th>clips</th><th>answer</th></tr>'
        f"{''.join(rows)}</table></div>"
    )


def _plots(track: Track, own: Sequence[Figures]) -> list[str]:
    """Curves of generated rows and references, means of all clips."""
    rows = [r for r in track.rows if r.kind == "generated" or r.name in _PLOTTED_REFERENCES]
    plots = []
    for curve, title in track.plots:
        across, first = ("frames away", 0) if curve.startswith("revisit") else ("frame", 1)
        drawn = {}
        for row in rows:
            mine = [result for result in own if result.row == row.name]
            line = _over_away(mine) if curve == "revisit_psnr" else _mean(mine, curve)
            if any(value is not None for value in line):
                drawn[row.title] = line
        if drawn:
            plots.append(line_chart(title, across, drawn, first=first))
    return plots


def _mean(results: Sequence[Figures], curve: str) -> list[float | None]:
    """Mean over clips of a curve, frame by frame, over the clips that have a value there."""
    lines = [result.curves[curve] for result in results if curve in result.curves]
    longest = max((len(line) for line in lines), default=0)
    return [_known_mean([line[i] for line in lines if i < len(line)]) for i in range(longest)]


def _over_away(results: Sequence[Figures]) -> list[float | None]:
    """Revisit by frames away; None where no pair of frames is so far apart."""
    found: dict[int, list[float | None]] = {}
    for result in results:
        away = result.curves.get("revisit_away", ())
        for frames, value in zip(away, result.curves.get("revisit_psnr", ()), strict=True):
            found.setdefault(int(frames or 0), []).append(value)
    return [_known_mean(found.get(i, [])) for i in range(max(found, default=-1) + 1)]


def _known_mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _embedded(picture: Path) -> str:
    """A picture as a data address (JPEG, for size)."""
    with Image.open(picture) as opened:
        held = io.BytesIO()
        opened.convert("RGB").save(held, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(held.getvalue()).decode()
