"""The weight-free suite: clips of one chunk, there and back, and long ones, of one source of truth.

What is judged is a model, or a folder of videos that other tools made (``inputs.py`` writes what
they need). Controls stand in the tracks whose measures they are there to try.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from flythrough.errors import InputError
from flythrough.evaluation import columns
from flythrough.evaluation.features import feature_library
from flythrough.evaluation.judged_model import ModelChoice, check_model, model_configuration
from flythrough.evaluation.rows import CODEC, FULL, GIVEN, TRUTH, WARP, WARP_CONTROL, Row, controls
from flythrough.evaluation.study import Study, Track, check_chunks, check_clips, check_folder
from flythrough.evaluation.suite import CASES, LONG, LOOPS, Worlds
from flythrough.evaluation.truth import EXACT, Case, Source
from flythrough.models.catalog import find_model

if TYPE_CHECKING:
    from flythrough.evaluation.study import Maker

TRACKS = ("chunk", "loop", "long")

_CHUNK_CONTROLS = controls(
    "still", "fade", "flat", "half", "double", "mirrored", "askew", "reversed", "shifted",
    "shuffled", "other", "flickering", "soft",
)  # fmt: skip
_LOOP_CONTROLS = controls("still", "forgetful")
_LONG_CONTROLS = controls("still", "fading", "jumping", "flickering")

_POSE_PLOTS = (
    ("frame_rotation", "R-Err (deg)"),
    ("frame_translation", "T-Err (% of median depth)"),
)
_PIXEL_PLOTS = (
    ("frame_psnr", "PSNR on visible pixels (dB)"),
    ("frame_detail", "detail on visible pixels (1 = render)"),
)
_COLOUR_PLOT = (("frame_colour", "distance of mean colours (Delta E)"),)


@dataclass(frozen=True, kw_only=True)
class SuiteRequest:
    """What to measure, and where to.

    ``clips`` of each track from its first on, ``chunks`` of 33 frames in the long ones; ``tracks``
    by name (all if None); ``videos`` a folder of finished videos in the place of the model's, with
    ``size`` (height, width), ``label`` and, if known, their ``chunk_frames``; ``controls`` False
    leaves the controls out, whose failing is the proof that the measures see anything.
    """

    folder: Path
    clips: int = 2
    chunks: int = 3
    tracks: Sequence[str] | None = None
    choice: ModelChoice = field(default_factory=ModelChoice)
    videos: Path | None = None
    label: str | None = None
    chunk_frames: int | None = None
    size: tuple[int, int] | None = None
    controls: bool = True


@dataclass(frozen=True)
class Clips:
    """The clips of a source by track."""

    name: str
    title: str
    chunk: tuple[Case, ...]
    loop: tuple[Case, ...]
    long: tuple[Case, ...]
    source: Callable[[Case], Source]

    def of(self, track: str, clips: int | None = None) -> tuple[Case, ...]:
        """The first ``clips`` of each of its sources; all for None."""
        found: tuple[Case, ...] = getattr(self, track)
        if clips is None:
            return found
        seen: Counter[str] = Counter()
        chosen = []
        for case in found:
            seen[case.source] += 1
            if seen[case.source] <= clips:
                chosen.append(case)
        return tuple(chosen)

    def most(self, track: str) -> int:
        """Clips of the source that has most."""
        counted = Counter(case.source for case in self.of(track))
        return max(counted.values(), default=0)


WORLDS = Clips("worlds", "Held-out worlds", CASES, LOOPS, LONG, lambda _: Worlds())


def check_suite(request: SuiteRequest, clips: Clips = WORLDS) -> Study:
    """Refuse what cannot work, in one sentence, before anything is rendered or loaded.

    Raises:
        InputError: a count out of range, an unknown track or device, a folder that cannot be
            written, an option without effect, or OpenCV is missing.
        WeightsError: there is no such model, adapter or network.
    """
    names = chosen_tracks(request.tracks)
    most = max(clips.most(name) for name in names)
    check_clips(request.clips, most, f"the suite {clips.name}")
    check_chunks(request.chunks)
    if request.chunks < 2 and "long" in names:
        raise InputError(
            f"--chunks {request.chunks} leaves the long track without a border; give 2 or more, or "
            "--tracks chunk,loop."
        )
    check_folder(request.folder)
    configuration, size = judged_videos(request)
    feature_library()
    tracks = tuple(_track(request, clips, name) for name in names)
    check_borders(request, [case for track in tracks for case in track.cases])
    return Study(
        name=clips.name,
        title=clips.title,
        folder=request.folder,
        size=size,
        tracks=tuple(track for track in tracks if track.cases),
        source=clips.source,
        configuration=configuration,
        about=(f"What is judged: {title_of(request)}.",),
        not_run=(
            "LPIPS, FID, FVD, VBench, CLIP and other scores by learned networks: they need weights "
            "that this suite does without.",
            "Pose by COLMAP: dollies and pans do not reconstruct with its defaults, and dropped "
            "clips flatter.",
        ),
    )


def chosen_tracks(names: Sequence[str] | None) -> tuple[str, ...]:
    """The tracks of these names in their order; all for None.

    Raises:
        InputError: an unknown name, or none at all.
    """
    if names is None:
        return TRACKS
    unknown = [name for name in names if name not in TRACKS]
    if unknown or not names:
        what = f"The track {unknown[0]!r} is unknown" if unknown else "No track was named"
        raise InputError(f"{what}; choose among {', '.join(TRACKS)}.")
    return tuple(name for name in TRACKS if name in names)


def suite_maker(request: SuiteRequest, study: Study, notify: Callable[[str], None]) -> Maker:
    """What makes the rows that the truth alone does not give.

    Raises:
        InputError: the folder of videos lacks one.
    """
    if request.videos is not None:
        from flythrough.evaluation.given import GivenVideos

        return GivenVideos(request.videos, study.cases, notify)
    from flythrough.evaluation.videos import VideoMaker

    return VideoMaker(request.choice, request.folder / "inputs", notify)


def judged_videos(request: SuiteRequest) -> tuple[dict[str, object], tuple[int, int]]:
    """What figures of the judged videos depend on, and their (height, width).

    Raises:
        InputError: an option without effect on finished videos, or on a model.
        WeightsError: there is no such model, adapter or network.
    """
    if request.chunk_frames is not None:
        _check_chunk_frames(request.chunk_frames, request.videos)
    if request.videos is None:
        if request.label is not None:
            raise InputError(
                f"--label {request.label} names videos of other tools; give --videos FOLDER too."
            )
        model = check_model(request.choice)
        size = request.size or (model.defaults.height, model.defaults.width)
        return {**model_configuration(request.choice, model)}, size
    if replace(request.choice, geometry=EXACT) != ModelChoice():
        raise InputError(
            "--videos are finished, so --model, --lora and --device have no effect; drop them."
        )
    nano = find_model("nano").defaults
    told: dict[str, object] = {
        "videos": title_of(request),
        "chunk_frames": request.chunk_frames,
    }
    return told, request.size or (nano.height, nano.width)


def judged_row(request: SuiteRequest) -> Row:
    """The row of what is judged: the full method, or given videos."""
    if request.videos is None:
        return replace(FULL, title=title_of(request))
    return replace(GIVEN, title=title_of(request), chunk=request.chunk_frames)


def check_borders(request: SuiteRequest, cases: Sequence[Case]) -> None:
    """Refuse a ``chunk_frames`` by which no clip has a border.

    Raises:
        InputError: it is as long as the longest clip.
    """
    longest = max((case.count for case in cases), default=0)
    if request.chunk_frames is not None and request.chunk_frames >= longest:
        raise InputError(
            f"--chunk-frames {request.chunk_frames} has no effect on clips of at most {longest} "
            "frames, which have no border; drop it."
        )


def _check_chunk_frames(frames: int, videos: Path | None) -> None:
    if videos is None:
        raise InputError(
            f"--chunk-frames {frames} is about videos of other tools; give --videos FOLDER too."
        )
    if not 2 <= frames <= 10_000:
        raise InputError(f"--chunk-frames {frames} is out of range; give 2 to 10000.")


def title_of(request: SuiteRequest) -> str:
    """The name of what is judged, for tables."""
    if request.videos is None:
        adapter = "" if request.choice.lora == "default" else f", adapter {request.choice.lora}"
        return f"{request.choice.model}{adapter}, geometry {request.choice.geometry}"
    return request.label or request.videos.resolve().name


def _track(request: SuiteRequest, clips: Clips, name: str) -> Track:
    given = request.videos is not None
    judged = judged_row(request)
    helped = () if given else (CODEC, WARP_CONTROL)
    cases = clips.of(name, request.clips)
    if name == "long":
        cases = tuple(replace(case, chunks=request.chunks) for case in cases)
    plots: tuple[tuple[str, str], ...]
    if name == "chunk":
        rows, title = (TRUTH, *helped, judged, *_CHUNK_CONTROLS), "One chunk"
        shown, plots = columns.CHUNK, (*_POSE_PLOTS, *_PIXEL_PLOTS)
    elif name == "loop":
        rows, title = (TRUTH, judged, *_LOOP_CONTROLS), "There and back"
        shown, plots = columns.LOOP, (_POSE_PLOTS[0], ("revisit_psnr", "revisit (dB)"))
    else:
        rows, title = (TRUTH, judged, *_LONG_CONTROLS), f"{request.chunks} chunks"
        shown, plots = columns.LONG, (*_POSE_PLOTS, *_PIXEL_PLOTS, *_COLOUR_PLOT)
    return Track(
        name=name,
        title=title,
        cases=cases,
        rows=tuple(row for row in rows if request.controls or not _is_control(row)),
        columns=shown,
        plots=plots,
        anchored=name != "chunk",
        others=(*clips.chunk[:2], *clips.loop[:2]),
    )


def _is_control(row: Row) -> bool:
    return row.kind == "control"


__all__ = ["TRACKS", "WARP", "WORLDS", "Clips", "SuiteRequest", "check_suite", "suite_maker"]
