"""The interface ablation: every switch of the camera method on held-out worlds, beside references
and controls that must fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from flythrough.evaluation import columns
from flythrough.evaluation.features import feature_library
from flythrough.evaluation.judged_model import ModelChoice, check_model, model_configuration
from flythrough.evaluation.rows import chosen_rows
from flythrough.evaluation.study import Study, Track, check_chunks, check_clips, check_folder
from flythrough.evaluation.suite import CASES, Worlds


@dataclass(frozen=True, kw_only=True)
class AblationRequest:
    """What to measure, and where to.

    ``clips`` of the suite from its first on, ``chunks`` of 33 frames each; ``rows`` by name (all
    if None).
    """

    folder: Path
    clips: int = 4
    chunks: int = 1
    rows: Sequence[str] | None = None
    choice: ModelChoice = field(default_factory=ModelChoice)


def check_ablation(request: AblationRequest) -> Study:
    """Refuse what cannot work, in one sentence, before anything is rendered or loaded.

    Raises:
        InputError: a count out of range, an unknown row or device, a folder that cannot be
            written, or OpenCV is missing.
        WeightsError: there is no such model, adapter or network.
    """
    check_clips(request.clips, len(CASES))
    check_chunks(request.chunks)
    rows = chosen_rows(request.rows)
    check_folder(request.folder)
    model = check_model(request.choice)
    feature_library()
    cases = tuple(replace(case, chunks=request.chunks) for case in CASES)
    track = Track(
        name="ablation",
        title="Rows",
        cases=cases[: request.clips],
        rows=rows,
        columns=columns.ABLATION,
        plots=(
            ("frame_rotation", "R-Err (deg)"),
            ("frame_translation", "T-Err (% of median depth)"),
        ),
        others=cases,
    )
    return Study(
        name="ablation",
        title="Ablation of the camera method",
        folder=request.folder,
        size=(model.defaults.height, model.defaults.width),
        tracks=(track,),
        source=lambda _: Worlds(),
        configuration=model_configuration(request.choice, model),
        about=(
            f"{request.clips} held-out clips of {33 * request.chunks} frames, geometry "
            f"{request.choice.geometry}.",
        ),
    )
