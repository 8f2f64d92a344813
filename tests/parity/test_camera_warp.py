"""The mesh warp gives the published renderer's recorded frames and masks.

Frames are compared to the bit except where samples of different colour lie at the same depth of one
pixel: there the published colour depends on rounding, and so do small holes that border on it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from flythrough.geometry.edges import (
    depth_edge,
    depth_normal_edge,
    normal_edge,
    points_to_normals,
)
from flythrough.geometry.types import Geometry, ScaleKind
from flythrough.scene.backdrop import far_backdrop
from flythrough.scene.fill import close_small_holes
from flythrough.scene.mesh import Samples, joined, quad_samples
from flythrough.scene.mesh_memory import Keyframe, MeshMemory
from flythrough.scene.raster import Splat, splat
from flythrough.scene.rendered import RenderedView
from flythrough.scene.settings import WarpSettings
from flythrough.scene.surface import most_confident, surface

GOLDEN = Path(__file__).parents[1] / "golden" / "camera_warp"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
SIZE = (70, 140)
REFERENCE = WarpSettings(reference=True)


def read(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def half_integer(matrix: Tensor) -> Tensor:
    """Published matrices count pixel centres at integers."""
    moved = matrix.clone()
    moved[..., :2, 2] += 0.5
    return moved


def keyframe(stored: dict[str, Tensor], prefix: str, *, masked: bool = False) -> Keyframe:
    part = {key.removeprefix(prefix + "."): value for key, value in stored.items()}
    depth = part["depth_map"][None]
    geometry = Geometry(
        depth=depth,
        confidence=part["conf_map"][None],
        valid=part["valid_mask"][None] if masked else depth > 0,
        intrinsics=half_integer(part["intrinsic"])[None],
        world_from_camera=part["source_pose"][None],
        scale=ScaleKind.METRIC,
    )
    return Keyframe(part["source_rgb_u8"].permute(2, 0, 1).float() / 255, geometry)


def cameras(key: Keyframe, relative: Tensor) -> tuple[Tensor, Tensor]:
    poses = key.geometry.world_from_camera.double() @ relative.double()
    return poses, key.geometry.intrinsics.expand(len(poses), 3, 3)


def ties(samples: Samples, poses: Tensor, matrices: Tensor, around: int = 0) -> Tensor:
    """Pixels whose sample hangs on rounding, [T,H,W], grown by ``around``.

    Found by drawing the samples backwards and moved by about a float32 rounding of their position.
    """
    back = torch.arange(len(samples) - 1, -1, -1)
    unsure = torch.zeros(len(poses), *SIZE, dtype=torch.bool)
    one = splat(samples, poses, matrices, SIZE)
    for seed in range(4):
        source = torch.Generator().manual_seed(seed)
        moved = torch.randn(samples.points.shape, generator=source, dtype=torch.float64) * 1e-6
        other = Samples(
            (samples.points + moved)[back],
            samples.colours[back],
            samples.source_xy[back],
            samples.source[back],
        )
        unsure |= (splat(other, poses, matrices, SIZE).source_xy != one.source_xy).any(-1)
    window = 2 * around + 1
    return functional.max_pool2d(unsure[:, None].float(), window, 1, around)[:, 0] > 0


def differing(view: RenderedView, video: Tensor) -> Tensor:
    """Pixels [T,H,W] whose 8-bit colours are not those of uint8 frames [T,H,W,3]."""
    levels = (view.rgb * 255).round()
    return (levels != video.permute(0, 3, 1, 2).float()).any(1)


@pytest.fixture(scope="module")
def stages() -> dict[str, Tensor]:
    return read("stages")


@pytest.fixture(scope="module")
def single() -> dict[str, Tensor]:
    return read("single_geometry")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_break_mask(stages: dict[str, Tensor], dtype: torch.dtype) -> None:
    points = stages["geometry.point_map_world"].to(dtype)[None]
    depth, valid = stages["geometry.depth_map"].to(dtype)[None], stages["valid_in"][None]
    normals, known = points_to_normals(points, valid)
    assert torch.allclose(normals[0].float(), stages["normals"], atol=1e-6)
    assert torch.equal(known[0], stages["normal_mask"])
    by_depth = depth_edge(depth, rtol=0.03, mask=valid) & valid
    assert torch.equal(by_depth[0], stages["depth_edge"])
    assert torch.equal(normal_edge(normals, mask=known)[0], stages["normal_edge"])
    cut = depth_normal_edge(points, depth, mask=valid)
    assert torch.equal(cut[0], stages["break_mask"])


@pytest.mark.parametrize("per_axis", [1, 3])
def test_quad_samples(stages: dict[str, Tensor], per_axis: int) -> None:
    colours = stages["geometry.source_rgb_u8"].float() / 255
    valid = stages["valid_in"] & ~stages["break_mask"]
    points = stages["geometry.point_map_world"].double()
    found = quad_samples(points, colours, valid, per_axis, quantise=True)
    expected = {key: stages[f"quads{per_axis}.{key}"] for key in ("points", "colors", "xy")}
    assert torch.allclose(found.points.float(), expected["points"], atol=1e-6)
    assert torch.allclose(found.source_xy.float(), expected["xy"], atol=1e-6)
    off = ((found.colours * 255).round() - expected["colors"]).abs()
    # Thirds that add up to a whole number may be truncated either way.
    assert off.max() <= (0 if per_axis == 1 else 1)
    assert (off > 0).float().mean() < 0.01


def test_mixed_cells_are_left_out(stages: dict[str, Tensor]) -> None:
    colours = stages["geometry.source_rgb_u8"].float() / 255
    points, filled = stages["geometry.point_map_world"].double(), stages["quads_mixed.fill_mask"]
    found = quad_samples(points, colours, stages["valid_in"], 2, filled=filled, quantise=True)
    assert torch.allclose(found.points.float(), stages["quads_mixed.points"], atol=1e-6)
    assert torch.equal((found.colours * 255).round().byte(), stages["quads_mixed.colors"])


def stage_splat(stages: dict[str, Tensor], dtype: torch.dtype, pose: str) -> Splat:
    points = stages["splat.points"].to(dtype)
    colours = stages["splat.colors"].to(dtype) / 255
    source = torch.zeros(len(points), dtype=torch.int64)
    samples = Samples(points, colours, stages["splat.xy"].to(dtype), source)
    matrix = half_integer(stages["geometry.intrinsic"])[None]
    return splat(samples, stages[pose][None], matrix, (24, 30))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_splat(stages: dict[str, Tensor], dtype: torch.dtype) -> None:
    drawn = stage_splat(stages, dtype, "splat.target_c2w")
    seen, certain = stages["splat.visible"], ~stages["splat.tie"]
    assert torch.equal(drawn.seen[0], seen)
    keep = seen & certain
    assert torch.equal((drawn.rgb[0] * 255).round().byte()[keep], stages["splat.frame"][keep])
    assert torch.equal(drawn.source_xy[0].float()[keep], stages["splat.source_xy"][keep])


def test_nothing_is_seen_from_behind(stages: dict[str, Tensor]) -> None:
    drawn = stage_splat(stages, torch.float32, "splat_behind.target_c2w")
    assert not drawn.seen.any()
    assert not drawn.depth.any()


@pytest.mark.parametrize(
    ("case", "radius", "least"), [("r1m4", 1, 4), ("r1m1", 1, 1), ("r2m8", 2, 8)]
)
def test_target_fill(stages: dict[str, Tensor], case: str, radius: int, least: int) -> None:
    drawn = stage_splat(stages, torch.float32, "splat.target_c2w")
    picture = stages["geometry.source_rgb_u8"].permute(2, 0, 1).float() / 255
    closed = close_small_holes(drawn, [picture], radius=radius, min_neighbors=least, reference=True)
    seen = stages[f"target_fill.{case}.visible"]
    assert int((closed.seen & ~drawn.seen).sum()) == EXPECTED["target_fill_counts"][case]
    assert torch.equal(closed.seen[0], seen)
    levels = (closed.rgb[0] * 255).round().byte()
    assert torch.equal(levels[seen], stages[f"target_fill.{case}.frame"][seen])


@pytest.mark.parametrize("mode", ["target_fill", "splat"])
@pytest.mark.parametrize("cut", ["depth_normal", "none"])
@pytest.mark.parametrize("fill", ["mean_first_frame", "black"])
def test_single_geometry(single: dict[str, Tensor], mode: str, cut: str, fill: str) -> None:
    settings = replace(REFERENCE, render_mode=mode, mesh_break=cut, fill=fill)
    key = keyframe(single, "geometry")
    memory = MeshMemory((key,))
    poses, matrices = cameras(key, single["relative_poses"])
    view = memory.render(poses, matrices, SIZE, settings, first_is_photo=True)
    seen = single[f"numpy.{mode}.{cut}.mean_first_frame.visible"]
    assert torch.equal(view.visible.bool(), seen)
    video = single.get(f"numpy.{mode}.{cut}.{fill}.video_u8")
    if video is not None:
        assert not (differing(view, video) & ~single[f"tie.{cut}"]).any()
    filled = EXPECTED["fill_pixels"][f"{mode}.{cut}.{fill}"]
    if filled is not None:
        bare = memory.render(poses, matrices, SIZE, replace(settings, render_mode="splat"))
        assert int((view.visible[1:] - bare.visible[1:]).sum()) == filled


@pytest.mark.parametrize(
    ("case", "changes", "around"),
    [
        ("samples2", {"samples_per_axis": 2}, 1),
        ("radius2_min6", {"fill_radius": 2, "fill_min_neighbors": 6}, 2),
        ("radius0", {"fill_radius": 0}, 0),
    ],
)
def test_single_geometry_options(
    single: dict[str, Tensor], case: str, changes: dict[str, int], around: int
) -> None:
    settings = replace(REFERENCE, **changes)
    key = keyframe(single, "geometry")
    poses, matrices = cameras(key, single["relative_poses"])
    view = MeshMemory((key,)).render(poses, matrices, SIZE, settings, first_is_photo=True)
    if f"numpy.{case}.visible" in single:
        assert torch.equal(view.visible.bool(), single[f"numpy.{case}.visible"])
    unsure = ties(surface(key, settings, settings.samples_per_axis), poses, matrices, around)
    assert unsure.float().mean() < 0.02
    video = single[f"numpy.{case}.video_u8"].permute(0, 3, 1, 2)
    off = ((view.rgb * 255).round() - video).abs().amax(1) * ~unsure
    # Sums of many positions can end exactly between two colour levels and be rounded either way.
    assert off.max() <= (1 if around == 2 else 0)
    assert (off > 0).sum() < 20


def test_fast_arithmetic_stays_within_one_level(single: dict[str, Tensor]) -> None:
    key = keyframe(single, "geometry")
    poses, matrices = cameras(key, single["relative_poses"])
    view = MeshMemory((key,)).render(poses, matrices, SIZE, WarpSettings(), first_is_photo=True)
    seen = single["numpy.target_fill.depth_normal.mean_first_frame.visible"]
    assert (view.visible.bool() != seen).sum() <= 2
    certain = ~single["tie.depth_normal"] & seen
    published = single["torch.target_fill.depth_normal.mean_first_frame.video_u8"]
    off = (view.rgb * 255 - published.permute(0, 3, 1, 2)).abs().amax(1)
    assert off[certain].max() <= 1.01


def test_resized_output(single: dict[str, Tensor]) -> None:
    key = keyframe(single, "geometry")
    poses, matrices = cameras(key, single["relative_poses"])
    view = MeshMemory((key,)).render(poses, matrices, SIZE, REFERENCE, first_is_photo=True)
    small, frames = view.resized((64, 128)), single["resized.frames"]
    video = single["numpy.resized.video"][0].transpose(0, 1).float()
    assert torch.allclose(small.rgb[frames] * 2 - 1, video, atol=1e-3)
    mask = single["numpy.resized.mask"][0, 0].float()
    assert torch.allclose(small.visible[frames], mask, atol=1e-3)


def test_given_intrinsics(single: dict[str, Tensor]) -> None:
    matrices = half_integer(single["target_intrinsics"])
    key = keyframe(single, "geometry")
    key = Keyframe(key.image, replace(key.geometry, intrinsics=matrices[:1]))
    poses, _ = cameras(key, single["relative_poses"])
    view = MeshMemory((key,)).render(poses, matrices, SIZE, REFERENCE, first_is_photo=True)
    assert torch.equal(view.visible.bool(), single["numpy.target_intrinsics.visible"])
    unsure = ties(surface(key, REFERENCE, 4), poses, matrices, 1)
    off = differing(view, single["numpy.target_intrinsics.video_u8"])
    assert not (off & ~unsure).any()


@pytest.mark.parametrize("cut", ["depth_normal", "none"])
def test_top_fill(cut: str) -> None:
    stored = read("top_fill")
    key = keyframe(stored, "geometry")
    poses, matrices = cameras(key, stored["relative_poses"])
    settings = replace(REFERENCE, mesh_break=cut)
    view = MeshMemory((key,)).render(poses, matrices, SIZE, settings, first_is_photo=True)
    assert torch.equal(view.visible.bool(), stored[f"numpy.target_fill.{cut}.visible"])
    unsure = functional.max_pool2d(stored[f"tie.{cut}"][:, None].float(), 3, 1, 1)[:, 0] > 0
    assert not (differing(view, stored[f"numpy.target_fill.{cut}.video_u8"]) & ~unsure).any()


@pytest.mark.parametrize(
    ("case", "golden", "options"),
    [
        ("top_fill", "fill", {}),
        ("top_fill_limited", "fill_limited", {"min_area": 64, "lowest": 0.2}),
    ],
)
def test_backdrop(case: str, golden: str, options: dict[str, float]) -> None:
    stored = read("top_fill")
    depth = stored["geometry.depth_map"].double()
    valid = (stored["geometry.conf_map"] > 0.1) & (depth > 0)
    found = far_backdrop(depth, valid, **options)  # type: ignore[arg-type]
    assert torch.equal(found.filled, stored[f"{golden}.mask"])
    assert torch.equal(found.filled | valid, stored[f"{golden}.valid"])
    expected = torch.tensor(EXPECTED[case]["fill_depth"], dtype=torch.float64)
    assert torch.allclose(found.depth[found.filled], expected, rtol=1e-9)


def test_retry_ladder_on_a_checkerboard() -> None:
    stored = read("fallbacks")
    key = keyframe(stored, "checker")
    poses, matrices = cameras(key, read("single_geometry")["relative_poses"][:4])
    view = MeshMemory((key,)).render(poses, matrices, SIZE, REFERENCE, first_is_photo=True)
    assert torch.equal(view.visible.bool(), stored["checker.visible"])
    assert not differing(view, stored["checker.video_u8"]).any()


def test_retry_ladder_without_confidence() -> None:
    key = keyframe(read("fallbacks"), "empty")
    assert torch.equal(most_confident(key.geometry, 5), read("fallbacks")["empty.out_valid"])
    kept = most_confident(key.geometry, EXPECTED["retry"]["empty_valid"]["retry_top_percent"])
    backdrop = far_backdrop(key.geometry.depth[0], kept)
    assert int(backdrop.filled.sum()) == EXPECTED["retry"]["empty_valid"]["fill_pixels"]
    assert len(surface(key, REFERENCE, 4)) > 0


def test_two_keyframes() -> None:
    """Seen pixels only: the published frames colour the rest from a background atlas."""
    stored = read("two_keyframes")
    older = keyframe(stored, "older", masked=True)
    newest = keyframe(stored, "newest", masked=True)
    memory = MeshMemory((older, newest))
    poses, matrices = cameras(newest, stored["relative_poses"])
    settings = replace(REFERENCE, samples_per_axis=2, top_fill=False, confidence=0.0)
    meshes = [surface(older, settings, 1), surface(newest, settings, 2)]
    for mode in ("splat", "target_fill"):
        view = memory.render(poses, matrices, SIZE, replace(settings, render_mode=mode))
        seen = view.visible.bool()
        assert not (seen[1:] & ~stored[f"{mode}.visible"][1:]).any()
        unsure = ties(joined(meshes), poses, matrices, 1)
        off = differing(view, stored[f"{mode}.video_u8"]) & seen & ~unsure
        assert int(off[1:].sum()) == 0


def test_median_depth(single: dict[str, Tensor]) -> None:
    geometry = keyframe(single, "geometry").geometry
    confident = geometry.confidence > 0.1
    cut = depth_normal_edge(geometry.points_world(), geometry.depth, mask=confident)
    found = replace(geometry, valid=confident & ~cut).median_depth()
    assert float(found) == pytest.approx(EXPECTED["median_depth"]["G1"], rel=1e-6)
