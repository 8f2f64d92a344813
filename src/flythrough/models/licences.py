"""What may be done with weights: licences as their publishers state them. Imports no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from flythrough.models.published import ENTRIES, Entry

_NOT_COMMERCIAL = re.compile(r"(^|-)nc(-|$)|non-?commercial|not commercial|amlr", re.IGNORECASE)
_HEADER = re.compile(r"\A---\s*\n(.*?)\n---", re.DOTALL)
_LINE = re.compile(r"^(license(?:_name)?):[ \t]*[\"']?([^\s\"'#]+)", re.MULTILINE)
_LONGEST_CARD = 1 << 20


@dataclass(frozen=True)
class Licence:
    """A licence by name; ``assumed`` when it is that of the published weights of the same kind,
    because the files at hand state none."""

    name: str
    assumed: bool = False

    @property
    def commercial(self) -> bool:
        """Whether nothing in the name rules out commercial use."""
        return _NOT_COMMERCIAL.search(self.name) is None

    def note(self, what: str) -> str | None:
        """A sentence for the user when commercial use is ruled out, else None."""
        if self.commercial:
            return None
        if self.assumed:
            return (
                f"{what} states no licence: the published weights of its kind are under "
                f"{self.name}, which rules out commercial use."
            )
        return f"{what} is under {self.name}, which rules out commercial use."


def licence_of_entry(entry: Entry) -> Licence:
    """The licence of a model in the table."""
    return Licence(entry.licence.partition(" (")[0])


def stated_licence(folder: Path) -> Licence | None:
    """The licence in the header of a folder's model card (README.md), if it has one."""
    try:
        with (folder / "README.md").open(encoding="utf-8", errors="replace") as file:
            header = _HEADER.match(file.read(_LONGEST_CARD))
    except OSError:
        return None
    found = dict(_LINE.findall(header.group(1))) if header else {}
    name = found.get("license")
    name = found.get("license_name", name) if name == "other" else name
    return Licence(name) if name else None


def pi3x_licence(folder: Path) -> Licence | None:
    """The licence of a Pi3X folder: stated, or that of the published weights if it holds those.

    The published weights come without a configuration.
    """
    stated = stated_licence(folder)
    if stated is not None or (folder / "config.json").is_file():
        return stated
    return Licence(licence_of_entry(ENTRIES["pi3x"]).name, assumed=True)
