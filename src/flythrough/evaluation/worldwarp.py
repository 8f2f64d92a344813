"""The ablation of WorldWarp (arXiv 2512.19678, table 3): what is kept of the scene, and what noise
levels depend on, judged at the second and the fourth chunk of long ways through held-out worlds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from flythrough.engine.options import check_numbers, check_size
from flythrough.engine.worldwarp_options import check_strength, checked_window
from flythrough.errors import InputError
from flythrough.evaluation import columns
from flythrough.evaluation.features import feature_library
from flythrough.evaluation.judged_model import ModelChoice, check_model, model_configuration
from flythrough.evaluation.portions import Portion, portion_columns
from flythrough.evaluation.rows import CODEC, TRUTH, WARP, Row, controls
from flythrough.evaluation.study import (
    Maker,
    Study,
    Track,
    check_clips,
    check_folder,
)
from flythrough.evaluation.suite import CASES, LONG, Worlds
from flythrough.models.catalog import ModelFolder
from flythrough.rollout.window import Window
from flythrough.scene.settings import SceneKind

WORLD_CASES = (*LONG, *CASES)
"""Long ways first; the others are walked more slowly than in their own suite."""

JUDGED = (2, 4)
"""Chunks with figures of their own, counted from 1."""

_NOISE = (
    ("noise-uniform", "full-sequence noise", "uniform"),
    ("noise-spatial", "spatial-only noise", "spatial"),
    ("noise-temporal", "temporal-only noise", "temporal"),
)
_CONTROLS = ("still", "half", "fading", "jumping")
_GENERATED = ("cache-none", "cache-points", "cache-mesh", "cache-gaussian", "full")
ROW_NAMES = (
    *("truth", "codec", "warp", *_GENERATED),
    *(name for name, _, _ in _NOISE),
    *_CONTROLS,
)


@dataclass(frozen=True, kw_only=True)
class WorldWarpRequest:
    """What to measure, and where to.

    ``clips`` of the suite from its first on, ``chunks`` each; ``rows`` by name (all if None);
    ``scene`` is kept in the full method and in the rows about noise; ``gaussian_steps``,
    ``strength``, ``steps``, ``chunk_frames`` and ``overlap`` None take the model's own; ``size``
    (height, width) too.
    """

    folder: Path
    clips: int = 2
    chunks: int = 4
    rows: Sequence[str] | None = None
    scene: SceneKind = "gaussian"
    gaussian_steps: int | None = None
    strength: float | None = None
    steps: int | None = None
    chunk_frames: int | None = None
    overlap: int | None = None
    size: tuple[int, int] | None = None
    choice: ModelChoice = field(default_factory=lambda: ModelChoice(geometry="default"))


def check_worldwarp_study(request: WorldWarpRequest) -> Study:
    """Refuse what cannot work, in one sentence, before anything is rendered or loaded.

    Raises:
        InputError: a count out of range, an unknown row or device, an option without effect, a
            folder that cannot be written, or OpenCV is missing.
        WeightsError: there is no such model, it has no ST-Diff, or a network is missing.
    """
    check_clips(request.clips, len(WORLD_CASES))
    if not 2 <= request.chunks <= 100:
        raise InputError(
            f"--chunks {request.chunks} is out of range; give 2 to 100: the second and the fourth "
            "chunk are judged."
        )
    if request.scene not in ("mesh", "gaussian"):
        raise InputError(f"--scene {request.scene} is a row of its own; choose mesh or gaussian.")
    check_folder(request.folder)
    model = check_model(request.choice, "worldwarp")
    window = _window(request, model)
    rows, count = worldwarp_rows(request, window), window.first(request.chunks)
    size = request.size or (model.defaults.height, model.defaults.width)
    _check_made(request, rows)
    _check_gaussian_steps(request, rows)
    check_size(size, pyramid=False)
    if request.steps is not None:
        check_numbers(count, 0, (request.steps,))
    check_strength(request.strength)
    feature_library()
    cases = tuple(
        replace(case, chunks=request.chunks, frames=count) for case in WORLD_CASES[: request.clips]
    )
    portions = tuple(
        Portion(f"chunk_{number}", window.first(number - 1), window.first(number))
        for number in JUDGED
        if number <= request.chunks
    )
    track = Track(
        name="worldwarp",
        title="Rows",
        cases=cases,
        rows=rows,
        columns=(
            *portion_columns(portions),
            *columns.columns("judged", "seam", "drift", "drift_psnr", "seconds"),
        ),
        plots=(
            ("frame_rotation", "R-Err (deg)"),
            ("frame_translation", "T-Err (% of median depth)"),
            ("frame_psnr", "PSNR on visible pixels (dB)"),
            ("frame_colour", "distance of mean colours (Delta E)"),
        ),
        anchored=True,
        portions=portions,
    )
    worldwarp = {
        **asdict(model.defaults.worldwarp),
        "window": [window.frames, window.overlap],
        "full_scene": request.scene,
    }
    return Study(
        name="worldwarp",
        title="Ablation of WorldWarp",
        folder=request.folder,
        size=size,
        tracks=(track,),
        source=lambda _: Worlds(),
        configuration={**model_configuration(request.choice, model), "worldwarp": worldwarp},
        about=(
            f"{request.clips} held-out clips of {count} frames in {request.chunks} chunks "
            f"({window.frames} frames, {window.overlap} shared), geometry "
            f"{request.choice.geometry}, the full method with a {request.scene} memory.",
            "One network runs every row: the published table compares networks that were trained "
            "for their row's noise, this one says what each part does when the network is run.",
        ),
        not_run=(
            "FID, LPIPS and poses by DUSt3R, as published: they need weights that this suite does "
            "without; never put these figures and published ones in one column.",
        ),
    )


def worldwarp_rows(request: WorldWarpRequest, window: Window) -> tuple[Row, ...]:
    """The rows of the table that were asked for, in its order.

    Raises:
        InputError: an unknown name, or none at all.
    """
    names = ROW_NAMES if request.rows is None else tuple(request.rows)
    unknown = [name for name in names if name not in ROW_NAMES]
    if unknown or not names:
        what = f"The row {unknown[0]!r} is unknown" if unknown else "No row was named"
        raise InputError(f"{what}; choose among {', '.join(ROW_NAMES)}.")
    other = "cache-gaussian" if request.scene == "gaussian" else "cache-mesh"
    if request.rows is None:
        names = tuple(name for name in names if name != other)  # the full method once more
    rows = (
        TRUTH,
        CODEC,
        WARP,
        _row("cache-none", "no cache", request, scene="none"),
        _row("cache-points", "cache: point cloud", request, scene="points"),
        _row("cache-mesh", "cache: keyframe meshes", request, scene="mesh"),
        _row("cache-gaussian", "cache: Gaussians", request, scene="gaussian"),
        full_row(request),
        *(_row(name, title, request, noise_field=kind) for name, title, kind in _NOISE),
        *controls(*_CONTROLS),
    )
    return tuple(
        replace(row, chunk=window.frames, overlap=window.overlap)
        for row in rows
        if row.name in names
    )


def full_row(request: WorldWarpRequest) -> Row:
    """The whole method: both kinds of noise, the scene that was asked for."""
    return _row("full", f"full: {request.scene} memory, both kinds of noise", request)


def worldwarp_maker(request: WorldWarpRequest, notify: Callable[[str], None]) -> Maker:
    """What makes the rows that the truth alone does not give."""
    from flythrough.evaluation.videos import VideoMaker

    return VideoMaker(request.choice, request.folder / "inputs", notify, full_row(request))


def _row(name: str, title: str, request: WorldWarpRequest, **more: Any) -> Row:
    switches: dict[str, Any] = {"method": "worldwarp", "scene": request.scene, **more}
    if switches["scene"] == "gaussian" and request.gaussian_steps is not None:
        switches["warp_settings"] = f"gaussian_steps={request.gaussian_steps}"
    chosen: Mapping[str, Any] = {
        "strength": request.strength,
        "steps": None if request.steps is None else (request.steps,),
        "chunk_frames": request.chunk_frames,
        "overlap": request.overlap,
    }
    switches |= {key: value for key, value in chosen.items() if value is not None}
    return Row(name, title, "generated", switches)


def _window(request: WorldWarpRequest, model: ModelFolder) -> Window:
    usual = model.defaults.worldwarp
    frames = usual.chunk_frames if request.chunk_frames is None else request.chunk_frames
    overlap = usual.overlap if request.overlap is None else request.overlap
    return checked_window(frames, overlap)


def _check_made(request: WorldWarpRequest, rows: Sequence[Row]) -> None:
    """Options of the generator need a row that it makes, the scene's kind one that has a scene."""
    if any(row.kind == "generated" for row in rows):
        return
    given = {
        f"--scene {request.scene}": request.scene != "gaussian" and not _scenes(request, rows),
        f"--strength {request.strength}": request.strength is not None,
        f"--steps {request.steps}": request.steps is not None,
    }
    for option, idle in given.items():
        if idle:
            raise InputError(
                f"{option} has no effect, since none of the rows is generated; drop it or name a "
                "row such as full."
            )


def _check_gaussian_steps(request: WorldWarpRequest, rows: Sequence[Row]) -> None:
    if request.gaussian_steps is None:
        return
    if "gaussian" not in _scenes(request, rows):
        raise InputError(
            f"--gaussian-steps {request.gaussian_steps} has no effect, since no row keeps "
            "Gaussians; drop it."
        )
    if not 0 <= request.gaussian_steps <= 10_000:
        raise InputError(
            f"--gaussian-steps {request.gaussian_steps} is out of range; give 0 to 10000."
        )


def _scenes(request: WorldWarpRequest, rows: Sequence[Row]) -> set[SceneKind]:
    """What rows keep of the scene; the warp alone has the full method's."""
    own = {row.switches["scene"] for row in rows if row.kind == "generated"}
    return own | {request.scene for row in rows if row.name == WARP.name}


__all__ = ["ROW_NAMES", "WorldWarpRequest", "check_worldwarp_study", "worldwarp_maker"]
