"""The rows of the ablation: what is switched off in each, references, and controls that must fail.

Loads nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from flythrough.errors import InputError

Kind = Literal["reference", "generated", "control"]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    ``switches`` are fields of a ``GenerateRequest`` in which a generated row differs from the full
    method with the adapter, and ``warp_stages`` the pyramid stages that see the warp, where these
    are not the model's own; ``camera`` is False where the path is not told to the model.
    """

    name: str
    title: str
    kind: Kind
    switches: Mapping[str, Any] = field(default_factory=dict)
    camera: bool = True


_ZERO_SHOT = {"lora": "off"}

ROWS = (
    Row("truth", "exact render", "reference"),
    Row("codec", "exact render through the codec", "reference"),
    Row("warp", "warp only", "reference"),
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
    Row("still", "control: copy of the photo", "control"),
    Row("half", "control: path at half scale", "control"),
    Row("reversed", "control: every move reversed", "control"),
    Row("shifted", "control: path eight frames late", "control"),
    Row("shuffled", "control: 30 % of the frames shuffled", "control"),
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
