"""``flythrough geometry``: the depth of a photo as a file or a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from flythrough.cli.output import emit, note
from flythrough.cli.progress import working
from flythrough.engine.words import parse_size


def geometry(
    image: Path,
    /,
    *,
    output: Annotated[
        Path,
        Parameter(name=["--output", "-o"], help=".npz (arrays), .ply or .glb (points), .png."),
    ],
    model: Annotated[str, Parameter(help="'nano', a pulled model, or a model folder.")] = "nano",
    geometry: Annotated[
        str, Parameter(help="'default' (the model's network), a depth network, file or folder.")
    ] = "default",
    size: Annotated[str | None, Parameter(help="HEIGHTxWIDTH to fit the photo to.")] = None,
    device: Annotated[str, Parameter(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Estimate depth, intrinsics and confidence of a photo.

    Example: flythrough geometry photo.jpg --geometry depth-anything -o depth.npz
    """
    from flythrough.engine.geometry import GeometryRequest, check_geometry, estimate

    request = GeometryRequest(image, output, model, parse_size(size), device, geometry)
    checked = check_geometry(request)
    with working("estimating depth"):
        result = estimate(checked, note)
    from flythrough.engine.geometry_files import write_geometry
    from flythrough.geometry.types import ScaleKind

    write_geometry(result, checked.photo.pixels, output)
    depth = float(result.median_depth())
    focal = float(result.intrinsics[0, 0, 0])
    unit = " m" if result.scale is ScaleKind.METRIC else ""
    share = float(result.valid.float().mean())
    emit(
        {
            "output": str(output),
            "median_depth": depth,
            "scale": str(result.scale),
            "focal_px": focal,
            "valid": share,
        },
        f"{output}: median depth {depth:.3g}{unit} ({result.scale}), focal {focal:.0f} px, "
        f"{100 * share:.0f} % valid",
    )
