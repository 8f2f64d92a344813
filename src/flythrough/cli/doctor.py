"""``flythrough doctor``: what this machine has, what the model needs, what to expect."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from flythrough.cli.output import emit


def doctor(
    *,
    model: Annotated[str, Parameter(help="'nano', a pulled model, or a model folder.")] = "nano",
) -> None:
    """Check packages, devices, memory and the model folder before a run.

    The exit status is 1 when something is not good enough.
    """
    from flythrough.engine.doctor import examine
    from flythrough.errors import FaultError

    report = examine(model)
    lines = [f"{'ok  ' if row.good else 'FAIL'} {row.name}: {row.found}" for row in report.rows]
    verdict = "ready" if report.good else "not ready: see the lines marked FAIL"
    emit(
        {"ready": report.good, **{row.name: row.found for row in report.rows}},
        "\n".join([*lines, verdict]),
    )
    if not report.good:
        bad = ", ".join(row.name for row in report.rows if not row.good)
        raise FaultError(f"This machine is not ready ({bad}); see the lines marked FAIL.")
