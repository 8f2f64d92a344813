"""``flythrough camera``: a camera path or file becomes a camera file, and a picture of it."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from flythrough.cli.output import emit, note

if TYPE_CHECKING:
    from flythrough.cameras.trajectory import Trajectory
    from flythrough.cameras.vocabulary import Table

app = App(
    name="camera",
    usage="Usage: flythrough camera SOURCE --output PATH [OPTIONS]\n"
    "       flythrough camera --list",
)

_WORDS_FRAMES, _WORDS_FPS = 66, 16.0
_WIDTH = 100


@app.command(name="--list")
def list_words() -> None:
    """Show all words of camera paths: verbs, directions, amounts, presets, shots."""
    from flythrough.cameras.vocabulary import tables

    found = tables()
    data = {
        name: [dict(zip(table.columns, row, strict=True)) for row in table.rows]
        for name, table in found.items()
    }
    parts = [f"{table.title}\n{_as_text(table)}" for table in found.values()]
    emit(
        data,
        "A path is steps with ';' between them, such as 'forward 0.5; pan left 20deg over 1s'.\n\n"
        + "\n\n".join(parts),
    )


def _as_text(table: Table) -> str:
    """Columns as wide as their words; a table of names alone as running text."""
    if len(table.columns) == 1:
        names = ", ".join(row[0] for row in table.rows)
        return textwrap.fill(names, _WIDTH - 2, initial_indent="  ", subsequent_indent="  ")
    rows = (table.columns, *table.rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)) for row in rows)
    return "\n".join(f"  {line}".rstrip() for line in lines)


@app.default
def camera(  # noqa: PLR0913 - the command line
    source: Annotated[
        str,
        Parameter(
            help="Path language, 'shots: ...', a camera file (own, transforms.json of NeRF, "
            "camera_path.json of nerfstudio, COLMAP model, RealEstate10K .txt), or a video."
        ),
    ],
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="The .npz or .json to write.")],
    frames: Annotated[
        int | None,
        Parameter(
            help="Frames (default: 66 for words, all of a file); a file that is too long is cut, "
            "one that is too short holds its last camera."
        ),
    ] = None,
    fps: Annotated[
        float | None, Parameter(help="Frame rate of a path in words (default 16).")
    ] = None,
    convention: Annotated[
        str | None, Parameter(help="Meaning of an .npz to read, like opengl,camera-from-world.")
    ] = None,
    camera_scale: Annotated[
        float | None,
        Parameter(help="Median depths in a length of 1 of a file that states no unit."),
    ] = None,
    speed: Annotated[float, Parameter(help="Walk the path so many times as fast.")] = 1.0,
    extend: Annotated[
        Literal["hold", "extrapolate", "loop", "ping-pong", "slowdown"] | None,
        Parameter(help="What happens where --frames outlast the path (default: hold)."),
    ] = None,
    geometry: Annotated[
        str | None,
        Parameter(help="For a video: the network that estimates its camera (default: default)."),
    ] = None,
    model: Annotated[
        str | None, Parameter(help="For a video: the model whose network that is (default: nano).")
    ] = None,
    plot: Annotated[Path | None, Parameter(help="Also draw the path into this .png.")] = None,
) -> None:
    """Convert or draw a camera path; --list alone shows all words of paths.

    Example: flythrough camera "forward 0.6; orbit left 30deg" -o path.npz --plot path.png
    """
    from flythrough.cameras.extension import extended, sped
    from flythrough.cameras.formats import write_trajectory
    from flythrough.cameras.source import camera_notes
    from flythrough.disk import replacing
    from flythrough.engine.reference_camera import is_reference
    from flythrough.errors import CameraError

    _check_targets(output, plot)
    if frames is not None and frames < 1:
        raise CameraError(f"--frames {frames} is not positive; give at least 1.")
    if is_reference(source):
        trajectory = _of_video(source, fps, convention, camera_scale, geometry, model)
    else:
        _refuse_estimation(source, geometry, model)
        trajectory = _read(source, frames, fps, convention, camera_scale)
        for text in camera_notes(source, len(trajectory), camera_scale):
            note(text)
    trajectory = sped(trajectory, speed)
    if frames is not None:
        trajectory = extended(trajectory, frames, extend or "hold")[:frames]
    elif extend is not None:
        raise CameraError(f"--extend {extend} has no effect without --frames; give their number.")
    write_trajectory(output, trajectory)
    if plot is not None:
        from flythrough.cameras.plot import plot_trajectory

        with replacing(plot) as partial:
            plot_trajectory(trajectory).save(partial)
    drawn = "" if plot is None else f", drawn in {plot}"
    emit(
        {
            "output": str(output),
            "plot": None if plot is None else str(plot),
            "frames": len(trajectory),
            "seconds": float(trajectory.times[-1] - trajectory.times[0]),
            "unit": str(trajectory.unit),
            "digest": trajectory.digest(),
        },
        f"{output}: {len(trajectory)} frames in unit {trajectory.unit}{drawn}",
    )


def _check_targets(output: Path, plot: Path | None) -> None:
    """Refuse unusable targets before anything is read or written."""
    from flythrough.cameras.formats import check_suffix
    from flythrough.errors import CameraError

    check_suffix(output)
    if plot is not None and plot.suffix.lower() != ".png":
        raise CameraError(f"The plot {plot} would not be a PNG picture; give it the suffix .png.")
    for target in filter(None, (output, plot)):
        if target.is_dir() or not target.absolute().parent.is_dir():
            raise CameraError(
                f"{target} cannot be written, because it is a folder or lies in a folder that does "
                "not exist; name a file in an existing folder."
            )


def _read(
    source: str,
    frames: int | None,
    fps: float | None,
    convention: str | None,
    scale: float | None,
) -> Trajectory:
    from flythrough.cameras.formats import read_trajectory
    from flythrough.cameras.source import camera_file, trajectory_from
    from flythrough.errors import CameraError

    file = camera_file(source)
    if file is None:
        for name, value in (("--convention", convention), ("--camera-scale", scale)):
            if value is not None:
                raise CameraError(f"{name} {value} has no effect on a path in words; drop it.")
        wanted = _WORDS_FRAMES if frames is None else frames
        return trajectory_from(source, wanted, _WORDS_FPS if fps is None else fps)
    if fps is not None:
        raise CameraError(
            f"--fps {fps:g} has no effect on the camera file {file}, which has its own times; "
            "drop it."
        )
    return read_trajectory(file, convention=convention, scale=scale)


def _refuse_estimation(source: str, geometry: str | None, model: str | None) -> None:
    from flythrough.errors import CameraError

    for name, value in (("--geometry", geometry), ("--model", model)):
        if value is not None:
            raise CameraError(
                f"{name} {value} has no effect on the camera {source}, which is no video; drop it."
            )


def _of_video(
    source: str,
    fps: float | None,
    convention: str | None,
    scale: float | None,
    geometry: str | None,
    model: str | None,
) -> Trajectory:
    from flythrough.engine.reference_camera import camera_of_video
    from flythrough.errors import CameraError

    options = (("--fps", fps), ("--convention", convention), ("--camera-scale", scale))
    for name, value in options:
        if value is not None:
            raise CameraError(f"{name} {value} has no effect on the video {source}; drop it.")
    return camera_of_video(Path(source), geometry or "default", model or "nano", "auto", note)
