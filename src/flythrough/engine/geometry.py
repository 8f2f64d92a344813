"""Depth of a photo on its own: estimate, and write as arrays, points or a picture."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flythrough.errors import GeometryError, WeightsError
from flythrough.geometry.types import Geometry
from flythrough.media.image import FittedPhoto, fit, read_photo
from flythrough.models.catalog import ModelFolder, find_model

_SUFFIXES = (".npz", ".ply", ".png")


@dataclass(frozen=True)
class GeometryRequest:
    """What ``flythrough geometry`` accepts; ``size`` is (height, width)."""

    image: Path
    output: Path
    model: str = "nano"
    size: tuple[int, int] | None = None
    device: str = "auto"


@dataclass(frozen=True, eq=False)
class CheckedGeometry:
    """The fitted photo and the model folder with a geometry network."""

    request: GeometryRequest
    photo: FittedPhoto
    model: ModelFolder
    network: Path


@dataclass(frozen=True, eq=False)
class PhotoGeometry:
    """A photo uint8 [H,W,3] and its geometry (one frame)."""

    photo: FittedPhoto
    geometry: Geometry


def check_geometry(request: GeometryRequest) -> CheckedGeometry:
    """Read the photo and check the target before anything heavy is loaded."""
    if request.output.suffix not in _SUFFIXES:
        raise GeometryError(
            f"{request.output} does not end in {', '.join(_SUFFIXES)}; choose one of these."
        )
    if not request.output.parent.is_dir():
        raise GeometryError(f"The folder {request.output.parent} does not exist; create it first.")
    model = find_model(request.model)
    if model.geometry is None:
        raise WeightsError(f"The model {model.name} ships no geometry network; use --model nano.")
    size = request.size or (model.defaults.height, model.defaults.width)
    return CheckedGeometry(request, fit(read_photo(request.image), *size), model, model.geometry)


def estimate(checked: CheckedGeometry) -> PhotoGeometry:
    """Run the model's geometry network on the fitted photo."""
    import torch

    from flythrough.engine.build import pick_device
    from flythrough.models.pi3x_estimator import pi3x_estimator

    device = pick_device(checked.request.device)
    pixels = torch.from_numpy(np.array(checked.photo.pixels)).to(device).float() / 255
    known = torch.from_numpy(checked.photo.intrinsics).float()[None].to(device)
    geometry = pi3x_estimator(checked.network, device).estimate(
        pixels.permute(2, 0, 1)[None], intrinsics=known if checked.photo.focal_known else None
    )
    return PhotoGeometry(checked.photo, geometry)


def write_geometry(result: PhotoGeometry, output: Path) -> None:
    """Write by suffix; the file appears whole or not at all."""
    partial = output.with_name(f".{output.name}.partial")
    try:
        with partial.open("wb") as file:
            if output.suffix == ".npz":
                np.savez_compressed(file, **_arrays(result.geometry))
            elif output.suffix == ".ply":
                file.write(_ply(result))
            else:
                _depth_png(result.geometry, file)
        os.replace(partial, output)
    finally:
        partial.unlink(missing_ok=True)


def _arrays(geometry: Geometry) -> dict[str, np.ndarray]:
    return {
        "depth": geometry.depth[0].cpu().numpy(),
        "confidence": geometry.confidence[0].cpu().numpy(),
        "valid": geometry.valid[0].cpu().numpy(),
        "intrinsics": geometry.intrinsics[0].cpu().numpy(),
        "scale": np.array(str(geometry.scale)),
    }


def _ply(result: PhotoGeometry) -> bytes:
    """Binary PLY of the valid points, OpenCV axes, with colours."""
    valid = result.geometry.valid[0].cpu().numpy()
    points = result.geometry.points_world()[0].cpu().numpy()[valid]
    colours = result.photo.pixels[valid]
    kinds = [(axis, "<f4") for axis in "xyz"] + [(c, "u1") for c in ("red", "green", "blue")]
    rows = np.empty(len(points), dtype=kinds)
    for i, axis in enumerate("xyz"):
        rows[axis] = points[:, i]
    for i, name in enumerate(("red", "green", "blue")):
        rows[name] = colours[:, i]
    names = {"<f4": "float", "u1": "uchar"}
    properties = "\n".join(f"property {names[kind]} {name}" for name, kind in kinds)
    header = (
        "ply\nformat binary_little_endian 1.0\ncomment OpenCV axes: x right, y down, z forward\n"
        f"element vertex {len(rows)}\n{properties}\nend_header\n"
    )
    return header.encode() + rows.tobytes()


def _depth_png(geometry: Geometry, file: object) -> None:
    from PIL import Image

    from flythrough.media.picture import depth_picture

    picture = depth_picture(geometry.depth[0].cpu().numpy())
    Image.fromarray(np.asarray(picture)).save(file, format="PNG")  # type: ignore[arg-type]
