"""Does every measure see what it is there to see? Controls must fail it, the exact render pass it.

A measure that a spoilt video passes proves nothing about a good one, so each control names the
measures that have to tell it from the truth, and the report says of each whether it did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flythrough.evaluation.measures import Figures
from flythrough.evaluation.rows import Row

TOLD_ROTATION, TOLD_TRANSLATION = 1.0, 2.5
"""Degrees and percent of the median depth from which on a control counts as told from the path:
five times what the exact render scores after a pass through nano's codec (0.2 and 0.5)."""


@dataclass(frozen=True)
class Limit:
    """A video fails a measure where its figure is ``at_least`` or ``at_most`` so much; the limits
    lie clearly beyond what exact renders score."""

    field: str
    at_least: float | None = None
    at_most: float | None = None

    def failed_by(self, value: float | None) -> bool:
        if value is None:
            return False
        return (self.at_least is not None and value >= self.at_least) or (
            self.at_most is not None and value <= self.at_most
        )

    def __str__(self) -> str:
        if self.at_least is not None and self.at_most is not None:
            return f"{self.field} at most {self.at_most:g} or at least {self.at_least:g}"
        side, value = ("least", self.at_least) if self.at_most is None else ("most", self.at_most)
        return f"{self.field} at {side} {value:g}"


LIMITS: dict[str, tuple[Limit, ...]] = {
    "camera": (
        Limit("rotation", at_least=TOLD_ROTATION),
        Limit("translation", at_least=TOLD_TRANSLATION),
    ),
    "epipolar": (Limit("epipolar", at_least=0.75),),
    "length": (Limit("length_ratio", at_least=1.33, at_most=0.75),),
    "failures": (Limit("failure_rate", at_least=0.5),),
    "pixels": (Limit("psnr_visible", at_most=25.0),),
    "whole": (Limit("psnr", at_most=25.0),),
    "invention": (Limit("detail_disoccluded", at_most=0.6),),
    "detail": (Limit("detail", at_most=0.7),),
    "motion": (Limit("motion", at_most=0.5),),
    "flicker": (Limit("flicker", at_least=2.0),),
    "seam": (Limit("seam", at_least=1.4),),
    "drift": (Limit("drift", at_least=3.0),),
    "fading": (Limit("drift_detail", at_most=-20.0),),
    "revisit": (Limit("revisit", at_most=24.0),),
}
"""What it means to fail each check; one of several limits is enough."""


@dataclass(frozen=True)
class Verdict:
    """Whether ``row``, a control, failed ``check`` as it must (a reference: passed it), on
    ``clips`` clips; ``figures`` are the means it rests on."""

    row: str
    title: str
    check: str
    rule: str
    figures: dict[str, float]
    clips: int
    as_it_must: bool


def verdicts(results: Sequence[Figures], rows: Sequence[Row]) -> list[Verdict]:
    """All checks of all controls, and of the exact render all checks that controls are held to.

    A check without a figure on any clip (no depth, no loop, a single chunk) is left out.
    """
    controls = [row for row in rows if row.kind == "control"]
    held = dict.fromkeys(check for row in controls for check in row.told_by)
    found = []
    for row in rows:
        reference = row.name == "truth"
        own = [result for result in results if result.row == row.name]
        for check in held if reference else row.told_by:
            verdict = _verdict(row, check, own, must_fail=not reference)
            if verdict is not None:
                found.append(verdict)
    return found


def _verdict(row: Row, check: str, own: Sequence[Figures], must_fail: bool) -> Verdict | None:
    figures, clips = {}, 0
    for limit in LIMITS[check]:
        known = [v for v in (one.values.get(limit.field) for one in own) if v is not None]
        if known:
            figures[limit.field] = round(sum(known) / len(known), 3)
            clips = max(clips, len(known))
    if not figures:
        return None
    failed = any(limit.failed_by(figures.get(limit.field)) for limit in LIMITS[check])
    rule = " or ".join(str(limit) for limit in LIMITS[check])
    return Verdict(row.name, row.title, check, rule, figures, clips, failed == must_fail)
