"""Parts of ``train lora``: whole-clip geometry, rendered items, the memory plan, the log."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from flythrough.cameras.trajectory import LengthUnit, Trajectory
from flythrough.conditioning.prompts import with_trigger
from flythrough.conditioning.warped_history import WarpHistorySettings
from flythrough.errors import InputError
from flythrough.geometry.estimator import Capabilities
from flythrough.geometry.types import Geometry, ScaleKind
from flythrough.models.accounting import weight_bytes
from flythrough.models.adapters import new_lora
from flythrough.models.loading import load_transformer
from flythrough.sampling.dmd_schedule import PyramidConfig
from flythrough.scene.settings import WarpSettings
from flythrough.scene.splat_memory import scene_memory
from flythrough.scene.surface import Keyframe
from flythrough.training.clip_sampling import Clip
from flythrough.training.lora.clips import TrainingClip
from flythrough.training.lora.geometry import PlayedClip, estimate_clip, known_geometry
from flythrough.training.lora.items import render_item
from flythrough.training.lora.memory import step_need
from flythrough.training.lora.poses import placed_by_features
from flythrough.training.lora.previews import fit_of_warp
from flythrough.training.lora.task import CameraTask, Items
from flythrough.training.run_folder import cut_log, read_log
from throwaway import SIZE

HEIGHT, WIDTH = 32, 64
COUNT = 50
WARP = WarpSettings(samples_per_axis=2, fill_radius=1)


def wall(count: int = COUNT) -> tuple[np.ndarray, Geometry]:
    """A wall 4 units away whose colour says where one looks; the camera moves right, turning."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    frames = np.stack(
        [np.stack([columns * 3 + n, rows * 7, columns * 0 + 4 * n], -1) for n in range(count)]
    )
    poses = torch.eye(4).repeat(count, 1, 1)
    poses[:, 0, 3] = 0.05 * torch.arange(count)
    poses[:, 2, 3] = 0.02 * torch.arange(count)
    matrix = torch.tensor([[50.0, 0, WIDTH / 2], [0, 50.0, HEIGHT / 2], [0, 0, 1]])
    depth = 4 + 0.01 * torch.arange(WIDTH).expand(count, HEIGHT, WIDTH).float()
    depth = depth + 0.03 * torch.arange(count)[:, None, None]
    valid = torch.ones(count, HEIGHT, WIDTH, dtype=torch.bool)
    geometry = Geometry(
        depth, valid.float(), valid, matrix.repeat(count, 1, 1), poses, ScaleKind.METRIC
    )
    return frames.astype(np.uint8), geometry


class Windowed:
    """Says the truth about a wall, in a unit and a world frame that differ from call to call."""

    name = "windowed"
    capabilities = Capabilities(scale=ScaleKind.METRIC, max_views=20, predicts_poses=True)

    def __init__(self, truth: Geometry) -> None:
        self.truth, self.seen = truth, list[int]()

    def estimate(self, images: Tensor, *, intrinsics: Tensor | None = None) -> Geometry:
        assert intrinsics is None
        first = round(float(images[0, 2, 0, 0]) * 255 / 4)
        self.seen.append(first)
        part = {
            k: v[first : first + len(images)]
            for k, v in vars(self.truth).items()
            if isinstance(v, Tensor)
        }
        found = replace(self.truth, **part)
        anchored = found.placed(
            torch.linalg.inv(part["world_from_camera"][0]) @ part["world_from_camera"]
        )
        return anchored.scaled(1 + 0.5 * len(self.seen))


def test_windows_of_a_long_clip_share_world_and_unit() -> None:
    frames, truth = wall()
    estimator = Windowed(truth)
    found = estimate_clip(estimator, torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255)
    assert estimator.seen == [0, 12, 24, 30]
    assert len(found) == COUNT
    torch.testing.assert_close(found.depth, 1.5 * truth.depth, rtol=1e-5, atol=0)
    expected = truth.scaled(1.5).world_from_camera
    torch.testing.assert_close(found.world_from_camera, expected, rtol=0, atol=1e-4)


def clip_of(frames: np.ndarray, camera: Trajectory | None) -> TrainingClip:
    return TrainingClip("clip", frames, "a wall", with_trigger("a wall"), camera)


