"""``flythrough generate``: a photo and a camera path (or a prompt) become a video."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from flythrough.cli.compute import CodecType, Compiled, Fast, PrecisionOption, chosen_compute
from flythrough.cli.groups import CAMERA, HARDWARE, LOOK, WORLDWARP
from flythrough.cli.hardware import CodecDevice, GeometryDevice, Gpus, Graphs
from flythrough.cli.output import emit, note
from flythrough.cli.progress import frame_progress, working
from flythrough.cli.stopping import goes_on
from flythrough.engine.warp_options import Fill
from flythrough.engine.words import MemoryChoice, NoiseField, parse_size, parse_steps
from flythrough.scene.settings import SceneKind

if TYPE_CHECKING:
    from flythrough.engine.plan import Plan
    from flythrough.rollout.rollout import Rollout


def generate(  # noqa: PLR0913 - the command-line contract
    image: Annotated[Path | None, Parameter(help="The photo.")] = None,
    /,
    *,
    camera: Annotated[
        str | None,
        Parameter(help="Path language or a camera file: own, NeRF, nerfstudio, COLMAP, RE10K."),
    ] = None,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="The .mp4 to write.")],
    prompt: Annotated[str, Parameter(help="What the scene shows.")] = "",
    video: Annotated[Path | None, Parameter(help="A clip to continue, without a camera.")] = None,
    model: Annotated[str, Parameter(help="'nano', a pulled model, or a model folder.")] = "nano",
    method: Annotated[
        Literal["warp-as-history", "helios", "worldwarp"] | None,
        Parameter(
            help="Default: warp-as-history with a camera or warp, else helios; worldwarp for the"
            " folder of an ST-Diff."
        ),
    ] = None,
    frames: Annotated[int, Parameter(help="Frames to make, in chunks of 33 (worldwarp: 49).")] = 66,
    size: Annotated[
        str | None,
        Parameter(
            help="HEIGHTxWIDTH, multiples of 64 (worldwarp: 16); the photo is cut to that shape."
        ),
    ] = None,
    seed: Annotated[int, Parameter(help="Same seed, same video.")] = 0,
    geometry: Annotated[
        str,
        Parameter(group=CAMERA, help="'default', 'flat', a depth network, or a depth or 3D file."),
    ] = "default",
    lora: Annotated[
        str,
        Parameter(
            group=LOOK,
            help="A .safetensors or PEFT adapter: of the camera, or of style without one; 'default'"
            " is the model's own camera adapter, 'off' none.",
        ),
    ] = "default",
    lora_scale: Annotated[
        float, Parameter(group=LOOK, help="How much the adapter counts, -4 to 4.")
    ] = 1.0,
    warp: Annotated[Path | None, Parameter(group=CAMERA, help="A pre-rendered warp video.")] = None,
    warp_mask: Annotated[
        Path | None, Parameter(group=CAMERA, help="Its visibility video (white: seen).")
    ] = None,
    rollout: Annotated[
        Path | None, Parameter(help="Folder that keeps every chunk, to continue or rewind.")
    ] = None,
    save_warp: Annotated[
        Path | None, Parameter(group=CAMERA, help="Also write the warp video here.")
    ] = None,
    save_mask: Annotated[
        Path | None,
        Parameter(group=CAMERA, help="Also write its visibility video here (white: seen)."),
    ] = None,
    steps: Annotated[
        str | None,
        Parameter(group=LOOK, help="Steps per pyramid stage, like 2,2,2; worldwarp: one count."),
    ] = None,
    guidance: Annotated[
        float | None,
        Parameter(group=LOOK, help="How far to lean towards the prompt; 1: no guidance."),
    ] = None,
    negative_prompt: Annotated[
        str, Parameter(group=LOOK, help="What guidance leads away from.")
    ] = "",
    blend_chunks: Annotated[
        int,
        Parameter(group=LOOK, help="Chunks that lead from an old prompt to a new one; 0: at once."),
    ] = 0,
    anchor: Annotated[
        Literal["first", "second", "none"],
        Parameter(
            group=LOOK,
            help="Without a camera: the chunk whose first latent is remembered for good.",
        ),
    ] = "first",
    seams: Annotated[
        Literal["independent", "smooth"],
        Parameter(group=LOOK, help="How chunks meet: decoded apart, or led over in 6 frames."),
    ] = "independent",
    preset: Annotated[
        Literal["realtime"] | None,
        Parameter(
            group=CAMERA, help="A recipe for cameras; options given beside it stay as given."
        ),
    ] = None,
    warp_band: Annotated[
        Literal["short", "patch-mid"] | None,
        Parameter(group=CAMERA, help="History band of the warp; patch-mid: 7 times fewer tokens."),
    ] = None,
    visible_threshold: Annotated[
        float | None,
        Parameter(group=CAMERA, help="Share of a token that must have been seen, 0 to 1."),
    ] = None,
    align: Annotated[
        bool,
        Parameter(group=CAMERA, help="Ablation: without, the warp lies before the target in time."),
    ] = True,
    select: Annotated[
        bool, Parameter(group=CAMERA, help="Ablation: without, unseen tokens stay.")
    ] = True,
    fill: Annotated[
        Fill | None,
        Parameter(
            group=CAMERA, help="Unseen pixels of the warp: the photo's mean colour, or black."
        ),
    ] = None,
    warp_settings: Annotated[
        str | None,
        Parameter(
            group=CAMERA, help="How warps are rendered: NAME=VALUE,... as in flythrough.json."
        ),
    ] = None,
    style_lora: Annotated[
        Path | None,
        Parameter(group=LOOK, help="With a camera: a style's adapter, active in every stage."),
    ] = None,
    style_scale: Annotated[
        float, Parameter(group=LOOK, help="How much the style counts, -4 to 4.")
    ] = 1.0,
    camera_convention: Annotated[
        str | None,
        Parameter(
            group=CAMERA, help="Meaning of an .npz camera file, like opengl,camera-from-world."
        ),
    ] = None,
    camera_scale: Annotated[
        float | None,
        Parameter(
            group=CAMERA,
            help="Median depths in a length of 1 of a camera file that states no unit.",
        ),
    ] = None,
    scene: Annotated[
        SceneKind | None,
        Parameter(
            group=CAMERA,
            help="What is kept of the scene; gaussian is fitted anew for every chunk; points and"
            " none are ablations.",
        ),
    ] = None,
    strength: Annotated[
        float | None,
        Parameter(
            group=WORLDWARP,
            help="worldwarp: share of the steps that rewrite what was rendered, 0 to 1.",
        ),
    ] = None,
    chunk_frames: Annotated[
        int | None, Parameter(group=WORLDWARP, help="worldwarp: frames a chunk, such as 49 or 81.")
    ] = None,
    overlap: Annotated[
        int | None,
        Parameter(group=WORLDWARP, help="worldwarp: frames that chunks share, such as 5 or 1."),
    ] = None,
    noise_field: Annotated[
        NoiseField | None,
        Parameter(
            group=WORLDWARP,
            help="worldwarp, ablation: what noise levels depend on; both if left out.",
        ),
    ] = None,
    caption: Annotated[
        str | None,
        Parameter(
            group=WORLDWARP,
            help="worldwarp: qwen2.5-vl-7b or a folder of it words each chunk's prompt from the"
            " frames before; --prompt is then a wish.",
        ),
    ] = None,
    restyle: Annotated[
        float | None,
        Parameter(
            group=WORLDWARP,
            help="worldwarp: repaint the photo from --prompt first, 0 to 1; 0.7 suits.",
        ),
    ] = None,
    device: Annotated[str, Parameter(group=HARDWARE, help="auto, cpu, cuda or cuda:N.")] = "auto",
    memory: Annotated[
        MemoryChoice,
        Parameter(group=HARDWARE, help="Where weights lie; see `flythrough doctor --model`."),
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
    """Make a video from a photo and a camera path, or from a prompt.

    Example: flythrough generate photo.jpg --camera "forward 0.6; pan left 20deg" -o out.mp4
    """
    from flythrough.engine.hardware import Hardware
    from flythrough.engine.request import GenerateRequest, check

    request = GenerateRequest(
        image=image,
        video=video,
        camera=camera,
        warp=warp,
        warp_mask=warp_mask,
        prompt=prompt,
        model=model,
        method=method,
        frames=frames,
        size=parse_size(size),
        seed=seed,
        geometry=geometry,
        lora=lora,
        lora_scale=lora_scale,
        steps=parse_steps(steps),
        guidance=guidance,
        negative_prompt=negative_prompt,
        blend_chunks=blend_chunks,
        anchor=anchor,
        seams=seams,
        preset=preset,
        warp_band=warp_band,
        visible_threshold=visible_threshold,
        align=align,
        select=select,
        fill=fill,
        warp_settings=warp_settings,
        style_lora=style_lora,
        style_scale=style_scale,
        camera_convention=camera_convention,
        camera_scale=camera_scale,
        scene=scene,
        strength=strength,
        chunk_frames=chunk_frames,
        overlap=overlap,
        noise_field=noise_field,
        caption=caption,
        restyle=restyle,
        device=device,
        memory=memory,
        compute=chosen_compute(fast, compiled, precision),
        hardware=Hardware(gpus, geometry_device, codec_device, graphs),
        codec_precision=codec_precision,
        output=output,
        rollout=rollout,
        save_warp=save_warp,
        save_mask=save_mask,
    )
    checked = check(request)
    with goes_on(rollout):
        with working("loading the model and reading the scene"):
            from flythrough.engine.run import start_job

            job = start_job(checked, note)
        run_to_end(job, output, save_warp, save_mask)


def run_to_end(
    job: object, output: Path, save_warp: Path | None = None, save_mask: Path | None = None
) -> None:
    """Advance a job with a progress bar and write its video."""
    from flythrough.engine.chunk_time import chunk_time
    from flythrough.engine.run import Job, advance, write_warp

    assert isinstance(job, Job)
    before = len(job.rollout.chunks)
    time = chunk_time(job.rollout.spec)
    plan = job.plan
    with frame_progress(before, plan.chunks, plan.frames, plan.window, time) as report:
        for _ in advance(job, report):
            pass
    if save_warp is not None or save_mask is not None:
        write_warp(job, save_warp, save_mask)
    write_video_of(job.rollout, job.plan, output, before)


def write_video_of(rollout: Rollout, plan: Plan, output: Path, before: int | None = None) -> None:
    """Write the video of a finished plan and say so; chunks from ``before`` on were made now, or
    none if it is None."""
    from flythrough.engine.run import write_result

    count, chunks = write_result(rollout, plan, output), len(rollout.chunks)
    made = rollout.chunks[chunks if before is None else before :]
    seconds = sum(sum(chunk.timings.values()) for chunk in made)
    emit(
        {
            "output": str(output),
            "frames": count,
            "chunks": chunks,
            "seconds": round(seconds, 2),
            "digest": rollout.digest(),
        },
        f"{output}: {count} frames, {chunks} chunk{'' if chunks == 1 else 's'}, "
        + (f"{seconds:.1f} s" if made else "written from what was made before"),
    )
