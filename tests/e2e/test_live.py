"""Live stepping: previews of warps, steps along warps in memory, cameras that zoom, branches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import flythrough as ft
from flythrough.media.video import read_video
from flythrough.rollout import store
from throwaway import Command

SHAPE = (33, 64, 128)


@pytest.fixture(scope="module")
def pipe(visible_model: Path) -> ft.Pipeline:
    return ft.load(visible_model)


@pytest.fixture(scope="module")
def flat(visible_model: Path) -> ft.Pipeline:
    """Everything stands at one depth, so that warps can be foretold."""
    return ft.load(visible_model, geometry="flat")


@pytest.fixture(scope="module")
def first(pipe: ft.Pipeline, photo: Path) -> ft.Rollout:
    return pipe.step(pipe.start(photo, seed=2), "forward 0.2")


def focal(rollout: ft.Rollout) -> np.ndarray:
    cameras = rollout.cameras()
    assert cameras is not None
    return cameras[1][:, 0, 0]


def magnified(image: np.ndarray, factor: float) -> np.ndarray:
    """``image`` uint8 [H,W,3] enlarged about its centre (nearest pixel), at its own size."""
    rows, columns = (
        ((np.arange(side) + 0.5 - side / 2) / factor + side / 2).astype(int)
        for side in image.shape[:2]
    )
    return image[np.ix_(rows, columns)]


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """Mean difference in grey levels away from the border."""
    return float(np.abs(one[8:-8, 8:-8].astype(float) - other[8:-8, 8:-8]).mean())


def test_preview_is_what_a_step_is_conditioned_on(pipe: ft.Pipeline, first: ft.Rollout) -> None:
    digest = first.digest()
    frames, mask = pipe.warp(first, "pan right 20deg")
    assert frames.dtype == np.uint8
    assert frames.shape == (*SHAPE, 3)
    assert mask.dtype == np.float32
    assert mask.shape == SHAPE
    assert 0 <= mask.min() < mask.max() <= 1
    assert mask[-1].mean() < mask[0].mean()  # turning away, less and less was seen
    assert first.digest() == digest
    turned, seen = pipe.warp(first, "pan left 20deg")
    assert not np.array_equal(frames, turned)
    assert seen[-1, :, -8:].mean() > mask[-1, :, -8:].mean()
    again = pipe.warp(first, "pan right 20deg")
    np.testing.assert_array_equal(again.frames, frames)


def test_a_warp_in_memory_leads_like_one_from_a_file(
    pipe: ft.Pipeline, photo: Path, visible_model: Path, flythrough: Command, tmp_path: Path
) -> None:
    warp, mask, run = tmp_path / "w.mp4", tmp_path / "m.mp4", tmp_path / "run"
    words = ["generate", photo, "--model", visible_model, "--frames", 33, "-o", tmp_path / "o.mp4"]
    path = "pan right 30deg"
    made = flythrough(*words, "--camera", path, "--save-warp", warp, "--save-mask", mask)
    assert made.status == 0, made.err
    led = flythrough(*words, "--warp", warp, "--warp-mask", mask, "--rollout", run)
    assert led.status == 0, led.err
    frames = read_video(warp).frames
    seen = read_video(mask).frames.mean(axis=3).round().astype(np.uint8)
    stepped = pipe.step(pipe.start(photo), warp=frames, mask=seen)
    assert stepped.chunks[0].digest() == store.load(run).chunks[0].digest()
    assert pipe.step(pipe.start(photo), warp=frames).digest() != stepped.digest()
    with pytest.raises(ft.InputError, match="followed a warp alone"):
        pipe.step(stepped, "forward 0.1")
    assert len(pipe.step(stepped, warp=frames).chunks) == 2


def test_the_mask_video_shows_what_the_preview_says(
    flythrough: Command, photo: Path, visible_model: Path, tmp_path: Path
) -> None:
    mask = tmp_path / "mask.mp4"
    words = ["generate", photo, "--model", visible_model, "--frames", 20, "-o", tmp_path / "o.mp4"]
    answer = flythrough(*words, "--camera", "pan right 30deg", "--save-mask", mask)
    assert answer.status == 0, answer.err
    pipe = ft.load(visible_model)
    turn = ft.path("pan right 30deg", 20).padded(33)
    expected = pipe.warp(pipe.start(photo), turn).mask
    shown = read_video(mask).frames
    assert shown.shape == (20, *SHAPE[1:], 3)
    assert np.mean((shown[..., 1] > 127) == (expected[:20] > 0.5)) > 0.97


def test_a_preview_reads_files_as_a_step_does(
    pipe: ft.Pipeline, first: ft.Rollout, tmp_path: Path
) -> None:
    path = ft.path("pan right 10deg; forward 0.1", 34)
    file = tmp_path / "path.npz"
    flipped = path.world_from_camera @ np.diag([1.0, -1.0, -1.0, 1.0])
    np.savez(file, camera_poses=flipped, unit="median-depth")
    shown = pipe.warp(first, file, camera_convention="opengl")
    expected = pipe.warp(first, path)
    assert np.mean(np.abs(shown.mask - expected.mask)) < 0.01
    assert np.mean(np.abs(shown.frames.astype(float) - expected.frames)) < 1
    with pytest.raises(ft.FlythroughError, match="has no effect on a path in words"):
        pipe.warp(first, "forward 0.1", camera_convention="opengl")


def test_cameras_beside_a_warp_let_later_steps_go_on(pipe: ft.Pipeline, first: ft.Rollout) -> None:
    path = ft.path("forward 0.1")
    frames, mask = pipe.warp(first, path)
    beside = pipe.step(first, path, warp=frames, mask=mask, prompt="dusk")
    plain = pipe.step(first, path)
    request, other = beside.chunks[1].request, plain.chunks[1].request
    assert request.prompt == "dusk"
    assert request.warp_digest is not None
    np.testing.assert_array_equal(request.world_from_camera, other.world_from_camera)
    assert len(pipe.step(beside, "backward 0.1").chunks) == 3
    fractions = pipe.step(first, path, warp=frames, mask=mask >= 0.5, prompt="dusk")
    as_floats = (mask >= 0.5).astype(np.float32)
    assert (
        fractions.digest() == pipe.step(first, path, "dusk", warp=frames, mask=as_floats).digest()
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "needs a way to go"),
        ({"mask": np.ones(SHAPE)}, "no effect without a warp"),
        ({"warp": np.zeros((32, 64, 128, 3), np.uint8)}, r"needs uint8 \[33, 64, 128, 3\]"),
        ({"warp": np.zeros((*SHAPE, 3), np.float32)}, "is float32"),
        ({"warp": np.zeros((*SHAPE, 3), np.uint8), "mask": np.ones((33, 64, 64))}, "The mask is"),
        ({"warp": np.zeros((*SHAPE, 3), np.uint8), "mask": np.ones(SHAPE, int)}, "The mask is int"),
        ({"warp": np.zeros((*SHAPE, 3), np.uint8), "mask": np.full(SHAPE, 2.0)}, "between 0"),
        ({"warp": np.zeros((*SHAPE, 3), np.uint8), "mask": np.full(SHAPE, np.nan)}, "between 0"),
        ({"camera": "foward 0.5"}, "did you mean forward"),
    ],
)
def test_steps_that_cannot_be(
    pipe: ft.Pipeline, first: ft.Rollout, given: dict[str, object], message: str
) -> None:
    with pytest.raises(ft.InputError, match=message):
        pipe.step(first, **given)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_metres_need_a_metric_scale(flat: ft.Pipeline, photo: Path) -> None:
    start = flat.start(photo)
    for act in (flat.step, flat.warp):
        with pytest.raises(ft.InputError, match="in metres but --geometry flat has no metric"):
            act(start, "forward 1m")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_zoom_changes_the_camera_frame_by_frame_and_the_warp_shows_it(
    flat: ft.Pipeline, photo: Path
) -> None:
    start = flat.start(photo)
    assert start.start is not None
    image, before = start.start.image, start.start.intrinsics[0, 0]
    warp = flat.warp(start, "zoom 1.5x")
    assert apart(warp.frames[-1], magnified(image, 1.5)) < 4
    assert apart(warp.frames[-1], image) > 8
    assert apart(warp.frames[16], magnified(image, 1.5**0.5)) < 4
    zoomed = flat.step(start, "zoom 1.5x")
    np.testing.assert_allclose(focal(zoomed), before * 1.5 ** (np.arange(33) / 32))
    further = flat.step(zoomed, "zoom 0.5x")  # goes on from the last focal length
    np.testing.assert_allclose(focal(further)[33:], 1.5 * before * 0.5 ** (np.arange(1, 34) / 33))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_dolly_zoom_keeps_the_size_of_what_stands_at_the_subject(
    flat: ft.Pipeline, photo: Path
) -> None:
    start = flat.start(photo)
    assert start.start is not None
    image, before = start.start.image, start.start.intrinsics[0, 0]
    made = flat.step(start, "dolly-zoom")
    share = np.arange(33) / 32
    np.testing.assert_allclose(focal(made), before * (1 - 0.4 * share))
    cameras = made.cameras()
    assert cameras is not None
    assert (np.diff(cameras[0][:, 2, 3]) > 0).all()
    frames = flat.warp(start, "dolly-zoom").frames
    assert max(apart(frame, image) for frame in frames) < 4
    assert apart(flat.warp(start, "dolly-in 0.4").frames[-1], image) > 8


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_intrinsics_of_a_trajectory_count_in_every_frame(flat: ft.Pipeline, photo: Path) -> None:
    start = flat.start(photo)
    assert start.start is not None
    own = np.tile(start.start.intrinsics, (33, 1, 1))
    own[:, :2, :2] *= np.linspace(1, 1.5, 33)[:, None, None]
    poses = np.tile(np.eye(4), (33, 1, 1))
    path = ft.Trajectory(poses, np.arange(33) / 16, intrinsics=own, size=SHAPE[1:])
    shown = flat.warp(start, path).frames
    assert apart(shown[-1], magnified(start.start.image, 1.5)) < 4
    np.testing.assert_allclose(focal(flat.step(start, path)), own[:, 0, 0])


def test_branches_of_one_parent(pipe: ft.Pipeline, first: ft.Rollout) -> None:
    """A branch leaves its parent unchanged; other steps differ, the same steps are bit-equal."""
    digest, frames = first.digest(), first.chunks[0].frames.copy()
    one, two, three = first.branch(), first.branch(), first.branch()
    one, two, three = (
        pipe.step(branch, way)
        for branch, way in (
            (one, "pan left 20deg"),
            (two, "pan right 20deg"),
            (three, "pan left 20deg"),
        )
    )
    assert first.digest() == digest
    np.testing.assert_array_equal(first.chunks[0].frames, frames)
    assert not np.array_equal(one.chunks[1].latents, two.chunks[1].latents)
    np.testing.assert_array_equal(one.chunks[1].latents, three.chunks[1].latents)
    np.testing.assert_array_equal(one.chunks[1].frames, three.chunks[1].frames)
    assert one.digest() == three.digest() != two.digest()
    assert one.branch(1).digest() == digest
