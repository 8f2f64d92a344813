"""``flythrough continue``: finish a stopped run, or give a finished one a new camera path."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from flythrough.cli.compute import CodecType, Compiled, Fast, PrecisionOption, chosen_compute
from flythrough.cli.generate import run_to_end, write_video_of
from flythrough.cli.hardware import CodecDevice, GeometryDevice, Gpus, Graphs
from flythrough.cli.output import note
from flythrough.cli.progress import working
from flythrough.cli.stopping import goes_on
from flythrough.engine.words import MemoryChoice


def resume(  # noqa: PLR0913 - the command line
    folder: Path,
    /,
    *,
    camera: Annotated[str | None, Parameter(help="The next path, from the last camera on.")] = None,
    prompt: Annotated[str | None, Parameter(help="A new prompt for the new chunks.")] = None,
    frames: Annotated[int | None, Parameter(help="New frames; alone if no camera leads.")] = None,
    camera_convention: Annotated[
        str | None, Parameter(help="Meaning of an .npz camera file, like opengl,camera-from-world.")
    ] = None,
    camera_scale: Annotated[
        float | None,
        Parameter(help="Median depths in a length of 1 of a camera file that states no unit."),
    ] = None,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"], help="The .mp4.")] = None,
    device: Annotated[str, Parameter(help="auto, cpu, cuda or cuda:N.")] = "auto",
    memory: Annotated[
        MemoryChoice,
        Parameter(help="Where weights lie; see `flythrough doctor --model`."),
    ] = "auto",
    fast: Fast = None,
    compiled: Compiled = False,
    precision: PrecisionOption = "full",
    gpus: Gpus = 1,
    graphs: Graphs = None,
    geometry_device: GeometryDevice = None,
    codec_device: CodecDevice = None,
    codec_precision: CodecType = "auto",
) -> None:
    """Finish a stopped run, or extend a rollout along a new path.

    Without --camera or --prompt the stored plan is finished exactly as if it had not been stopped;
    if only the video is missing, it is written.
    """
    from flythrough.engine.hardware import Hardware
    from flythrough.engine.resume import ResumeRequest, check_resume, complete_already, resume_job
    from flythrough.rollout.lock import held

    compute = chosen_compute(fast, compiled, precision)
    request = ResumeRequest(
        folder=folder,
        camera=camera,
        prompt=prompt,
        frames=frames,
        output=output,
        device=device,
        memory=memory,
        camera_convention=camera_convention,
        compute=compute,
        hardware=Hardware(gpus, geometry_device, codec_device, graphs),
        codec_precision=codec_precision,
        camera_scale=camera_scale,
    )
    with held(folder):
        checked = check_resume(request)
        if checked.finished:
            note(f"{complete_already(folder, checked.rollout, checked.plan)}.")
            write_video_of(checked.rollout, checked.plan, checked.output)
            return
        with goes_on(folder):
            with working("loading the model and reading the rollout"):
                job = resume_job(checked, note)
            run_to_end(job, checked.output)
