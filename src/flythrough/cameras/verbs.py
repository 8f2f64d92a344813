"""The verbs of the path language: their directions, what their amounts count, what they do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

Axis = tuple[int, int, int]
Kind = Literal["length", "angle", "factor", "seconds"]


@dataclass(frozen=True)
class Verb:
    """A move by an amount.

    Attributes:
        kind: what the amount is.
        example: an amount of that kind.
        axes: by direction, where a straight move goes or what a turn turns about (x right, y down,
            z forward); the direction of a verb that takes none is "".
        assumed: the direction of a step that names none; "": it must be named.
    """

    kind: Kind
    example: str
    summary: str
    axes: Mapping[str, Axis] = field(default_factory=dict)
    assumed: str = ""

    @property
    def directions(self) -> tuple[str, ...]:
        """The words that may follow the verb."""
        return tuple(word for word in self.axes if word)


VERBS: MappingProxyType[str, Verb] = MappingProxyType(
    {
        "forward": Verb("length", "0.5", "straight ahead", {"": (0, 0, 1)}),
        "backward": Verb("length", "0.5", "straight back", {"": (0, 0, -1)}),
        "left": Verb("length", "0.3", "sideways, looking ahead", {"": (-1, 0, 0)}),
        "right": Verb("length", "0.3", "sideways, looking ahead", {"": (1, 0, 0)}),
        "up": Verb("length", "0.2", "straight up, looking ahead", {"": (0, -1, 0)}),
        "down": Verb("length", "0.2", "straight down, looking ahead", {"": (0, 1, 0)}),
        "dolly": Verb("length", "0.5", "forward or backward", {"in": (0, 0, 1), "out": (0, 0, -1)}),
        "truck": Verb("length", "0.3", "left or right", {"left": (-1, 0, 0), "right": (1, 0, 0)}),
        "crane": Verb("length", "0.2", "up or down", {"up": (0, -1, 0), "down": (0, 1, 0)}),
        "pedestal": Verb("length", "0.2", "up or down", {"up": (0, -1, 0), "down": (0, 1, 0)}),
        "pan": Verb(
            "angle",
            "20deg",
            "turn on the spot to a side",
            {"left": (0, -1, 0), "right": (0, 1, 0)},
        ),
        "tilt": Verb(
            "angle", "15deg", "turn on the spot up or down", {"up": (1, 0, 0), "down": (-1, 0, 0)}
        ),
        "roll": Verb(
            "angle",
            "5deg",
            "lean; to the right if not said",
            {"left": (0, 0, -1), "right": (0, 0, 1), "ccw": (0, 0, -1), "cw": (0, 0, 1)},
            assumed="right",
        ),
        "orbit": Verb(
            "angle",
            "30deg",
            "circle the subject, kept in the middle",
            {"left": (0, 1, 0), "right": (0, -1, 0)},
        ),
        "zoom": Verb("factor", "1.2x", "above 1 closer, below 1 wider"),
        "hold": Verb("seconds", "1s", "stand still"),
    }
)
"""Some names (``crane``, ``orbit``) are presets too: verbs when a direction follows."""
