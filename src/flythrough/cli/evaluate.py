"""``flythrough evaluate``: figures of a model on clips it never saw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from flythrough.cli.output import emit, note
from flythrough.engine.words import parse_size

if TYPE_CHECKING:
    from flythrough.evaluation.benchmark import Clips, SuiteRequest
    from flythrough.evaluation.judged_model import ModelChoice
    from flythrough.evaluation.measures import Figures
    from flythrough.evaluation.study import Maker, Study
    from flythrough.evaluation.worldwarp import WorldWarpRequest

app = App(name="evaluate", help="Measure a model on clips whose truth is known.")

Output = Annotated[Path, Parameter(name=["--output", "-o"], help="The folder to fill; resumed.")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The model whose videos are judged."""

    model: Annotated[str, Parameter(help="'nano', a pulled model, or a model folder.")] = "nano"
    lora: Annotated[str, Parameter(help="The adapter of rows that use one.")] = "default"
    geometry: Annotated[
        str | None,
        Parameter(
            help="'exact' depth of the photo (the default where it is known), or as "
            "--geometry of generate."
        ),
    ] = None
    device: Annotated[str, Parameter(help="auto, cpu, cuda or cuda:N.")] = "auto"

    def choice(self, geometry: str = "exact") -> ModelChoice:
        """As the evaluation takes it; ``geometry`` where none was given."""
        from flythrough.evaluation.judged_model import ModelChoice

        return ModelChoice(
            model=self.model,
            lora=self.lora,
            geometry=self.geometry or geometry,
            device=self.device,
        )


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SuiteOptions:
    """What a suite is made of, and whose videos."""

    clips: Annotated[int, Parameter(help="Clips of each track.")] = 2
    chunks: Annotated[int, Parameter(help="Chunks of 33 frames in long clips.")] = 3
    tracks: Annotated[str | None, Parameter(help="Among chunk,loop,long; all.")] = None
    videos: Annotated[
        Path | None, Parameter(help="Judge the videos CLIP.mp4 in this folder, not a model.")
    ] = None
    label: Annotated[str | None, Parameter(help="The name of these videos in tables.")] = None
    chunk_frames: Annotated[
        int | None, Parameter(help="Frames from border to border of these videos, for the seams.")
    ] = None
    size: Annotated[str | None, Parameter(help="HEIGHTxWIDTH; the model's own if left out.")] = None
    controls: Annotated[bool, Parameter(help="Make the controls that must fail.")] = True

    def request(self, folder: Path, choice: ModelChoice) -> SuiteRequest:
        from flythrough.evaluation.benchmark import SuiteRequest

        return SuiteRequest(
            folder=folder,
            clips=self.clips,
            chunks=self.chunks,
            tracks=_names(self.tracks),
            choice=choice,
            videos=self.videos,
            label=self.label,
            chunk_frames=self.chunk_frames,
            size=parse_size(self.size),
            controls=self.controls,
        )


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class WorldWarpOptions:
    """What the ablation of WorldWarp is made of; what is left out is the model's own."""

    clips: Annotated[int, Parameter(help="Held-out clips, 1 to 12.")] = 2
    chunks: Annotated[int, Parameter(help="Chunks of a clip; the 2nd and 4th are judged.")] = 4
    rows: Annotated[str | None, Parameter(help="Rows by name, like full,noise-spatial.")] = None
    scene: Annotated[
        Literal["gaussian", "mesh"], Parameter(help="The memory of the full method.")
    ] = "gaussian"
    gaussian_steps: Annotated[
        int | None, Parameter(help="Steps of a fit; 100 show nearly as much as 500.")
    ] = None
    strength: Annotated[float | None, Parameter(help="As for generate.")] = None
    steps: Annotated[int | None, Parameter(help="Steps a chunk.")] = None
    chunk_frames: Annotated[int | None, Parameter(help="Frames a chunk.")] = None
    overlap: Annotated[int | None, Parameter(help="Frames that chunks share.")] = None
    size: Annotated[str | None, Parameter(help="HEIGHTxWIDTH.")] = None

    def request(self, folder: Path, choice: ModelChoice) -> WorldWarpRequest:
        from flythrough.evaluation.worldwarp import WorldWarpRequest

        return WorldWarpRequest(
            folder=folder,
            clips=self.clips,
            chunks=self.chunks,
            rows=_names(self.rows),
            scene=self.scene,
            gaussian_steps=self.gaussian_steps,
            strength=self.strength,
            steps=self.steps,
            chunk_frames=self.chunk_frames,
            overlap=self.overlap,
            size=parse_size(self.size),
            choice=choice,
        )


