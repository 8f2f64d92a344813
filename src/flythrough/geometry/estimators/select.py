"""An estimator by name, by depth file or by 3D file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flythrough.errors import GeometryError
from flythrough.geometry.estimator import Estimator
from flythrough.geometry.estimators.files import DEPTH_SUFFIXES, read_depth
from flythrough.geometry.estimators.flat import FlatDepth
from flythrough.geometry.estimators.shape_files import read_shape
from flythrough.geometry.estimators.words import is_shape

NETWORK_NAMES = ("default", "pi3x")
_CHOICES = (
    "default (the model's own network), pi3x, depth-pro, depth-anything (also with -base, -large, "
    "-metric or -metric-outdoor), flat, a depth file (.npy, .npz, .png), a 3D file (.ply, .obj, "
    ".glb), or the folder of a depth network"
)


def check_geometry_choice(name_or_file: str) -> None:
    """Refuse what is neither a known name nor a readable file, before anything is loaded.

    Raises:
        GeometryError: unknown, or a file that cannot be used.
    """
    if name_or_file not in (*NETWORK_NAMES, "flat"):
        _from_file(name_or_file)


def load_estimator(
    name_or_file: str,
    model_folder: Path | None = None,
    *,
    network: Callable[[Path], Estimator] | None = None,
) -> Estimator:
    """The estimator that ``name_or_file`` asks for.

    Args:
        name_or_file: ``default`` or ``pi3x``: the network in ``model_folder``; ``flat``: a wall at
            depth 1; otherwise the path of a depth file or a 3D file.
        model_folder: a model folder with a ``geometry`` folder inside.
        network: loads the network of such a folder. It is handed in because networks live in a
            layer above this one.

    Raises:
        GeometryError: an unknown name, an unusable file, or a network that is not there.
    """
    if name_or_file == "flat":
        return FlatDepth()
    if name_or_file not in NETWORK_NAMES:
        return _from_file(name_or_file)
    folder = None if model_folder is None else model_folder / "geometry"
    if network is None or folder is None or not folder.is_dir():
        place = "no model folder" if model_folder is None else str(model_folder)
        raise GeometryError(
            f"The geometry {name_or_file!r} needs a network but there is none in {place}; choose "
            "another model, flat, or a depth file."
        )
    return network(folder)


def _from_file(path: str) -> Estimator:
    if is_shape(path):
        return read_shape(path)
    if Path(path).suffix.lower() not in DEPTH_SUFFIXES:
        raise GeometryError(f"The geometry {path!r} is unknown; choose {_CHOICES}.")
    return read_depth(Path(path))
