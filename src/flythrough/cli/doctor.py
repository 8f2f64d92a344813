"""``flythrough doctor``: what this machine has, what the model needs, what to expect."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from flythrough.cli.output import emit


def doctor(
    *,
    model: Annotated[str, Parameter(help="'nano' (bundled) or a model folder.")] = "nano",
) -> None:
    """Check packages, devices, memory and the model folder before a run."""
    from flythrough.engine.doctor import examine

    report = examine(model)
    lines = [f"{'ok  ' if row.good else 'FAIL'} {row.name}: {row.found}" for row in report.rows]
    verdict = "ready" if report.good else "not ready: see the lines marked FAIL"
    emit(
        {"ready": report.good, **{row.name: row.found for row in report.rows}},
        "\n".join([*lines, verdict]),
    )
