"""Rows of tables: what is switched off in each, references, and controls that must fail.

Loads nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from flythrough.errors import InputError
from flythrough.rollout.chunk import CHUNK_FRAMES

Kind = Literal["reference", "generated", "control"]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    ``switches`` are fields of a ``GenerateRequest`` in which a generated row differs from the full
    method with the adapter, and ``warp_stages`` the pyramid stages that see the warp, where these
    are not the model's own; ``camera`` is False where the path is not told to the model;
    ``told_by`` the checks (``verdicts.LIMITS``) that a control has to fail; ``chunk`` the frames
    of a chunk for the seam figure, None where nobody knows, the first ``overlap`` of which (but in
    the first chunk) lie before the border.
    """

    name: str
    title: str
    kind: Kind
    switches: Mapping[str, Any] = field(default_factory=dict)
    camera: bool = True
    told_by: tuple[str, ...] = ()
    chunk: int | None = CHUNK_FRAMES
    overlap: int = 0

    def borders(self, count: int) -> tuple[int, ...]:
        """The first frames of later chunks in a video of ``count`` frames."""
        if self.chunk is None:
            return ()
        return tuple(range(self.chunk, count, self.chunk - self.overlap))


_ZERO_SHOT = {"lora": "off"}

CONTROLS = (
    Row("still", "control: copy of the photo", "control", told_by=("camera", "motion", "pixels")),
    Row("fade", "control: cross-fade from first to last frame", "control",
        told_by=("camera", "pixels")),
    Row("flat", "control: photo as a flat picture moved along", "control", told_by=("camera",)),
    Row("half", "control: path at half scale", "control", told_by=("camera", "length", "pixels")),
    Row("double", "control: path at double scale", "control", told_by=("camera", "pixels")),
    Row("mirrored", "control: left and right exchanged", "control",
        told_by=("camera", "pixels")),
    Row("askew", "control: path turned by 90 degrees", "control",
        told_by=("camera", "epipolar", "pixels")),
    Row("reversed", "control: every move reversed", "control", told_by=("camera", "pixels")),
    Row("shifted", "control: path eight frames late", "control", told_by=("camera",)),
    Row("shuffled", "control: 30 % of the frames shuffled", "control",
        told_by=("camera", "flicker")),
    Row("other", "control: another world along the path", "control",
        told_by=("failures", "pixels")),
    Row("flickering", "control: every other frame brighter", "control", told_by=("flicker",)),
    Row("soft", "control: exact render, blurred", "control", told_by=("detail",)),
    Row("fading", "control: exact render that fades over time", "control",
        told_by=("drift", "fading")),
    Row("jumping", "control: colours jump where chunks meet", "control", told_by=("seam",)),
    Row("forgetful", "control: another world after the turn", "control", told_by=("revisit",)),
)  # fmt: skip
"""Spoilt videos and what has to see through them; ``controls.made`` makes them."""

TRUTH = Row("truth", "exact render", "reference")
CODEC = Row("codec", "exact render through the codec", "reference")
WARP = Row("warp", "warp only", "reference")
WARP_CONTROL = Row("warp", "control: warp only, nothing generated", "control",
                   told_by=("invention",))  # fmt: skip
FULL = Row("full", "model", "generated")
GIVEN = Row("given", "videos", "generated", chunk=None)

_OF_ABLATION = ("still", "half", "reversed", "shifted", "shuffled")


def controls(*names: str) -> tuple[Row, ...]:
    """The controls of these names, in the order given."""
    known = {row.name: row for row in CONTROLS}
    return tuple(known[name] for name in names)


ROWS = (
    TRUTH,
    CODEC,
    WARP,
    Row("plain", "plain history, no camera", "generated", camera=False),
    Row("zero-shot", "zero-shot, full", "generated", _ZERO_SHOT),
    Row("zero-shot-no-align", "zero-shot, no target alignment", "generated",
        {**_ZERO_SHOT, "align": False}),
    Row("zero-shot-no-select", "zero-shot, no visible-token selection", "generated",
        {**_ZERO_SHOT, "select": False}),
    Row("zero-shot-coarse", "zero-shot, warp in the coarsest stage alone", "generated",
        {**_ZERO_SHOT, "warp_stages": 1}),
    Row("full", "adapter, full", "generated"),
    Row("full-no-align", "adapter, no target alignment", "generated", {"align": False}),
    Row("full-no-select", "adapter, no visible-token selection", "generated", {"select": False}),
    *(row for row in CONTROLS if row.name in _OF_ABLATION),
)  # fmt: skip

ROW_NAMES = tuple(row.name for row in ROWS)


def chosen_rows(names: Sequence[str] | None) -> tuple[Row, ...]:
    """The rows of these names in the order of the table; all for None.

    Raises:
        InputError: an unknown name, or none at all.
    """
    if names is None:
        return ROWS
    unknown = [name for name in names if name not in ROW_NAMES]
    if unknown or not names:
        what = f"The row {unknown[0]!r} is unknown" if unknown else "No row was named"
        raise InputError(f"{what}; choose among {', '.join(ROW_NAMES)}.")
    return tuple(row for row in ROWS if row.name in names)
