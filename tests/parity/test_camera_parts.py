"""The published camera warp's smaller parts: poses, paths, crops, masks, fallbacks, paths drawn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_views import FakeViews
from test_camera_warp import cameras, differing
from test_camera_warp import keyframe as small_keyframe
from test_camera_warp import read as read_warp
from test_keyframes import (
    INNER,
    OUTPUT,
    PUBLISHED,
    SIZE,
    ahead,
    keyframes,
    read,
    unit,
    unsure_sources,
)
from torch import Tensor
from torch.nn import functional

from flythrough.cameras import pose
from flythrough.conditioning.visibility import visibility_to_latent
from flythrough.geometry.joint import without_edges
from flythrough.geometry.types import Geometry, ScaleKind
from flythrough.media.image import Photo, fit
from flythrough.scene.mesh_memory import MeshMemory
from flythrough.scene.raster import splat
from flythrough.scene.settings import WarpSettings
from flythrough.scene.surface import Keyframe, most_confident, surface

GOLDEN = Path(__file__).parents[1] / "golden"
STORED = dict(np.load(GOLDEN / "camera_parts" / "parts.npz"))
RENDERS = json.loads((GOLDEN / "camera_parts" / "renders.json").read_text())
MASKS = np.load(GOLDEN / "history" / "inputs.npz")["mask_u8"]


def tensor(name: str) -> Tensor:
    return torch.from_numpy(STORED[name])


def lengthened(poses: np.ndarray, count: int) -> np.ndarray:
    """The first ``count`` poses, the last one repeated where there are fewer."""
    return poses[np.arange(count).clip(max=len(poses) - 1)]


def scaled(poses: np.ndarray, factor: float) -> np.ndarray:
    moved = poses.astype(np.float64)
    moved[:, :3, 3] *= factor
    return moved


def test_pose_inverse() -> None:
    found = pose.inverse(STORED["poses.poses_abs"])
    for kind in ("np", "torch"):
        np.testing.assert_allclose(found, STORED[f"poses.se3_inverse_{kind}"], atol=1e-6)


@pytest.mark.parametrize("count", [5, 9, 13])
def test_paths_count_from_their_first_pose(count: int) -> None:
    found = pose.relative_to_first(lengthened(STORED["poses.poses_abs"], count))
    np.testing.assert_allclose(found, STORED[f"poses.rollout_{count}"], atol=1e-6)


def test_scaled_paths() -> None:
    found = pose.relative_to_first(scaled(STORED["poses.poses_abs"], 0.37))
    np.testing.assert_allclose(found, STORED["poses.scaled_then_rollout"], atol=1e-6)


def test_centre_crop() -> None:
    photo = Photo(STORED["crop.src"], None, Path("photo"), "")
    assert np.array_equal(fit(photo, *OUTPUT).pixels, STORED["crop.out"])


def test_masks_at_latent_size() -> None:
    found = visibility_to_latent(torch.from_numpy(MASKS[:33]).float()[None] / 255, (8, 16))
    torch.testing.assert_close(found, tensor("mask.latent")[:, 0], rtol=0, atol=1e-6)


def test_a_short_mask_goes_on_with_its_last_frame() -> None:
    """Published sampling clamps to the last frame; here masks are whole chunks, so it is filled."""
    mask = lengthened(MASKS[:20], 33)
    found = visibility_to_latent(torch.from_numpy(mask).float()[None] / 255, (8, 16))
    torch.testing.assert_close(found, tensor("mask.latent_short_src")[:, 0], rtol=0, atol=1e-6)


def test_estimate_of_a_sure_picture() -> None:
    found = without_edges(FakeViews(unsure=0.0).estimate(torch.zeros(1, 3, *INNER)))
    assert torch.equal(found.valid[0], tensor("first.plain.valid_mask"))
    assert torch.equal(found.confidence[0], tensor("first.plain.conf_map"))


@pytest.mark.parametrize("name", sorted(RENDERS))
def test_whole_warps(name: str) -> None:
    """Path in the user's unit to mask and picture: scaled by depth or not, cut and lengthened."""
    stored, said = read("joint"), RENDERS[name]
    geometry = FakeViews().estimate(torch.zeros(1, 3, *INNER))
    unscaled = said["kwargs"].get("translation_scale_use_first_frame_depth", True) is False
    depth = 1.0 if unscaled else float(without_edges(geometry).median_depth())
    scale = said["kwargs"].get("translation_scale", 0.1) * depth
    assert scale == pytest.approx(said["effective_scale"], rel=1e-6)
    count = said["kwargs"]["num_frames"]
    path = lengthened(stored["absolute_poses"].double().numpy(), count)
    relative = pose.relative_to_first(scaled(path, scale))
    np.testing.assert_allclose(relative, STORED[f"render.{name}.rollout"], atol=1e-6)
    key = Keyframe(unit(stored["kf0.source_rgb_u8"]), geometry)
    settings = WarpSettings(reference=True)
    poses, matrices = torch.from_numpy(relative), geometry.intrinsics.expand(count, 3, 3)
    drawn = MeshMemory((key,)).render(poses, matrices, INNER, settings, first_is_photo=True)
    view = drawn.resized(OUTPUT)
    mask = tensor(f"render.{name}.mask")[0, 0].float()
    assert ((view.visible * 255 - mask).abs() < 0.51).all()
    if f"render.{name}.video_u8" not in STORED:
        return
    mesh = surface(key, settings, settings.samples_per_axis)
    unsure = unsure_sources(lambda shift: splat(mesh, poses + shift, matrices, INNER)).float()
    near = functional.interpolate(unsure[:, None], OUTPUT, mode="bilinear")[:, 0] > 0
    video = tensor(f"render.{name}.video_u8")[0].transpose(0, 1)
    off = (view.rgb * 255 - video).abs().amax(1) > 1.01
    assert near.float().mean() < 0.4  # this path has poses that put samples on pixel borders
    assert int((off & ~near).sum()) <= 1


