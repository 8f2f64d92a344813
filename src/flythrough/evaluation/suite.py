"""Held-out worlds: clips of one chunk, there and back again, and long ones.

Training draws its worlds from ``fold(seed, ...)`` of small run seeds, and measures itself on seed
9000001; the seeds below are used nowhere else (9000101 to 9000203 belong to tests and benches).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flythrough.evaluation.truth import Case, Truth

if TYPE_CHECKING:
    import torch

    from flythrough.cameras.trajectory import Trajectory
    from flythrough.worlds.clips import Clip

VIEW_ANGLE = 60.0
"""Horizontal field of view of all clips in degrees."""

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
"""The held-out clips of one chunk in the order in which they are used. Over several chunks (in the
ablation) the same path is walked more slowly, so that the last frame still shares most of its view
with the photo."""

LOOPS = (
    Case(9_000_311, "gallery", "pan left 45deg; pan right 45deg", chunks=2),
    Case(9_000_312, "room", "orbit right 30deg; orbit left 30deg", chunks=2),
    Case(9_000_313, "yard", "truck right 0.6; truck left 0.6", chunks=2),
    Case(9_000_314, "street", "pan right 50deg; pan left 50deg", chunks=2),
)
"""Paths that return to the first camera, so that what was seen comes back into view."""

LONG = (
    Case(9_000_321, "street", "forward 0.8"),
    Case(9_000_322, "room", "orbit left 30deg"),
    Case(9_000_323, "gallery", "truck right 0.6"),
    Case(9_000_324, "terrain", "forward 0.5; pan left 20deg"),
)
"""Walked over as many chunks as are asked for."""


class Worlds:
    """The procedural worlds of this project as a source of truths."""

    def version(self) -> str:
        return f"worlds 1 {VIEW_ANGLE}"

    def truth(self, case: Case, size: tuple[int, int]) -> Truth:
        import torch

        from flythrough.worlds.tracks import visibility

        with torch.inference_mode():
            made = _clip(case, case.path, size)
            seen = [visibility(made.frames, index, 0)[0] for index in range(len(made))]
            depth = made.depth.masked_fill(made.sky, 0.0).numpy()
            return Truth(
                case=case,
                frames=_pixels(made.rgb),
                depth=depth,
                visible=torch.stack(seen).numpy(),
                world_from_camera=made.world_from_camera.numpy(),
                intrinsics=made.intrinsics[0].numpy(),
                median_depth=float(np.median(depth[0][depth[0] > 0])),
                caption=made.caption,
            )

    def along(
        self, case: Case, world_from_camera: np.ndarray, size: tuple[int, int]
    ) -> np.ndarray | None:
        import torch

        from flythrough.cameras.trajectory import LengthUnit, Trajectory

        count = len(world_from_camera)
        path = Trajectory(world_from_camera, np.arange(count) / 16.0, LengthUnit.METRE)
        with torch.inference_mode():
            return _pixels(_clip(case, path, size).rgb)


def _clip(case: Case, path: str | Trajectory, size: tuple[int, int]) -> Clip:
    from flythrough.worlds.clips import ClipSettings, clip

    settings = ClipSettings(kind=case.kind, view_angle=VIEW_ANGLE)
    return clip(case.seed, path, case.count, size, settings=settings)


def _pixels(rgb: torch.Tensor) -> np.ndarray:
    """[T,3,H,W] in [0,1] as uint8 [T,H,W,3]."""
    return (rgb.permute(0, 2, 3, 1) * 255).round().byte().contiguous().numpy()
