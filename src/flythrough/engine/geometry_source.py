"""Where geometry comes from: what ``--geometry`` means, checked early and built late."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flythrough.cameras.trajectory import LengthUnit, Trajectory
from flythrough.engine.files import is_monocular, is_network, is_streaming
from flythrough.errors import CameraError, WeightsError
from flythrough.media.image import FittedPhoto
from flythrough.models.catalog import ModelFolder
from flythrough.models.ttt3r_folder import find_streaming, is_streaming_folder

if TYPE_CHECKING:
    import torch

    from flythrough.geometry.estimator import Estimator

Notify = Callable[[str], None]


def check_geometry(geometry: str, model: ModelFolder, photo: FittedPhoto | None) -> None:
    """Refuse a geometry that cannot work, before anything heavy is loaded.

    Files are tried on the photo; of networks the folders are looked at. Imports torch for files.

    Raises:
        WeightsError: a network that is not here, or not whole.
        GeometryError: an unknown name, or a file that does not fit the photo.
    """
    if is_network(geometry):
        own_network(model)
    elif is_streaming(geometry):
        find_streaming(geometry)
    elif is_monocular(geometry):
        from flythrough.models.monocular_files import find_monocular

        find_monocular(geometry)
    elif photo is not None and geometry != "flat":
        import torch

        from flythrough.geometry.estimators.select import check_geometry_choice, load_estimator

        check_geometry_choice(geometry)
        picture = torch.from_numpy(np.array(photo.pixels)).permute(2, 0, 1)[None].float() / 255
        known = torch.from_numpy(np.array(photo.intrinsics)) if photo.focal_known else None
        load_estimator(geometry).estimate(picture, intrinsics=known)


def own_network(model: ModelFolder) -> Path:
    """The folder of the model's own geometry network.

    Raises:
        WeightsError: it ships none.
    """
    if model.geometry is None:
        raise WeightsError(
            f"The model {model.name} ships no geometry network; give --geometry NAME (like "
            "depth-anything), --geometry FILE with a depth map of the photo, or --geometry flat."
        )
    return model.geometry


def streaming_folder(geometry: str, model: ModelFolder) -> Path | None:
    """The folder of the network that reads frames one after the other, where ``geometry`` asks for
    one: as that folder, or as the model's own network."""
    if is_streaming(geometry):
        return Path(geometry).expanduser()
    own = model.geometry if is_network(geometry) else None
    return own if own is not None and is_streaming_folder(own) else None


def is_metric(geometry: str) -> bool:
    """Whether depth comes in metres, so that a path in metres can be followed.

    Raises:
        WeightsError: a monocular network that is not here.
    """
    if is_monocular(geometry):
        from flythrough.models.monocular_files import find_monocular

        return find_monocular(geometry).metric
    return is_network(geometry) or is_streaming(geometry)


def check_metres(trajectory: Trajectory, geometry: str) -> None:
    """Refuse a path in metres where the depth of the photo has no such scale.

    Raises:
        CameraError: it has none.
    """
    if trajectory.unit is LengthUnit.METRE and not is_metric(geometry):
        raise CameraError(
            f"The camera path is in metres but --geometry {geometry} has no metric scale; write "
            "the amounts without 'm', as multiples of the median depth."
        )


def estimates_anything(geometry: str) -> bool:
    """Whether it can say the depth of any picture, not of the photo alone."""
    return is_network(geometry) or is_monocular(geometry) or is_streaming(geometry)


def build_estimator(
    geometry: str,
    model: ModelFolder,
    device: torch.device,
    confidence: float,
    notify: Notify,
    *,
    pixel_limit: int | None = None,
) -> Estimator:
    """The estimator that ``geometry`` asks for; the user is told what it assumes and what its
    licence rules out. ``pixel_limit`` bounds the size at which the model's own network works.

    Raises:
        WeightsError: a network that is not here, or whose weights do not fit.
        GeometryError: an unusable file.
    """
    own = own_network(model) if is_network(geometry) else None
    streaming = streaming_folder(geometry, model)
    if streaming is not None:
        from flythrough.models.ttt3r_estimator import ttt3r_estimator

        found_folder = find_streaming(streaming)
        licence = found_folder.licence
        what = f"the geometry network {found_folder.path}"
        if licence is not None and (text := licence.note(what)):
            notify(text)
        return ttt3r_estimator(found_folder.path, device=device, confident=confidence)
    if own is not None:
        from flythrough.models.licences import pi3x_licence
        from flythrough.models.pi3x_estimator import pi3x_estimator

        folder = own
        licence = pi3x_licence(folder)
        if licence is not None and (text := licence.note(f"the geometry network {folder}")):
            notify(text)
        return pi3x_estimator(folder, device=device, confident=confidence, pixel_limit=pixel_limit)
    if is_monocular(geometry):
        from flythrough.models.monocular import announcement, load_monocular
        from flythrough.models.monocular_files import find_monocular

        found = find_monocular(geometry)
        announcement(found, notify)
        return load_monocular(found, device)
    from flythrough.geometry.estimators.select import load_estimator

    return load_estimator(geometry)
