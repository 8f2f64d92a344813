"""``flythrough world``: a ground-truth clip of a procedural world as a folder of plain files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from flythrough.cli.output import emit
from flythrough.engine.words import parse_size


def world(
    seed: int,
    /,
    *,
    camera: Annotated[str, Parameter(help="Path language or a camera file.")],
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="Folder to write.")],
    frames: Annotated[int, Parameter(help="Frames to render.")] = 66,
    size: Annotated[str, Parameter(help="HEIGHTxWIDTH.")] = "192x320",
    kind: Annotated[
        str | None, Parameter(help="room, street, gallery, terrain, yard or table.")
    ] = None,
    fov: Annotated[float, Parameter(help="Horizontal field of view in degrees.")] = 60.0,
    supersample: Annotated[int, Parameter(help="Render n times finer and average.")] = 1,
    device: Annotated[str, Parameter(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Render a world with exact depth and cameras: frames.mp4, photo.png, depth.npz, cameras.npz.

    Example: flythrough world 7 --camera "forward 0.5; pan left 15deg" -o clip
    """
    from flythrough.worlds.files import ClipRequest, write_clip

    parsed = parse_size(size)
    assert parsed is not None
    request = ClipRequest(seed, camera, frames, parsed, kind, fov, supersample, device)
    made = write_clip(request, output)
    emit(
        {
            "output": str(output),
            "seed": seed,
            "kind": made.kind,
            "caption": made.caption,
            "frames": made.frames,
            "median_depth": made.median_depth,
        },
        f"{output}: {made.frames} frames of a {made.kind}, median depth {made.median_depth:.3g} m",
    )