def test_fallback_without_confidence_raises_it() -> None:
    """Kept pixels count as confident; here they are taken as valid, whatever their confidence."""
    key = small_keyframe(read_warp("fallbacks"), "empty")
    kept = most_confident(key.geometry, 5)
    assert torch.equal(kept, tensor("empty.out_conf") > 0.1)


def test_picture_after_the_fallback() -> None:
    key = small_keyframe(read_warp("fallbacks"), "empty")
    poses, matrices = cameras(key, read_warp("single_geometry")["relative_poses"][:4])
    settings = WarpSettings(reference=True)
    view = MeshMemory((key,)).render(poses, matrices, SIZE, settings, first_is_photo=True)
    mesh = surface(key, settings, settings.samples_per_axis)
    unsure = unsure_sources(lambda shift: splat(mesh, poses + shift, matrices, SIZE))
    off = differing(view, tensor("empty.video_u8"))
    assert not (off & ~unsure).any()


def test_three_keyframes_in_the_graphics_arithmetic() -> None:
    """Colours as floats, as the published code has them on a GPU, stay within a level."""
    three = read("three")
    keys = keyframes(three, 3)
    poses, matrices = ahead(keys[-1], three["relative_poses"])
    view = MeshMemory(tuple(keys)).render(poses, matrices, SIZE, PUBLISHED)
    off = (view.rgb * 255 - tensor("three.torch.video_u8").permute(0, 3, 1, 2)).abs().amax(1)
    assert int((off[1:] * ~three["tie"][1:] > 1.01).sum()) <= 1


def test_points_of_a_depth_map() -> None:
    stored = read_warp("stages")
    depth = stored["geometry.depth_map"][None]
    matrix = stored["geometry.intrinsic"].clone()
    matrix[:2, 2] += 0.5  # published pixel centres are integers
    geometry = Geometry(
        depth=depth,
        confidence=torch.ones_like(depth),
        valid=depth > 0,
        intrinsics=matrix[None],
        world_from_camera=stored["geometry.source_pose"][None],
        scale=ScaleKind.METRIC,
    )
    expected = stored["geometry.point_map_world"]
    seen = (depth[0] > 0) & torch.isfinite(expected).all(-1)
    found = geometry.points_world()[0]
    assert int(seen.sum()) > 100
    torch.testing.assert_close(found[seen], expected[seen].to(found), rtol=1e-6, atol=2e-6)
