"""Folders of monocular depth networks in the layout of transformers: what they are. No torch.

Only networks are taken whose output has a known meaning, because a configuration does not state it:
Depth Pro and Depth Anything (V1 and V2).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flythrough.disk import read_json
from flythrough.errors import WeightsError
from flythrough.models.hub import find_local
from flythrough.models.licences import Licence, licence_of_entry, stated_licence
from flythrough.models.parts import missing_files
from flythrough.models.published import ENTRIES, MONOCULAR_NAMES

Meaning = Literal["canonical-inverse", "relative-inverse", "metres"]

DEPTH_CLASSES = {
    "depth_pro": "DepthProForDepthEstimation",
    "depth_anything": "DepthAnythingForDepthEstimation",
}
"""The class of each ``model_type`` that can be used."""

_SMALL_WIDTH = 384  # Depth Anything V2 Small, the only one of its family free for all uses


@dataclass(frozen=True)
class MonocularFolder:
    """A folder that holds all its files.

    Attributes:
        name: what messages call it.
        config: ``config.json``.
        meaning: of the output. "canonical-inverse": 1/metres at a focal length of one picture
            width; "relative-inverse": inverse depth up to scale and shift; "metres": z-depth.
        licence: of the weights, as far as known.
    """

    name: str
    path: Path
    config: dict[str, Any]
    meaning: Meaning
    licence: Licence | None

    @property
    def metric(self) -> bool:
        """Whether depth comes in metres."""
        return self.meaning != "relative-inverse"


def find_monocular(name_or_folder: str) -> MonocularFolder:
    """The network of a name in ``models list``, or of a folder.

    Raises:
        WeightsError: it is not on this machine, not complete, or its output's meaning is unknown.
    """
    if name_or_folder not in MONOCULAR_NAMES:
        return _read(name_or_folder, Path(name_or_folder).expanduser(), None)
    entry = ENTRIES[name_or_folder]
    local = find_local(entry)
    if local is None or not local.complete:
        state = "not" if local is None else "only in part"
        raise WeightsError(
            f"The geometry {entry.name} (licence {entry.licence}) is {state} on this machine; run "
            f"`flythrough models pull {entry.name}`, or give the folder it lies in."
        )
    return _read(entry.name, local.path, licence_of_entry(entry))


def _read(name: str, folder: Path, licence: Licence | None) -> MonocularFolder:
    if not (folder / "config.json").is_file():
        raise WeightsError(
            f"The geometry folder {folder} holds no config.json; give a folder with config.json "
            "and model.safetensors of a depth network."
        )
    try:
        config = read_json(folder / "config.json")
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(
            f"{folder / 'config.json'} cannot be read ({error}); restore the file."
        ) from error
    kind = config.get("model_type")
    if kind not in DEPTH_CLASSES:
        raise WeightsError(
            f"The geometry folder {folder} holds a {kind or config.get('_class_name')!r} network, "
            f"whose depth has no meaning known here; give one of {', '.join(DEPTH_CLASSES)}."
        )
    if faults := missing_files(folder, "depth"):
        raise WeightsError(
            f"The geometry folder {folder} is not whole ({'; '.join(faults)}); download it again."
        )
    return MonocularFolder(
        name,
        folder,
        config,
        meaning_of(config),
        licence or stated_licence(folder) or _usual(config),
    )


def meaning_of(config: dict[str, Any]) -> Meaning:
    """What the output of a network means that its configuration describes."""
    if config["model_type"] == "depth_pro":
        return "canonical-inverse"
    metric = config.get("depth_estimation_type", "relative") == "metric"
    return "metres" if metric else "relative-inverse"


def _usual(config: dict[str, Any]) -> Licence | None:
    """That of the published weights of this kind, where the folder itself states none."""
    if config["model_type"] == "depth_pro":
        return Licence("apple-amlr", assumed=True)
    wide = int(config.get("reassemble_hidden_size", _SMALL_WIDTH)) > _SMALL_WIDTH
    return Licence("CC-BY-NC-4.0", assumed=True) if wide else None
