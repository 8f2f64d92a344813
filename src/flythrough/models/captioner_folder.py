"""Folders of vision-language models that describe pictures: where they are. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flythrough.disk import read_json
from flythrough.errors import WeightsError
from flythrough.models.hub import find_local
from flythrough.models.parts import weights_of
from flythrough.models.published import CAPTIONER_NAMES, ENTRIES

MODEL_TYPE = "qwen2_5_vl"


@dataclass(frozen=True)
class CaptionerFolder:
    """A folder that holds configuration, tokenizer and weights; ``name`` is for messages."""

    name: str
    path: Path


def find_captioner(name_or_folder: str) -> CaptionerFolder:
    """The model of a name in ``models list``, or of a folder.

    Raises:
        WeightsError: it is not on this machine, not complete, or of another kind.
    """
    if name_or_folder not in CAPTIONER_NAMES:
        return _read(name_or_folder, Path(name_or_folder).expanduser())
    entry = ENTRIES[name_or_folder]
    local = find_local(entry)
    if local is None or not local.complete:
        state = "not" if local is None else "only in part"
        raise WeightsError(
            f"The captioner {entry.name} is {state} on this machine; run `flythrough models pull "
            f"{entry.name}`, give the folder it lies in, or drop --caption and give --prompt."
        )
    return _read(entry.name, local.path)


def _read(name: str, folder: Path) -> CaptionerFolder:
    try:
        kind = read_json(folder / "config.json").get("model_type")
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(
            f"--caption {name} is neither {' nor '.join(CAPTIONER_NAMES)} nor a folder with a "
            f"readable config.json ({type(error).__name__}); name one, or drop it."
        ) from error
    if kind != MODEL_TYPE:
        raise WeightsError(
            f"The captioner folder {folder} holds a {kind!r} model but {MODEL_TYPE!r} is needed; "
            "give a folder of Qwen2.5-VL, or drop --caption."
        )
    faults = list(weights_of(folder, "model").faults)
    if not any((folder / file).is_file() for file in ("tokenizer.json", "vocab.json")):
        faults.append("tokenizer.json is missing")
    if faults:
        raise WeightsError(
            f"The captioner folder {folder} is not whole ({'; '.join(faults)}); download it again."
        )
    return CaptionerFolder(name, folder)
