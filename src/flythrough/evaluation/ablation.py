"""The interface ablation: every switch of the camera method on held-out worlds, beside references
and controls that must fail.

Each video is measured as soon as it is made and its figures are kept in a file of their own, so a
run that was stopped goes on where it was.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flythrough.engine.files import check_lora, named_files
from flythrough.engine.geometry_source import check_geometry, estimates_anything
from flythrough.engine.options import check_device
from flythrough.errors import InputError
from flythrough.evaluation.pose import feature_library
from flythrough.evaluation.rows import Row, chosen_rows
from flythrough.evaluation.suite import CASES, EXACT, Case, truth_of
from flythrough.models.catalog import ModelFolder, find_model
from flythrough.rollout.canonical import canonical_json, digest_of

if TYPE_CHECKING:
    from flythrough.evaluation.measures import ClipResult

Notify = Callable[[str], None]
Progress = Callable[[int, str, float], None]
"""Called with the number of finished videos, the one at work and its finished share."""

STRIP = 5
"""Frames of each video that the contact sheets show."""


@dataclass(frozen=True, kw_only=True)
class AblationRequest:
    """What to measure, and where to.

    ``clips`` of the suite from its first on, ``chunks`` of 33 frames each; ``rows`` by name (all
    if None); ``lora`` the adapter of the rows that use one; ``geometry`` exact, or what
    ``--geometry`` of generate takes.
    """

    folder: Path
    clips: int = 4
    chunks: int = 1
    rows: Sequence[str] | None = None
    model: str = "nano"
    lora: str = "default"
    geometry: str = EXACT
    device: str = "auto"


@dataclass(frozen=True)
class CheckedAblation:
    """A request found consistent: the model, and rows and clips in the order of the table."""

    request: AblationRequest
    model: ModelFolder
    rows: tuple[Row, ...]
    cases: tuple[Case, ...]
    size: tuple[int, int]

    @property
    def videos(self) -> int:
        return len(self.rows) * len(self.cases)

    def configuration(self) -> dict[str, object]:
        """What all rows share and figures depend on."""
        request = self.request
        return {
            "model": self.model.name,
            "model_digest": self.model.digest(),
            "lora": request.lora,
            "geometry": request.geometry,
            "chunks": request.chunks,
            "size": list(self.size),
            "steps": list(self.model.defaults.steps),
            "warp_stages": self.model.defaults.warp_stages,
            **named_files(request.geometry, request.lora),
        }

    def file(self, row: Row, case: Case) -> Path:
        """Where the figures of one video lie; its frames for people lie beside it (.jpg)."""
        return self.request.folder / "clips" / f"{case.name}-{row.name}.json"


def check_ablation(request: AblationRequest) -> CheckedAblation:
    """Refuse what cannot work, in one sentence, before anything is rendered or loaded.

    Raises:
        InputError: a count out of range, an unknown row or device, a folder that cannot be
            written, or OpenCV is missing.
        WeightsError: there is no such model, adapter or network.
    """
    if not 1 <= request.clips <= len(CASES):
        raise InputError(
            f"--clips {request.clips} is out of range; the suite has {len(CASES)} clips, so give 1 "
            f"to {len(CASES)}."
        )
    if not 1 <= request.chunks <= 100:
        raise InputError(f"--chunks {request.chunks} is out of range; give 1 to 100.")
    rows = chosen_rows(request.rows)
    check_device(request.device)
    _check_folder(request.folder)
    model = find_model(request.model)
    check_lora(request.lora)
    _check_geometry(request.geometry, model)
    feature_library()
    size = (model.defaults.height, model.defaults.width)
    return CheckedAblation(request, model, rows, CASES[: request.clips], size)


def run_ablation(
    checked: CheckedAblation, notify: Notify, progress: Progress
) -> Iterator[tuple[ClipResult, bool]]:
    """Yields every video's figures, clip after clip, and whether they were kept from before."""
    from flythrough.evaluation.measures import VERSION, measured, read_result
    from flythrough.evaluation.pose import FirstView
    from flythrough.evaluation.videos import VideoMaker
    from flythrough.media.image import write_picture
    from flythrough.media.picture import strip

    request, folder = checked.request, checked.request.folder
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    maker = VideoMaker(
        request.model, request.lora, request.geometry, request.device, folder / "inputs", notify
    )
    shared = [VERSION, checked.configuration()]
    done = 0
    for case in checked.cases:
        truth = first = None
        for row in checked.rows:
            state = [shared, asdict(case), row.name, dict(row.switches)]
            digest = digest_of("ablation", canonical_json(state))
            file = checked.file(row, case)
            kept = read_result(file, digest)
            picture = file.with_suffix(".jpg")
            if kept is not None and picture.is_file():
                done += 1
                progress(done, f"{case.name}: {row.name}", 0.0)
                yield kept, True
                continue
            if truth is None:
                progress(done, f"{case.name}: rendering the truth", 0.0)
                truth = truth_of(case, request.chunks, checked.size, folder / "worlds")
            first = first or FirstView(truth.frames[0], truth.depth[0], truth.intrinsics)
            label = f"{case.name}: {row.name}"
            progress(done, label, 0.0)
            started = time.monotonic()

            def report(share: float, done: int = done, label: str = label) -> None:
                progress(done, label, share)

            frames = maker.video(row, truth, report)
            seconds = time.monotonic() - started
            result = measured(frames, truth, first, row.name, digest, seconds)
            write_picture(picture, strip(frames, STRIP))
            result.write(file)
            done += 1
            progress(done, label, 0.0)
            yield result, False


def _check_geometry(geometry: str, model: ModelFolder) -> None:
    if geometry in (EXACT, "flat"):
        return
    if not estimates_anything(geometry):
        raise InputError(
            f"--geometry {geometry} cannot serve several worlds; give exact, default, flat, or a "
            "depth network by name or folder."
        )
    check_geometry(geometry, model, None)


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"The output {folder} is a file, but a folder is filled; name another.")
    parent = folder.absolute()
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(f"The folder {parent} cannot be written to; choose another output.")
