"""Depth of a photo on its own: check the request, then estimate."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flythrough.engine.files import file_of, is_network, names_file
from flythrough.engine.geometry_source import build_estimator
from flythrough.engine.geometry_source import check_geometry as check_source
from flythrough.engine.options import check_device, check_size
from flythrough.errors import GeometryError
from flythrough.media.image import FittedPhoto, fit, read_photo
from flythrough.models.catalog import ModelFolder, find_model

if TYPE_CHECKING:
    from flythrough.geometry.types import Geometry

_SUFFIXES = (".npz", ".ply", ".glb", ".png")


@dataclass(frozen=True)
class GeometryRequest:
    """What ``flythrough geometry`` accepts; ``size`` is (height, width).

    ``geometry`` is as for ``flythrough generate``; ``default`` is the network of ``model``.
    """

    image: Path
    output: Path
    model: str = "nano"
    size: tuple[int, int] | None = None
    device: str = "auto"
    geometry: str = "default"


@dataclass(frozen=True, eq=False)
class CheckedGeometry:
    """The fitted photo and the model folder."""

    request: GeometryRequest
    photo: FittedPhoto
    model: ModelFolder


def check_geometry(request: GeometryRequest) -> CheckedGeometry:
    """Read the photo and check the target before anything heavy is loaded.

    Raises:
        GeometryError: a target that cannot be written, or an unusable geometry.
        InputError: any other option that is wrong.
    """
    _check_target(request.output)
    check_device(request.device)
    model = find_model(request.model)
    if not request.geometry.strip():
        raise GeometryError("--geometry is empty; give a value or leave the option out.")
    size = request.size or (model.defaults.height, model.defaults.width)
    check_size(size, pyramid=model.is_helios)
    photo = fit(read_photo(request.image), *size)
    check_source(request.geometry, model, photo)
    given = [file_of(request.geometry)] if names_file(request.geometry) else []
    if request.output.resolve() in {path.resolve() for path in given}:
        raise GeometryError(
            f"The output {request.output} is also the geometry and would be overwritten; name "
            "another file."
        )
    return CheckedGeometry(request, photo, model)


def _check_target(output: Path) -> None:
    if output.suffix.lower() not in _SUFFIXES:
        raise GeometryError(
            f"The geometry file {output} must end in {', '.join(_SUFFIXES)}; rename it."
        )
    if not output.parent.is_dir():
        raise GeometryError(
            f"The folder {output.parent} of {output.name} does not exist; create it first."
        )
    if output.is_dir() or not os.access(output.parent, os.W_OK):
        raise GeometryError(
            f"{output} is a folder or lies in one that cannot be written to; choose another name."
        )


def estimate(checked: CheckedGeometry, notify: Callable[[str], None]) -> Geometry:
    """Run the chosen geometry on the fitted photo."""
    from flythrough.engine.build import pick_device
    from flythrough.engine.photo_geometry import estimate_photo
    from flythrough.scene.settings import WarpSettings

    device = pick_device(checked.request.device)
    settings = WarpSettings(**checked.model.defaults.warp)
    source = checked.request.geometry
    if not (checked.photo.focal_known or is_network(source)):
        notify(
            f"the photo {checked.request.image} states no focal length: it is taken from the "
            f"geometry {source} or assumed as 60 degrees across."
        )
    estimator = build_estimator(source, checked.model, device, settings.confidence, notify)
    return estimate_photo(estimator, checked.photo, device, notify)
