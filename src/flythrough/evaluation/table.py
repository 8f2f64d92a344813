"""Figures of many clips in one table: a mean for each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flythrough.evaluation.columns import Column
from flythrough.evaluation.measures import Figures
from flythrough.evaluation.rows import Row


def means(
    results: Sequence[Figures], rows: Sequence[Row], columns: Sequence[Column]
) -> list[dict[str, Any]]:
    """One line a row: its mean over the clips in which a figure is defined, None where in none."""
    lines = []
    for row in rows:
        own = [result for result in results if result.row == row.name]
        line: dict[str, Any] = {"row": row.name, "title": row.title, "kind": row.kind}
        line["clips"] = len(own)
        for field in dict.fromkeys([*(column.field for column in columns), "seconds"]):
            values = [
                result.seconds if field == "seconds" else result.values.get(field) for result in own
            ]
            known = [value for value in values if value is not None]
            line[field] = round(sum(known) / len(known), 4) if known else None
        lines.append(line)
    return lines


def cells(line: dict[str, Any], columns: Sequence[Column]) -> list[str]:
    """The texts of one line, in the order of ``columns``."""
    return [column.text(line[column.field]) for column in columns]


def markdown_table(lines: Sequence[dict[str, Any]], columns: Sequence[Column]) -> str:
    """The table as Markdown."""
    titles = ["row", *(column.title for column in columns)]
    text = [f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]
    text += [f"| {' | '.join([line['title'], *cells(line, columns)])} |" for line in lines]
    return "\n".join(text) + "\n"