def test_cameras_in_scene_units_are_brought_to_the_unit_of_the_depth(tmp_path: Path) -> None:
    frames, truth = wall(40)
    poses = truth.world_from_camera.double().numpy().copy()
    poses[:, :3, 3] *= 7
    path = Trajectory(poses, np.arange(40.0), LengthUnit.SCENE)
    notes: list[str] = []
    made = known_geometry(
        clip_of(frames, path), tmp_path / "g.safetensors", lambda: Windowed(truth), notes.append
    )
    expected = truth.scaled(1.5).world_from_camera
    torch.testing.assert_close(made.world_from_camera, expected, rtol=0, atol=1e-3)
    assert "scene units: 0.2143 units" in notes[0]
    still = Trajectory(np.tile(np.eye(4), (40, 1, 1)), np.arange(40.0), LengthUnit.SCENE)
    with pytest.raises(InputError, match="hardly move"):
        known_geometry(
            clip_of(frames, still), tmp_path / "h.safetensors", lambda: Windowed(truth), print
        )


def speckled(pace: float, count: int = 20) -> tuple[np.ndarray, Geometry]:
    """A speckled wall 4 units away seen while moving right; the geometry knows no motion."""
    height, width, focal, depth = 96, 160, 150.0, 4.0
    source = torch.Generator().manual_seed(3)
    noise = torch.rand(1, 1, 60, 200, generator=source)
    texture = torch.nn.functional.interpolate(noise, scale_factor=4, mode="bicubic")[0, 0]
    columns = torch.arange(width)[None, :].expand(height, width)
    rows = torch.arange(height)[:, None].expand(height, width)
    frames = []
    for n in range(count):
        shift = round(pace * n * focal / depth)
        grey = texture[rows + 40, columns + 40 + shift].clamp(0, 1) * 255
        frames.append(grey[..., None].expand(-1, -1, 3).byte().numpy())
    valid = torch.ones(count, height, width, dtype=torch.bool)
    matrix = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    still = torch.eye(4).repeat(count, 1, 1)
    known = depth * valid.float()
    return np.stack(frames), Geometry(
        known, valid.float(), valid, matrix.repeat(count, 1, 1), still, ScaleKind.METRIC
    )


def test_cameras_from_features_and_depth() -> None:
    """20 frames, so that a later view takes over once."""
    pace = 4 * 4 / 150.0  # four pixels a frame
    frames, geometry = speckled(pace)
    found = placed_by_features(frames, geometry).world_from_camera
    expected = torch.eye(4).repeat(len(frames), 1, 1)
    expected[:, 0, 3] = pace * torch.arange(len(frames))
    torch.testing.assert_close(found[:, :3, 3], expected[:, :3, 3], rtol=0, atol=0.1)
    torch.testing.assert_close(found[:, :3, :3], expected[:, :3, :3], rtol=0, atol=0.03)
    blank = np.full_like(frames, 128)
    blank[0] = frames[0]
    with pytest.raises(InputError, match="camera of frame 1 cannot be found"):
        placed_by_features(blank, geometry)


def test_previews_say_how_near_warps_lie() -> None:
    frames, geometry = speckled(4 * 4 / 150.0, 40)
    clip = Clip("forward", 0)
    moving = geometry.world_from_camera.clone()
    moving[:, 0, 3] = 4 * 4 / 150.0 * torch.arange(40)
    right = render_item(PlayedClip(frames, replace(geometry, world_from_camera=moving)), clip, WARP)
    wrong = render_item(PlayedClip(frames, geometry), clip, WARP)
    warped, still = fit_of_warp(right) or (0.0, 0.0)
    assert warped > still + 10
    warped, still = fit_of_warp(wrong) or (0.0, 0.0)
    assert warped == pytest.approx(still, abs=0.5)


def test_geometry_is_computed_once(tmp_path: Path) -> None:
    frames, truth = wall(33)
    file = tmp_path / "g.safetensors"
    estimator = Windowed(truth)
    first = known_geometry(clip_of(frames, None), file, lambda: estimator, print)
    calls = len(estimator.seen)
    second = known_geometry(clip_of(frames, None), file, lambda: estimator, print)
    assert len(estimator.seen) == calls
    assert torch.equal(first.depth, second.depth)
    cut = file.read_bytes()[:100]
    file.unlink()  # rather than overwritten: tensors above are mapped from it
    file.write_bytes(cut)
    third = known_geometry(clip_of(frames, None), file, lambda: Windowed(truth), print)
    assert torch.equal(first.depth, third.depth)


def test_items_are_rendered_by_the_scene_memory_that_the_model_names() -> None:
    """As at inference: a model that keeps Gaussians is trained on warps of Gaussians."""
    frames, geometry = wall(40)
    settings = replace(WARP, memory="gaussian", gaussian_steps=2)
    item = render_item(PlayedClip(frames, geometry), Clip("forward", 5), settings)
    played = PlayedClip(frames, geometry)
    known = (Keyframe(played.pictures([5])[0], geometry.frame(5)),)
    cameras, matrices = geometry.world_from_camera[5:38], geometry.intrinsics[5:38]
    expected = scene_memory(known, settings).render(
        cameras, matrices, geometry.size, settings, first_is_photo=True
    )
    assert torch.equal(item.warp, expected.rgb)
    assert torch.equal(item.visible, expected.visible)


