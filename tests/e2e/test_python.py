"""The Python entrance: clips, and rollouts that are stepped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import flythrough as ft
from flythrough.media.video import read_video


@pytest.fixture(scope="module")
def pipe(tiny_model: Path) -> ft.Pipeline:
    return ft.load(tiny_model)


def straight(frames: int) -> ft.Trajectory:
    """Forward by exact binary fractions, so that cutting the path loses no bit."""
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, 2, 3] = np.arange(frames) / 256
    return ft.Trajectory(poses, np.arange(frames) / 16)


def test_clip(pipe: ft.Pipeline, photo: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, str]] = []
    clip = pipe(
        photo,
        camera="forward 0.6; pan left 20deg",
        frames=40,
        seed=7,
        callback=lambda index, label, _share: seen.append((index, label)),
    )
    assert clip.frames.shape == (40, 64, 128, 3)
    assert clip.frames.dtype == np.uint8
    assert seen[-1] == (1, "done")
    clip.save(tmp_path / "out.mp4")
    assert len(read_video(tmp_path / "out.mp4").frames) == 40
    again = pipe(str(photo), camera="forward 0.6; pan left 20deg", frames=40, seed=7)
    assert again.rollout.digest() == clip.rollout.digest()


def test_command_line_and_python_agree(
    pipe: ft.Pipeline, tiny_model: Path, photo: Path, tmp_path: Path
) -> None:
    from flythrough.cli.main import run
    from flythrough.rollout import store

    words = ["generate", str(photo), "--camera", "crane up 0.3", "--model", str(tiny_model)]
    words += ["--frames", "40", "--rollout", str(tmp_path / "run"), "-o", str(tmp_path / "o.mp4")]
    assert run(words) == 0
    clip = pipe(photo, camera="crane up 0.3", frames=40)
    assert store.load(tmp_path / "run").digest() == clip.rollout.digest()


def test_stepping_equals_one_run(pipe: ft.Pipeline, photo: Path) -> None:
    whole = straight(99)
    guided = {"guidance": 2.0, "negative_prompt": "blur"}
    rollout = pipe.start(photo, seed=3, **guided)
    assert not rollout.chunks
    for first in (0, 32, 65):
        last = first + (33 if first == 0 else 34)
        rollout = pipe.step(rollout, whole[first:last])
    clip = pipe(photo, camera=whole, frames=99, seed=3, **guided)
    assert clip.rollout.digest() == rollout.digest()
    np.testing.assert_array_equal(clip.frames, np.stack(list(rollout.frames())))


def test_branches_leave_their_parent_alone(pipe: ft.Pipeline, photo: Path) -> None:
    parent = pipe.step(pipe.start(photo, seed=7), ft.path("forward 0.3"))
    digest = parent.digest()
    left = pipe.step(parent, "pan left 20deg")
    right = pipe.step(parent, ft.path("pan right 20deg"), prompt="dusk")
    assert parent.digest() == digest
    assert left.digest() != right.digest()
    assert left.rewind(1).digest() == right.rewind(1).digest() == digest
    assert pipe.step(left.rewind(1), "pan left 20deg").digest() == left.digest()
    further = pipe.step(right, "static")
    assert further.chunks[-1].request.prompt == "dusk"


def test_other_ways_to_start(pipe: ft.Pipeline, photo: Path) -> None:
    from_prompt = pipe(prompt="a lake", frames=33)
    assert from_prompt.rollout.start is None
    assert pipe(photo, frames=8).rollout.spec.method == "helios"
    with pytest.raises(ft.InputError, match="no camera to move on from"):
        pipe.step(from_prompt.rollout, "static")


def test_fallbacks_are_warnings(pipe: ft.Pipeline, tiny_model: Path, photo: Path) -> None:
    with pytest.warns(UserWarning, match="held at its last camera"):
        pipe(photo, camera=straight(8), frames=20)
    with pytest.warns(UserWarning, match="only the photo is kept"):
        ft.load(tiny_model, geometry="flat", lora="off").start(photo)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"camera": "sideways"}, "sideways"),
        ({"image": "none.png", "camera": "static"}, "does not exist"),
        ({"camera": "static", "frames": 0}, "out of range"),
        ({"camera": "static", "size": (65, 64)}, "multiple of 64"),
        ({"image": None, "camera": "static"}, "needs a photo"),
        ({"image": None}, "Neither an image, a video nor a prompt"),
    ],
)
def test_bad_arguments(
    pipe: ft.Pipeline, photo: Path, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ft.InputError, match=message):
        pipe(**{"image": photo, **arguments})


def test_unknown_names() -> None:
    with pytest.raises(ft.InputError, match="no model"):
        ft.load("none")
    with pytest.raises(AttributeError):
        _ = ft.nonsense
    assert {"load", "path", "Pipeline"} <= set(dir(ft))


def test_a_rollout_without_camera_control_cannot_be_stepped(pipe: ft.Pipeline, photo: Path) -> None:
    made = pipe(photo, frames=33)
    with pytest.raises(ft.InputError, match="no camera to move on from"):
        pipe.step(made.rollout.rewind(1), "forward 0.2")


def test_options_for_cameras_need_a_camera(tiny_model: Path, photo: Path) -> None:
    with pytest.raises(ft.InputError, match="no effect without a camera"):
        ft.load(tiny_model, lora="off")(photo, frames=33)