_MODEL, _SUITE, _WORLDWARP = ModelOptions(), SuiteOptions(), WorldWarpOptions()


@app.command
def ablation(
    *,
    output: Output,
    clips: Annotated[int, Parameter(help="Held-out clips, 1 to 8.")] = 4,
    chunks: Annotated[int, Parameter(help="Chunks of 33 frames a clip.")] = 1,
    rows: Annotated[str | None, Parameter(help="Rows by name, like full,zero-shot.")] = None,
    judged: ModelOptions = _MODEL,
) -> None:
    """Table of the camera method: each part switched off, references, and controls that must fail.

    Poses of the frames are measured against the path, pixels against the world's exact render.
    Writes results.json, table.md, contact sheets and index.html. Needs OpenCV: pip install
    "flythrough[evaluate]".

    Example: flythrough evaluate ablation -o ablation
    """
    from flythrough.evaluation.ablation import AblationRequest, check_ablation

    choice = judged.choice()
    study = check_ablation(
        AblationRequest(folder=output, clips=clips, chunks=chunks, rows=_names(rows), choice=choice)
    )

    def maker() -> Maker:
        from flythrough.evaluation.videos import VideoMaker

        return VideoMaker(choice, output / "inputs", note)

    _carry_out(study, maker)


@app.command
def worldwarp(
    *, output: Output, ways: WorldWarpOptions = _WORLDWARP, judged: ModelOptions = _MODEL
) -> None:
    """WorldWarp with each cache and each kind of noise, at the 2nd and the 4th chunk.

    Rows: no cache, points, meshes, Gaussians; full-sequence, spatial-only, temporal-only noise.
    Depth is the model's own unless --geometry exact. Needs OpenCV: pip install
    "flythrough[evaluate]".

    Example: flythrough evaluate worldwarp --model FOLDER --clips 1 --rows full,cache-mesh -o ww
    """
    from flythrough.evaluation.worldwarp import check_worldwarp_study, worldwarp_maker

    request = ways.request(output, judged.choice("default"))
    study = check_worldwarp_study(request)
    _carry_out(study, lambda: worldwarp_maker(request, note))


@app.command
def worlds(*, output: Output, suite: SuiteOptions = _SUITE, judged: ModelOptions = _MODEL) -> None:
    """The weight-free suite on held-out procedural worlds: one chunk, there and back, long.

    Camera, pixels, seams, flicker, revisits and drift against exact renders, with controls that
    must fail. Needs OpenCV: pip install "flythrough[evaluate]".

    Example: flythrough evaluate worlds --clips 1 -o worlds
    """
    from flythrough.evaluation.benchmark import WORLDS

    _suite(WORLDS, output, suite, judged)


@app.command
def renderers(
    *,
    output: Output,
    only: Annotated[
        str | None, Parameter(help="Among miniworld,pybullet,mujoco,vizdoom; all.")
    ] = None,
    suite: SuiteOptions = _SUITE,
    judged: ModelOptions = _MODEL,
) -> None:
    """The same suite on scenes of renderers that this project did not write.

    Needs pip install "flythrough[evaluate,renderers]"; draws without a window, on the CPU.

    Example: flythrough evaluate renderers --only mujoco --clips 1 -o mujoco
    """
    from flythrough.evaluation.renderers.clips import renderer_clips

    _suite(renderer_clips(_names(only)), output, suite, judged)


