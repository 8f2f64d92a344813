"""The keyframe memory gives the published numbers: atlas, choice, joint estimate, whole chunks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from camera_run import INNER, OUTPUT, PUBLISHED, CameraRun, CameraWarps, Stored, unit
from fake_views import FakeViews
from torch import Tensor
from torch.nn import functional

from flythrough.cameras import pose
from flythrough.generators.joint_keyframes import Boundary, published_view
from flythrough.geometry.edges import depth_normal_edge
from flythrough.geometry.focal import smoothed_focals
from flythrough.geometry.joint import joint_estimate, without_edges
from flythrough.geometry.types import Geometry, ScaleKind
from flythrough.scene.atlas import Atlas, background_atlas, background_pixels, filled_rows
from flythrough.scene.keyframe_choice import best_in_view, share_in_view
from flythrough.scene.mesh import joined
from flythrough.scene.mesh_memory import MeshMemory
from flythrough.scene.raster import Splat, splat
from flythrough.scene.rendered import RenderedView
from flythrough.scene.surface import Keyframe, surface

GOLDEN = Path(__file__).parents[1] / "golden" / "keyframes"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
SIZE = (70, 140)


def read(name: str) -> Stored:
    with np.load(GOLDEN / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


@pytest.fixture(scope="module")
def three() -> Stored:
    return read("three")


@pytest.fixture(scope="module")
def choice() -> Stored:
    return read("choice")


@pytest.fixture(scope="module")
def chunks() -> Stored:
    return read("chunks")


def half_integer(matrix: Tensor) -> Tensor:
    """Published matrices count pixel centres at integers."""
    moved = matrix.clone()
    moved[..., :2, 2] += 0.5
    return moved


def levels(rgb: Tensor) -> Tensor:
    return (rgb * 255).round().byte()


def keyframes(stored: Stored, count: int) -> list[Keyframe]:
    found = []
    for number in range(count):
        part = {key.removeprefix(f"keyframe{number}."): value for key, value in stored.items()}
        geometry = Geometry(
            depth=part["depth_map"][None],
            confidence=part["conf_map"][None],
            valid=part["valid_mask"][None],
            intrinsics=half_integer(part["intrinsic"])[None],
            world_from_camera=part["source_pose"][None],
            scale=ScaleKind.METRIC,
        )
        found.append(Keyframe(unit(part["source_rgb_u8"]), geometry))
    return found


def ahead(newest: Keyframe, relative: Tensor) -> tuple[Tensor, Tensor]:
    poses = newest.geometry.world_from_camera.double() @ relative.double()
    return poses, newest.geometry.intrinsics.expand(len(poses), 3, 3)


def test_focal_lengths_are_smoothed() -> None:
    stored = read("joint")
    found = smoothed_focals(half_integer(stored["focal.in"]), SIZE)
    assert torch.equal(found, half_integer(stored["focal.out"]))


def test_background_pixels_and_atlas(three: Stored) -> None:
    keys = keyframes(three, 3)
    for number, key in enumerate(keys):
        assert torch.equal(
            background_pixels(key.geometry), three[f"keyframe{number}.background_mask"]
        )
    atlas = background_atlas(keys)
    assert int(atlas.known.sum()) == EXPECTED["atlas"]["filled_texels"]
    assert torch.equal(atlas.known, three["atlas_valid"])
    assert torch.equal(levels(atlas.colours), three["atlas"])
    poses, matrices = ahead(keys[-1], three["relative_poses"][4:5])
    colours, known = atlas.seen_by(poses, matrices, SIZE)
    certain = known[0] == three["atlas_render.valid"]
    assert (~certain).sum() <= 1  # a direction on the border of two texels
    seen = certain & known[0]
    assert torch.equal(levels(colours[0])[seen], three["atlas_render.frame"][seen])


def test_gaps_along_rows_are_closed(three: Stored) -> None:
    given = Atlas(three["row_fill.in"].float() / 255, three["row_fill.valid_in"])
    closed = filled_rows(given)
    assert torch.equal(closed.known, three["row_fill.valid"])
    assert torch.equal(levels(closed.colours), three["row_fill.out"])


@pytest.mark.parametrize("mode", ["splat", "target_fill"])
def test_three_keyframes_before_the_atlas(three: Stored, mode: str) -> None:
    keys = keyframes(three, 3)
    poses, matrices = ahead(keys[-1], three["relative_poses"])
    settings = replace(PUBLISHED, render_mode=mode)  # type: ignore[arg-type]
    view = MeshMemory(tuple(keys)).render(poses, matrices, SIZE, settings)
    assert torch.equal(view.visible[1:].bool(), three[f"numpy.{mode}.visible"][1:])
    off = levels(view.rgb).permute(0, 2, 3, 1) != three[f"numpy.{mode}.video_u8"]
    off = off.any(-1) & ~three["tie"]
    # One sample lies exactly on the border of two pixels.
    assert int(off[1:].sum()) <= 1


def test_older_keyframes_are_rated_and_chosen(choice: Stored) -> None:
    keys, said = keyframes(choice, 5), EXPECTED["choice"]
    poses, matrices = (values[1:] for values in ahead(keys[-1], choice["relative_poses"]))
    shares = [share_in_view(key, poses, matrices, SIZE) for key in keys[:-1]]
    assert shares == pytest.approx([score["score"] for score in said["scores"]], abs=1e-12)
    best = best_in_view(keys[:-1], said["max_previous"], poses, matrices, SIZE)
    assert [*best, 4] == said["kept_indices"]


def test_newer_break_mask(choice: Stored) -> None:
    geometry = keyframes(choice, 1)[0].geometry
    confident = replace(geometry, valid=geometry.confidence > 0.1)
    found = confident.valid & ~without_edges(confident).valid
    assert torch.equal(found[0], choice["break_mask_torch"])
    assert torch.equal(found[0], choice["break_mask_numpy"])
    world = depth_normal_edge(geometry.points_world(), geometry.depth, mask=confident.valid)
    assert torch.equal(world, found)


@pytest.mark.parametrize("mode", ["splat", "target_fill"])
def test_chosen_keyframes_with_two_samples_an_axis(choice: Stored, mode: str) -> None:
    keys = keyframes(choice, 5)
    drawn = MeshMemory((keys[1], keys[4]))
    poses, matrices = ahead(keys[-1], choice["relative_poses"])
    settings = replace(PUBLISHED, samples_per_axis=2, render_mode=mode)  # type: ignore[arg-type]
    view = drawn.render(poses, matrices, SIZE, settings)
    assert torch.equal(view.visible[1:].bool(), choice[f"{mode}.visible"][1:])
    off = (view.rgb * 255 - choice[f"{mode}.video_u8"].permute(0, 3, 1, 2)).abs().amax(1)[1:]
    meshes = joined([surface(keys[1], settings, 1), surface(keys[4], settings, 2)])
    unsure = unsure_sources(lambda shift: splat(meshes, poses + shift, matrices, SIZE))[1:]
    assert off[~unsure].max() <= 1
    assert (off > 1).sum() < 20


def unsure_sources(draw: Callable[[float], Splat]) -> Tensor:
    """Pixels next to one whose sample changes when the cameras move by a rounding, [T,H,W]."""
    still = draw(0.0).source_xy
    moved = [(draw(shift).source_xy != still).any(-1) for shift in (1e-6, -1e-6)]
    near = (moved[0] | moved[1])[:, None].float()
    return functional.max_pool2d(near, 3, 1, 1)[:, 0] > 0


def test_joint_estimate() -> None:
    stored = read("joint")
    size = tuple(stored["kf0.depth_map"].shape)
    photo = FakeViews().estimate(torch.zeros(1, 3, *size))
    assert torch.equal(without_edges(photo).valid[0], stored["first.low_conf.valid_mask"])
    assert torch.equal(photo.depth[0], stored["first.low_conf.depth_map"])
    other = FakeViews(near=2.6, slope=1.95, box=1.3, zoom=0.3)
    found = joint_estimate(other, torch.zeros(3, 3, *size), photo, cut_edges=True)
    said = EXPECTED["joint_scale"]
    assert found.fitted.status == said["status"]
    assert found.fitted.count == said["trimmed_pixels"]
    assert float(found.fitted.scale) == pytest.approx(said["applied_scale"], rel=1e-7)
    smooth = smoothed_focals(found.geometry.intrinsics, INNER)
    for number in range(3):
        for name, value in {
            "depth_map": found.geometry.depth,
            "source_pose": found.geometry.world_from_camera,
            "intrinsic_recovered": found.geometry.intrinsics,
            "intrinsic": smooth,
        }.items():
            golden = stored[f"kf{number}.{name}"]
            golden = half_integer(golden) if "intrinsic" in name else golden
            assert torch.allclose(value[number], golden, rtol=1e-6, atol=1e-7), name
        assert torch.equal(found.geometry.valid[number], stored[f"kf{number}.valid_mask"])


def test_joint_estimate_rendered() -> None:
    stored = read("joint")
    first = FakeViews().estimate(torch.zeros(1, 3, *INNER))
    pictures = [unit(stored[f"kf{number}.source_rgb_u8"]) for number in range(3)]
    # The path's unit is a tenth of the photo's median depth.
    poses = stored["absolute_poses"].double().numpy()
    poses[:, :3, 3] *= 0.1 * float(without_edges(first).median_depth())
    eye = np.eye(3)
    boundaries = [Boundary(picture, poses[0], eye) for picture in pictures[1:]]
    view = published_view(
        FakeViews(near=2.6, slope=1.95, box=1.3, zoom=0.3),
        Keyframe(pictures[0], first),
        boundaries,
        poses,
        PUBLISHED,
    ).resized(OUTPUT)
    mask = stored["render.keyframes.mask"][0, 0].float()
    assert ((view.visible * 255 - mask)[1:].abs() < 0.51).all()
    off = (view.rgb * 255 - stored["render.keyframes.video_u8"][0].transpose(0, 1)).abs()[1:]
    assert (off.amax(1) > 1.01).float().mean() < 2e-3


def colours_off(
    view: RenderedView, stored: Stored, name: str, chunk: int, level: float = 1.01
) -> Tensor:
    """Share of pixels more than ``level`` off, for every recorded frame of a chunk."""
    worst = []
    for place, frame in enumerate(stored[f"{name}.frames"].tolist()):
        if frame // 33 == chunk:
            off = (view.rgb[frame % 33] * 255 - stored[f"{name}.rgb"][:, place]).abs().amax(0)
            worst.append((off > level).float().mean())
    assert worst
    return torch.stack(worst)


@pytest.fixture(scope="module")
def boundary(chunks: Stored) -> np.ndarray[Any, Any]:
    """Before the second chunk; recorded in half precision, so some values are a level off."""
    return (chunks["boundary0"].double() * 255).round().byte().numpy()


def test_camera_run(chunks: Stored, boundary: np.ndarray[Any, Any]) -> None:
    """Masks of three chunks, colours of two; test_published_camera.py has the third."""
    run = CameraRun(chunks)
    warps = CameraWarps(run)
    for index in range(3):
        view = warps.view([boundary] * index)
        # Published chunks after the first begin with the boundary frame.
        seen = view.visible if index == 0 else torch.cat([torch.ones(1, *OUTPUT), view.visible])
        golden = chunks[f"chunk{index}.mask_u8_every4"][0, 0].float()
        assert ((seen[::4] * 255 - golden).abs() < 0.51).all()
        if index < 2:
            assert colours_off(view, chunks, "full", index, 0.51 + 1.5 * index).max() < 2e-3
        path = chunks[f"chunk{index}.rollout"].double().numpy()
        start = 33 * index - (index > 0)
        ours = pose.relative_to_first(run.poses[start : 33 * index + 33])
        np.testing.assert_allclose(ours, path, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "changes", "step"),
    [("splat", {"render_mode": "splat"}, None), ("black", {"fill": "black"}, 0.5)],
)
def test_first_chunk_of_other_camera_runs(
    chunks: Stored, name: str, changes: dict[str, Any], step: float | None
) -> None:
    view = CameraWarps(CameraRun(chunks, step), replace(PUBLISHED, **changes)).view([])
    assert colours_off(view, chunks, name, 0, 0.51).max() < 2e-3


def test_camera_run_without_keyframes(chunks: Stored, boundary: np.ndarray[Any, Any]) -> None:
    """The second chunk starts afresh from the boundary frame and its own depth."""
    view = CameraWarps(CameraRun(chunks), keyframes=False).view([boundary])
    assert colours_off(view, chunks, "no_keyframes", 1, 2.01).max() < 2e-3
