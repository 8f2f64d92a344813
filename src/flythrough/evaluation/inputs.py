"""What other tools need to make videos of the suite's clips: photo, depth, cameras, prompt."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from flythrough.cameras.formats import write_trajectory
from flythrough.disk import replacing, writing
from flythrough.errors import InputError
from flythrough.evaluation.benchmark import WORLDS, chosen_tracks
from flythrough.evaluation.renderers.clips import renderer_clips
from flythrough.evaluation.renderers.source import RENDERERS
from flythrough.evaluation.study import check_chunks, check_clips, check_folder
from flythrough.media.image import write_picture


@dataclass(frozen=True, kw_only=True)
class InputsRequest:
    """``suite`` is worlds or a renderer's name; the rest as in ``benchmark.SuiteRequest``."""

    suite: str
    folder: Path
    clips: int
    chunks: int
    tracks: Sequence[str] | None
    size: tuple[int, int]


def write_inputs(request: InputsRequest, notify: Callable[[str], None]) -> list[str]:
    """Write CLIP.png, CLIP-depth.npz (z-depth in metres or scene units), CLIP.npz (cameras, OpenCV
    axes, in multiples of the median depth) and clips.json (frames, path, prompt, median depth).

    Returns:
        the clips' names.

    Raises:
        InputError: an unknown suite or track, a count out of range, or a folder that cannot be
            written.
        FaultError: the disk failed.
    """
    known = ("worlds", *RENDERERS)
    if request.suite not in known:
        raise InputError(
            f"The suite {request.suite!r} is unknown; choose among {', '.join(known)}."
        )
    clips = WORLDS if request.suite == "worlds" else renderer_clips([request.suite])
    tracks = chosen_tracks(request.tracks)
    check_clips(request.clips, max(clips.most(name) for name in tracks), request.suite)
    check_chunks(request.chunks)
    check_folder(request.folder)
    folder, told = request.folder, {}
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for track in tracks:
            for case in clips.of(track, request.clips):
                long = replace(case, chunks=request.chunks) if track == "long" else case
                notify(f"rendering {case.name}.")
                truth = clips.source(long).truth(long, request.size)
                assert truth.depth is not None
                write_picture(folder / f"{case.name}.png", truth.frames[0])
                with replacing(folder / f"{case.name}-depth.npz") as part, part.open("wb") as file:
                    np.savez(file, depth=truth.depth[0], intrinsics=truth.intrinsics)
                write_trajectory(folder / f"{case.name}.npz", truth.trajectory())
                told[case.name] = {
                    "track": track,
                    "frames": len(truth),
                    "path": case.path,
                    "prompt": truth.caption,
                    "median_depth": truth.median_depth,
                    "size": list(request.size),
                }
        with replacing(folder / "clips.json") as partial:
            partial.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return list(told)
