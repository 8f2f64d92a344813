"""Held-out worlds with exact pictures, depth, cameras and visibility.

Training draws its worlds from ``fold(seed, ...)`` of small run seeds, and measures itself on seed
9000001; the seeds below are used nowhere else (9000101 to 9000203 belong to tests and benches).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flythrough.disk import replacing
from flythrough.rollout.canonical import canonical_json, digest_of
from flythrough.rollout.chunk import CHUNK_FRAMES

if TYPE_CHECKING:
    import torch

    from flythrough.cameras.trajectory import Trajectory

EXACT = "exact"
"""The geometry of the track in which the photo's true depth is handed to the method."""

VIEW_ANGLE = 60.0
"""Horizontal field of view of all clips in degrees."""

_VERSION = 1


@dataclass(frozen=True)
class Case:
    """One held-out clip: the world's seed and kind, and the path that is asked for."""

    seed: int
    kind: str
    path: str

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.seed}"


CASES = (
    Case(9_000_301, "room", "orbit left 14deg"),
    Case(9_000_302, "street", "forward 0.4"),
    Case(9_000_303, "gallery", "pan right 20deg"),
    Case(9_000_304, "terrain", "truck right 0.25"),
    Case(9_000_305, "yard", "orbit right 12deg"),
    Case(9_000_306, "table", "crane up 0.2"),
    Case(9_000_307, "room", "forward 0.3; pan left 12deg"),
    Case(9_000_308, "gallery", "truck left 0.25"),
)
"""The held-out clips in the order in which they are used. Over several chunks the same path is
walked more slowly, so that the last frame still shares most of its view with the photo."""


@dataclass(frozen=True, eq=False)
class Truth:
    """What the world looks like along the path.

    Attributes:
        frames: uint8 [T,H,W,3].
        depth: float32 [T,H,W] z-depth in metres, 0 for sky.
        visible: bool [T,H,W], the point at this pixel is seen in frame 0 (sky: its direction is).
        world_from_camera: float64 [T,4,4] relative to frame 0, metres.
        intrinsics: float64 [3,3] in pixels, centres at half-integers.
        caption: what the world shows.
    """

    case: Case
    frames: np.ndarray
    depth: np.ndarray
    visible: np.ndarray
    world_from_camera: np.ndarray
    intrinsics: np.ndarray
    caption: str

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.frames.shape[1], self.frames.shape[2]

    @property
    def median_depth(self) -> float:
        """Of what is not sky in frame 0, metres."""
        first = self.depth[0]
        return float(np.median(first[first > 0]))

    def trajectory(self, world_from_camera: np.ndarray | None = None) -> Trajectory:
        """The cameras (or others [T,4,4] in metres) as a request, in multiples of the median depth
        so that it means the same to every estimate of the scene's scale."""
        from flythrough.cameras.trajectory import LengthUnit, Trajectory

        poses = self.world_from_camera if world_from_camera is None else world_from_camera
        poses = poses.copy()
        poses[:, :3, 3] /= self.median_depth
        return Trajectory(
            world_from_camera=poses,
            times=np.arange(len(poses)) / 16.0,
            unit=LengthUnit.MEDIAN_DEPTH,
            intrinsics=np.broadcast_to(self.intrinsics, (len(poses), 3, 3)),
            size=self.size,
        )


def truth_of(case: Case, chunks: int, size: tuple[int, int], store: Path | None = None) -> Truth:
    """Render ``case`` with 33 ``chunks`` frames of ``size`` (height, width), on the CPU.

    ``store`` is a folder that keeps it for the next time.
    """
    frames = CHUNK_FRAMES * chunks
    state = [_VERSION, asdict(case), frames, list(size), VIEW_ANGLE]
    digest = digest_of("truth", canonical_json(state))
    file = None if store is None else store / f"{case.name}.npz"
    kept = None if file is None else _kept(file, digest)
    if kept is None:
        kept = _rendered(case, frames, size)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(file) as partial, partial.open("wb") as opened:
                np.savez_compressed(opened, digest=np.array(digest), **kept)
    caption = str(kept.pop("caption"))
    return Truth(case=case, caption=caption, **kept)


def _kept(file: Path, digest: str) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    with np.load(file, allow_pickle=False) as found:
        if str(found["digest"]) != digest:
            return None
        return {name: found[name] for name in found.files if name != "digest"}


def _rendered(case: Case, count: int, size: tuple[int, int]) -> dict[str, Any]:
    import torch

    from flythrough.worlds.clips import ClipSettings, clip
    from flythrough.worlds.tracks import visibility

    with torch.inference_mode():
        made = clip(
            case.seed,
            case.path,
            count,
            size,
            settings=ClipSettings(kind=case.kind, view_angle=VIEW_ANGLE),
        )
        seen = [visibility(made.frames, index, 0)[0] for index in range(count)]
        return {
            "frames": _pixels(made.rgb),
            "depth": made.depth.masked_fill(made.sky, 0.0).numpy(),
            "visible": torch.stack(seen).numpy(),
            "world_from_camera": made.world_from_camera.numpy(),
            "intrinsics": made.intrinsics[0].numpy(),
            "caption": np.array(made.caption),
        }


def _pixels(rgb: torch.Tensor) -> np.ndarray:
    """[T,3,H,W] in [0,1] as uint8 [T,H,W,3]."""
    return (rgb.permute(0, 2, 3, 1) * 255).round().byte().contiguous().numpy()
