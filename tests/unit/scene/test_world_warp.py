"""A procedural world's photo and exact depth, warped, against the world seen from there."""

from __future__ import annotations

import pytest
import torch

from flythrough.geometry.types import Geometry, ScaleKind
from flythrough.scene.mesh_memory import MeshMemory
from flythrough.scene.settings import WarpSettings
from flythrough.worlds.clips import Clip, ClipSettings, clip
from flythrough.worlds.tracks import visibility

SIZE = (192, 320)


@pytest.mark.parametrize(("kind", "seed"), [("room", 2), ("gallery", 1), ("yard", 1)])
def test_the_warp_shows_what_the_world_shows(kind: str, seed: int) -> None:
    world = clip(seed, "forward 0.15; pan left 6deg", 3, SIZE, settings=ClipSettings(kind=kind))
    # At this size neighbouring pixels of one surface differ by more than the published 3 %.
    settings = WarpSettings(samples_per_axis=2, depth_rtol=0.1)
    memory = MeshMemory().extended(world.rgb[0], photo_geometry(world))
    view = memory.render(world.world_from_camera.float(), world.intrinsics.float(), SIZE, settings)
    for frame in (1, 2):
        exact = visibility(world.frames, frame, 0)[0]
        seen = view.visible[frame] > 0.5
        overlap = (seen & exact).sum() / (seen | exact).sum()
        assert overlap > 0.95
        error = (view.rgb[frame] - world.rgb[frame]).square().mean(0)[seen & exact].mean()
        assert -10 * torch.log10(error) > 25


def photo_geometry(world: Clip) -> Geometry:
    depth = world.depth[:1]
    return Geometry(
        depth=depth,
        confidence=torch.ones_like(depth),
        valid=depth > 0,
        intrinsics=world.intrinsics[:1].float(),
        world_from_camera=world.world_from_camera[:1].float(),
        scale=ScaleKind.METRIC,
    )
