"""What a folder of the streaming geometry network holds, without loading it. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flythrough.disk import read_json
from flythrough.errors import InputError, WeightsError
from flythrough.models.geometry_config import config_from_dict
from flythrough.models.licences import Licence, stated_licence
from flythrough.models.parts import missing_files
from flythrough.models.ttt3r_config import TTT3RConfig

CLASS_NAME = "TTT3R"
LICENCE = "CC-BY-NC-SA-4.0"
"""Of the published CUT3R weights, which TTT3R uses unchanged."""


@dataclass(frozen=True)
class StreamingFolder:
    """A folder that holds all its files, and the licence of its weights as far as known."""

    path: Path
    config: TTT3RConfig
    licence: Licence | None


def is_streaming_folder(folder: Path) -> bool:
    """Whether ``config.json`` in ``folder`` names this network."""
    try:
        return read_json(folder / "config.json").get("_class_name") == CLASS_NAME
    except (OSError, ValueError, TypeError, AttributeError):
        return False


def find_streaming(folder: str | Path) -> StreamingFolder:
    """Look at a folder without loading its weights.

    Raises:
        WeightsError: it is not whole, or its configuration describes no such network.
    """
    path = Path(folder).expanduser()
    if faults := missing_files(path, "geometry"):
        raise WeightsError(
            f"The geometry folder {path} is not whole ({'; '.join(faults)}); give config.json with "
            f'"_class_name": "{CLASS_NAME}" and model.safetensors.'
        )
    try:
        config = config_from_dict(TTT3RConfig, read_json(path / "config.json"))
    except (OSError, ValueError, TypeError, InputError) as error:
        raise WeightsError(
            f"{path / 'config.json'} is no geometry configuration ({error}); restore the file."
        ) from error
    published = Licence(LICENCE, assumed=True) if config == TTT3RConfig() else None
    return StreamingFolder(path, config, stated_licence(path) or published)
