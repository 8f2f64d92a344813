"""Clips of a data set as a study: read, cut, and given the landmarks that stand in for depth."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import numpy as np

from flythrough.cameras import pose as se3
from flythrough.cameras.formats import read_trajectory
from flythrough.cameras.source import trajectory_from
from flythrough.errors import InputError
from flythrough.evaluation.benchmark import (
    SuiteRequest,
    check_borders,
    judged_row,
    judged_videos,
    title_of,
)
from flythrough.evaluation.columns import columns
from flythrough.evaluation.datasets.davis import Davis
from flythrough.evaluation.datasets.dl3dv import DL3DV
from flythrough.evaluation.datasets.layout import Layout, Scene, fitted, fitted_intrinsics
from flythrough.evaluation.datasets.protocol import Protocol, protocol_of
from flythrough.evaluation.datasets.re10k import RE10K
from flythrough.evaluation.datasets.triangulation import landmarks
from flythrough.evaluation.datasets.worldscore import WorldScore
from flythrough.evaluation.features import feature_library
from flythrough.evaluation.rows import TRUTH, Row, controls
from flythrough.evaluation.study import Study, Track, check_clips, check_folder
from flythrough.evaluation.suite import VIEW_ANGLE
from flythrough.evaluation.truth import EXACT, Case, Truth
from flythrough.media.fitting import default_intrinsics

LAYOUTS: dict[str, Layout] = {
    "re10k": RE10K(),
    "dl3dv": DL3DV(),
    "davis": Davis(),
    "worldscore": WorldScore(),
}

_CONTROLS = controls("still", "shifted", "shuffled", "flickering", "soft")
_PLOTS = (
    ("frame_rotation", "R-Err (deg)"),
    ("frame_translation", "T-Err (% of median depth)"),
    ("frame_psnr", "PSNR (dB)"),
)


@dataclass(frozen=True, kw_only=True)
class DatasetRequest:
    """Which data set, where it lies, and what is judged.

    ``cameras`` is a folder with CLIP.npz or CLIP.json for data sets without cameras; ``protocol``
    a file in the place of the one that comes along; ``split`` in the place of the protocol's.
    """

    dataset: str
    data: Path
    suite: SuiteRequest
    split: str | None = None
    protocol: Path | None = None
    cameras: Path | None = None


def check_dataset(request: DatasetRequest) -> Study:
    """Refuse what cannot work, in one sentence, before anything is loaded.

    Raises:
        InputError: an unknown data set, a folder that is not laid out as published, an option
            without effect, or OpenCV is missing.
        WeightsError: there is no such model, adapter or network.
    """
    protocol = protocol_of(request.dataset, request.protocol)
    if request.split is not None:
        protocol = replace(protocol, split=request.split)
    suite, data = request.suite, request.data
    if not data.is_dir():
        raise InputError(f"--data {data} is no folder; give the one that holds {request.dataset}.")
    if suite.tracks is not None:
        raise InputError("--tracks has no effect on a data set, whose clips are of one kind.")
    if suite.videos is None and suite.choice.geometry == EXACT:
        raise InputError(
            "--geometry exact needs depth, which data sets do not have; leave it out or give "
            "default, flat or a depth network."
        )
    _check_cameras(request)
    check_folder(suite.folder)
    cases = _cases(request.dataset, data, protocol, suite.clips)
    check_borders(suite, cases)
    feature_library()
    if suite.size is None and protocol.size is not None:
        suite = replace(suite, size=protocol.size)
    configuration, size = judged_videos(suite)
    source = Dataset(request.dataset, data, protocol, request.cameras)
    return Study(
        name=request.dataset,
        title=f"Data set {request.dataset}, {protocol.split or 'all'}",
        folder=suite.folder,
        size=size,
        tracks=(_track(request, protocol, cases),),
        source=lambda case: replace(source, clip=case.kind),
        configuration={**configuration, "protocol": _told(protocol)},
        about=(f"What is judged: {title_of(suite)}.", *protocol.about),
        not_run=protocol.not_run,
    )


@dataclass(frozen=True)
class Dataset:
    """A data set as a source of truths; ``version`` knows the files of ``clip``, if it is given."""

    name: str
    data: Path
    protocol: Protocol
    cameras: Path | None = field(default=None)
    clip: str | None = None

    def version(self) -> str:
        told = f"{self.name} 2 {_told(self.protocol)} {self.cameras} {self.data.resolve()}"
        return told if self.clip is None else f"{told} {self._clip_digest}"

    @cached_property
    def _clip_digest(self) -> str:
        """Of the clip's cameras and words, and of size and time of its pictures: figures of data
        that were corrected are made again."""
        assert self.clip is not None
        scene = LAYOUTS[self.name].scene(self.data, self.protocol.split, self.clip)
        total = blake2b(f"{scene.path}|{scene.caption}".encode(), digest_size=16)
        for array in (scene.intrinsics, scene.world_from_camera):
            total.update(b"|" if array is None else np.ascontiguousarray(array).tobytes())
        for file in (*scene.pictures, *scene.masks):
            state = file.stat()
            total.update(f"{file.name}:{state.st_size}:{state.st_mtime_ns};".encode())
        if self.cameras is not None:
            total.update(_camera_file(self.cameras, self.clip).read_bytes())
        return total.hexdigest()

    def truth(self, case: Case, size: tuple[int, int]) -> Truth:
        scene = LAYOUTS[self.name].scene(self.data, self.protocol.split, case.kind)
        chosen = _chosen(scene, self.protocol, case)
        frames = np.stack([fitted(scene.pictures[index], size) for index in chosen])
        k = (
            default_intrinsics(*size, VIEW_ANGLE)
            if scene.intrinsics is None
            else fitted_intrinsics(scene.intrinsics, scene.pictures[0], size)
        )
        poses, k, median = self._cameras_of(case, scene, chosen, k, size)
        marks = None
        if poses is not None and len(frames) > 1:
            marks = landmarks(frames, poses, k)
            median = float(np.median(marks[:, 2])) if len(marks) else None
        still = None
        if scene.masks:
            masks = [fitted(scene.masks[index], size, nearest=True) for index in chosen]
            still = np.stack([mask == 0 if mask.ndim == 2 else ~mask.any(-1) for mask in masks])
        return Truth(
            case=case,
            frames=frames,
            depth=None,
            visible=None,
            world_from_camera=poses,
            intrinsics=k,
            median_depth=median,
            caption=scene.caption,
            landmarks=marks,
            still=still,
        )

    def along(
        self, case: Case, world_from_camera: np.ndarray, size: tuple[int, int]
    ) -> np.ndarray | None:
        del case, world_from_camera, size
        return None

    def _cameras_of(
        self, case: Case, scene: Scene, chosen: list[int], k: np.ndarray, size: tuple[int, int]
    ) -> tuple[np.ndarray | None, np.ndarray, float | None]:
        """Poses relative to the first, intrinsics, and the median depth in their unit if known."""
        if scene.path is not None:
            path = trajectory_from(scene.path, case.count, 16.0)
            return path.resolve(k, size, 1.0).world_from_camera, k, 1.0
        poses = scene.world_from_camera
        if poses is None and self.cameras is not None:
            given = read_trajectory(_camera_file(self.cameras, case.kind), len(scene.pictures))
            poses = given.world_from_camera
            if given.intrinsics is not None:
                resolved = given.resolve(k, size, 1.0, metric=True).intrinsics
                assert resolved is not None
                k = resolved[chosen[0]]
        return (None if poses is None else se3.relative_to_first(poses[chosen])), k, None


def _cases(dataset: str, data: Path, protocol: Protocol, clips: int) -> tuple[Case, ...]:
    layout = LAYOUTS[dataset]
    there = layout.names(data, protocol.split)
    names = list(protocol.clips or there)
    missing = [name for name in names if name not in there]
    if missing:
        raise InputError(
            f"The protocol's clip {missing[0]} is not in {data} ({protocol.split or 'all'}); get "
            "it or take it out of the list."
        )
    if not names:
        raise InputError(
            f"There are no clips with cameras and frames in {data} ({protocol.split or 'all'}); "
            "see docs/evaluation.md for the folders that are looked for."
        )
    check_clips(min(clips, len(names)) if clips > 0 else clips, len(names), f"the data in {data}")
    cases = []
    for name in names[:clips]:
        scene = layout.scene(data, protocol.split, name)
        if len(scene.pictures) == 1:
            frames, path = 33 * max(1, (scene.path or "").count(";") + 1), scene.path or ""
        else:
            frames, path = _enough(name, scene, protocol), "as filmed"
        cases.append(Case(0, name, path, dataset, frames=frames))
    return tuple(cases)


def _enough(name: str, scene: Scene, protocol: Protocol) -> int:
    needed = protocol.start + (protocol.frames - 1) * protocol.stride + 1
    if len(scene.pictures) < needed:
        raise InputError(
            f"The clip {name} has {len(scene.pictures)} frames, but the protocol reads up to frame "
            f"{needed}; leave it out, or write fewer frames or another stride into the protocol."
        )
    return protocol.frames


def _chosen(scene: Scene, protocol: Protocol, case: Case) -> list[int]:
    if len(scene.pictures) == 1:
        return [0]
    return [protocol.start + protocol.stride * index for index in range(case.count)]


def _track(request: DatasetRequest, protocol: Protocol, cases: tuple[Case, ...]) -> Track:
    suite = request.suite
    photo_alone = request.dataset == "worldscore"
    followed = request.dataset != "davis" or request.cameras is not None
    judged = replace(judged_row(suite), camera=followed)
    spoilt: tuple[Row, ...] = _CONTROLS if suite.controls and not photo_alone else ()
    return Track(
        name=request.dataset,
        title=request.dataset,
        cases=cases,
        rows=((judged,) if photo_alone else (TRUTH, judged, *spoilt)),
        columns=columns(*protocol.metrics),
        plots=_PLOTS,
    )


def _check_cameras(request: DatasetRequest) -> None:
    if request.cameras is None:
        return
    if request.dataset != "davis":
        raise InputError(
            f"--cameras {request.cameras} has no effect on {request.dataset}, which has its own; "
            "drop it."
        )
    if not request.cameras.is_dir():
        raise InputError(
            f"--cameras {request.cameras} is no folder; give one with CLIP.npz or CLIP.json files."
        )


def _camera_file(folder: Path, name: str) -> Path:
    for suffix in (".npz", ".json"):
        if (folder / f"{name}{suffix}").is_file():
            return folder / f"{name}{suffix}"
    raise InputError(f"--cameras {folder} has no {name}.npz or {name}.json; add it.")


def _told(protocol: Protocol) -> dict[str, object]:
    """What figures depend on."""
    names = ("dataset", "split", "frames", "start", "stride")
    return {name: getattr(protocol, name) for name in names}