def test_items_of_first_and_later_clips() -> None:
    frames, geometry = wall(110)
    played = PlayedClip(frames, geometry)
    first = render_item(played, Clip("forward", 5), WARP)
    assert np.array_equal(first.anchor, frames[5])
    assert len(first.past) == 0
    torch.testing.assert_close(first.warp[0], played.pictures([5])[0])
    assert first.warp.shape == (33, 3, HEIGHT, WIDTH)
    assert bool((first.visible[0] == 1).all())

    later = render_item(played, Clip("forward", 70, (67, 68, 69), (75,)), WARP)
    assert later.warp.shape == (33, 3, HEIGHT, WIDTH)
    assert np.array_equal(later.target, frames[70:103])
    assert np.array_equal(later.anchor, frames[4])
    assert np.array_equal(later.past, frames[4:70])
    early = render_item(played, Clip("forward", 20, (18, 19)), WARP)
    assert (len(early.past), bool((early.anchor == frames[19]).all())) == (0, True)
    published = replace(WARP, background="atlas", keyframes="joint", reference=True)
    as_published = render_item(
        played, Clip("forward", 70, (67, 68, 69), (75,)), published, reference=True
    )
    assert (len(as_published.past), bool((as_published.anchor == frames[69]).all())) == (0, True)
    assert float(as_published.visible.mean()) >= float(later.visible.mean())
    levels = as_published.warp * 255
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-3)


def test_the_mask_belongs_to_its_frame() -> None:
    """A later clip's boundary frame is dropped from video and mask alike: a camera that jumps away
    after three frames sees nothing from the fourth on."""
    frames, geometry = wall(50)
    poses = geometry.world_from_camera.clone()
    poses[13:, 0, 3] += 1000
    away = replace(geometry, world_from_camera=poses)
    item = render_item(PlayedClip(frames, away), Clip("forward", 10, (8, 9)), WARP)
    assert (item.visible.flatten(1).mean(1) > 0.5).tolist() == [True] * 3 + [False] * 30


def test_a_clip_played_backwards_shows_the_same() -> None:
    frames, geometry = wall(33)
    played = PlayedClip(frames, geometry)
    back = played.reversed()
    item = render_item(back, Clip("reverse", 0), WARP)
    assert np.array_equal(item.target, frames[::-1])
    again = back.reversed()
    assert torch.equal(again.geometry.world_from_camera, geometry.world_from_camera)
    assert np.array_equal(again.images, frames)


def test_memory_is_known_before_loading(tiny_model: Path) -> None:
    folder = tiny_model / "transformer"
    latent = (16, SIZE[0] // 8, SIZE[1] // 8)
    needs = [
        step_need(
            folder,
            torch.float32,
            latent,
            1,
            WarpHistorySettings(),
            rank=4,
            checkpointing=checkpointing,
            text_length=64,
        )
        for checkpointing in (False, True)
    ]
    net = load_transformer(folder, torch.float32)
    assert needs[0].base == weight_bytes(net)
    assert needs[0].parameters == sum(p.numel() for p in new_lora(net, 4))
    assert needs[0].activations > needs[1].activations > 0
    with pytest.raises(InputError, match="--gradient-checkpointing or a smaller --size"):
        replace(needs[0], base=1 << 60).check(torch.device("cpu"), False)


def test_items_meet_every_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    items = Items(Path(), [0] * 6, [])
    met: list[tuple[int, tuple[int, ...]]] = []

    def record(_: CameraTask, given: Items, number: int, stages: tuple[int, ...], *__: object):
        assert given is items
        met.append((number, stages))
        return {}

    monkeypatch.setattr(CameraTask, "item_loss", record)
    task = CameraTask(
        None,  # type: ignore[arg-type]
        [torch.nn.Parameter(torch.zeros(1))],
        items,
        Items(Path(), [], []),
        PyramidConfig(),
        stages=(0, 1, 2),
        history=WarpHistorySettings(),
        seed=1,
        preview=lambda _folder, _step: {},
    )
    for step in range(18):
        task.loss(step, 0)
    assert set(met) == {(n, (stage,)) for n in range(1, 7) for stage in (0, 1, 2)}
    assert met[:2] == [(1, (0,)), (2, (1,))]


def test_steps_that_are_done_again_leave_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps({"step": n}) + "\n" for n in range(1, 6)) + '{"ste')
    cut_log(log, 3)
    assert [line["step"] for line in read_log(log)] == [1, 2, 3]
    cut_log(tmp_path / "none.jsonl", 3)
    assert not (tmp_path / "none.jsonl").exists()
