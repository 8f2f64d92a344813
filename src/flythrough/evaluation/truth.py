"""What a clip should look like: exact pictures, depth, cameras and visibility, kept on disk.

Where a truth comes from (this project's worlds, other renderers, data sets) is the business of a
``Source``; measures know only the values here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from flythrough.disk import UNREADABLE_ARRAYS, replacing
from flythrough.errors import InputError
from flythrough.rollout.canonical import canonical_json, digest_of
from flythrough.rollout.chunk import CHUNK_FRAMES

if TYPE_CHECKING:
    from flythrough.cameras.trajectory import Trajectory

EXACT = "exact"
"""The geometry of the track in which the photo's true depth is handed to the method."""

_VERSION = 2


@dataclass(frozen=True)
class Case:
    """One clip: where it comes from, what is shown there, the path that is asked for, its length.

    ``kind`` names the world's kind, a renderer's scene or a data set's clip.
    """

    seed: int
    kind: str
    path: str
    source: str = "worlds"
    chunks: int = 1
    frames: int | None = None

    @property
    def name(self) -> str:
        """Also that of its files."""
        first = () if self.source == "worlds" else (self.source,)
        return "-".join((*first, self.kind, str(self.seed)))

    @property
    def count(self) -> int:
        """Its frames."""
        return CHUNK_FRAMES * self.chunks if self.frames is None else self.frames


@dataclass(frozen=True, eq=False)
class Truth:
    """What the scene looks like along the path.

    Attributes:
        frames: uint8 [T,H,W,3]; T is 1 where only the photo exists.
        depth: float32 [T,H,W] z-depth in the unit of the poses, 0 for sky; None if unknown.
        visible: bool [T,H,W], the point at this pixel is seen in frame 0 (sky: its direction is);
            None without depth.
        world_from_camera: float64 [N,4,4] relative to frame 0; None if nobody knows.
        intrinsics: float64 [3,3] in pixels, centres at half-integers.
        median_depth: of what is not sky in frame 0, in the unit of the poses; None if unknown.
        caption: what the scene shows.
        landmarks: points that stand in for depth, if any: places [n,2] in frame 0 and their
            z-depth [n], side by side as float64 [n,3].
        still: bool [T,H,W], where nothing moves by itself; None if all stands still.
    """

    case: Case
    frames: np.ndarray
    depth: np.ndarray | None
    visible: np.ndarray | None
    world_from_camera: np.ndarray | None
    intrinsics: np.ndarray
    median_depth: float | None
    caption: str = ""
    landmarks: np.ndarray | None = None
    still: np.ndarray | None = None

    def __len__(self) -> int:
        """Frames of a video of this clip."""
        return self.case.count

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.frames.shape[1], self.frames.shape[2]

    @property
    def filmed(self) -> bool:
        """Whether every frame is known, not the photo alone."""
        return len(self.frames) == len(self)

    def trajectory(self, world_from_camera: np.ndarray | None = None) -> Trajectory:
        """The cameras (or others [T,4,4] in their unit) as a request, in multiples of the median
        depth so that it means the same to every estimate of the scene's scale.

        Raises:
            InputError: the clip has no cameras.
        """
        from flythrough.cameras.trajectory import LengthUnit, Trajectory

        poses = self.world_from_camera if world_from_camera is None else world_from_camera
        if poses is None:
            raise InputError(f"The clip {self.case.name} has no cameras that could be followed.")
        poses = poses.copy()
        poses[:, :3, 3] /= self.median_depth or 1.0
        return Trajectory(
            world_from_camera=poses,
            times=np.arange(len(poses)) / 16.0,
            unit=LengthUnit.MEDIAN_DEPTH,
            intrinsics=np.broadcast_to(self.intrinsics, (len(poses), 3, 3)),
            size=self.size,
        )


class Source(Protocol):
    """Renders or reads clips."""

    def version(self) -> str:
        """Changes whenever the same case would look different."""
        ...

    def truth(self, case: Case, size: tuple[int, int]) -> Truth:
        """The clip at (height, width)."""
        ...

    def along(
        self, case: Case, world_from_camera: np.ndarray, size: tuple[int, int]
    ) -> np.ndarray | None:
        """The same scene along other cameras [T,4,4] relative to frame 0, in the truth's unit:
        uint8 [T,H,W,3]; None where the source cannot render."""
        ...


def kept_truth(
    source: Source, case: Case, size: tuple[int, int], store: Path | None = None
) -> Truth:
    """The truth of ``case`` with frames of ``size`` (height, width).

    ``store`` is a folder that keeps it for the next time.
    """
    if store is None:
        return source.truth(case, size)
    state = [_VERSION, source.version(), asdict(case), list(size)]
    digest = digest_of("truth", canonical_json(state))
    file = store / f"{case.name}.npz"
    kept = _kept(file, digest)
    if kept is not None:
        return _from_arrays(case, kept)
    made = source.truth(case, size)
    store.mkdir(parents=True, exist_ok=True)
    with replacing(file) as partial, partial.open("wb") as opened:
        np.savez_compressed(opened, digest=np.array(digest), **_as_arrays(made))
    return made


_ARRAYS = ("frames", "depth", "visible", "world_from_camera", "intrinsics", "landmarks", "still")


def _as_arrays(truth: Truth) -> dict[str, Any]:
    arrays = {name: getattr(truth, name) for name in _ARRAYS}
    arrays["caption"] = np.array(truth.caption)
    arrays["median_depth"] = None if truth.median_depth is None else np.array(truth.median_depth)
    return {name: array for name, array in arrays.items() if array is not None}


def _from_arrays(case: Case, arrays: dict[str, Any]) -> Truth:
    found = {name: arrays.get(name) for name in _ARRAYS}
    median = arrays.get("median_depth")
    return Truth(
        case=case,
        caption=str(arrays["caption"]),
        median_depth=None if median is None else float(median),
        **found,  # type: ignore[arg-type]
    )


def _kept(file: Path, digest: str) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    try:
        with np.load(file, allow_pickle=False) as found:
            if str(found["digest"]) != digest:
                return None
            return {name: found[name] for name in found.files if name != "digest"}
    except UNREADABLE_ARRAYS:
        return None