@app.command
def dataset(
    name: str,
    /,
    *,
    data: Annotated[Path, Parameter(help="The folder that holds the data set.")],
    output: Output,
    split: Annotated[str | None, Parameter(help="A part of it; the protocol's own.")] = None,
    protocol: Annotated[
        Path | None, Parameter(help="A JSON file with clips, frames, size and metrics.")
    ] = None,
    cameras: Annotated[
        Path | None, Parameter(help="Folder of CLIP.npz cameras for davis, which has none.")
    ] = None,
    suite: SuiteOptions = _SUITE,
    judged: ModelOptions = _MODEL,
) -> None:
    """Published data sets, for those who have them: re10k, dl3dv, davis or worldscore.

    First frame of each clip, then along its cameras; poses are measured with points triangulated
    from the data set's own frames. The protocol says what published tables also hold.

    Example: flythrough evaluate dataset re10k --data RealEstate10K --clips 5 -o re10k
    """
    from flythrough.evaluation.benchmark import suite_maker
    from flythrough.evaluation.datasets.clips import DatasetRequest, check_dataset

    request = suite.request(output, judged.choice("default"))
    study = check_dataset(
        DatasetRequest(
            dataset=name,
            data=data,
            suite=request,
            split=split,
            protocol=protocol,
            cameras=cameras,
        )
    )
    _carry_out(study, lambda: suite_maker(request, study, note))


@app.command
def inputs(
    name: Annotated[str, Parameter(help="worlds, or a renderer: miniworld, mujoco, ...")],
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="The folder to write.")],
    clips: Annotated[int, Parameter(help="Clips of each track.")] = 2,
    chunks: Annotated[int, Parameter(help="Chunks of 33 frames in long clips.")] = 3,
    tracks: Annotated[str | None, Parameter(help="Among chunk,loop,long; all.")] = None,
    size: Annotated[str | None, Parameter(help="HEIGHTxWIDTH; 192x320 if left out.")] = None,
) -> None:
    """Photo, depth, prompt and camera path of each clip, to make videos of with other tools.

    `flythrough evaluate worlds --videos FOLDER` then judges CLIP.mp4 of each.

    Example: flythrough evaluate inputs worlds --clips 1 -o inputs
    """
    from flythrough.evaluation.inputs import InputsRequest, write_inputs

    request = InputsRequest(
        suite=name,
        folder=output,
        clips=clips,
        chunks=chunks,
        tracks=_names(tracks),
        size=parse_size(size) or (192, 320),
    )
    written = write_inputs(request, note)
    emit(
        {"folder": str(output), "clips": written},
        f"{output}: photo, depth, cameras and prompt of {len(written)} clips",
    )


def _suite(clips: Clips, output: Path, suite: SuiteOptions, judged: ModelOptions) -> None:
    from flythrough.evaluation.benchmark import check_suite, suite_maker

    request = suite.request(output, judged.choice())
    study = check_suite(request, clips)
    _carry_out(study, lambda: suite_maker(request, study, note))


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name.strip() for name in text.split(","))


def _carry_out(study: Study, maker: Callable[[], Maker]) -> None:
    """Make what is missing, write the report, and say what was found."""
    results, kept = _run(study, maker())
    from flythrough.evaluation.report import write_report

    report = write_report(study, results)
    if report.passed_controls:
        note(
            f"the measures do not answer as they must: {', '.join(report.passed_controls)}; do not "
            "trust this table where they matter."
        )
    means = next(iter(report.lines.values())) if len(report.lines) == 1 else report.lines
    emit(
        {
            "folder": str(study.folder),
            "made": len(results) - kept,
            "kept": kept,
            "results": str(report.results),
            "page": str(report.page),
            "means": means,
        },
        f"{report.markdown}{report.page}: {len(results)} videos, {kept} kept",
    )


def _run(study: Study, maker: Maker) -> tuple[list[Figures], int]:
    """All videos under one progress bar; their figures, and how many were there before."""
    from flythrough.cli.video_progress import video_progress
    from flythrough.evaluation.study import run_study

    results, kept = [], 0
    with video_progress(study.videos) as progress:
        for result, old in run_study(study, maker, progress):
            results.append(result)
            kept += old
    return results, kept
