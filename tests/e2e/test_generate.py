"""``flythrough generate`` on a throw-away model: every way to state what shall be made."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flythrough.cameras.formats import read_trajectory
from flythrough.cameras.path_language import parse_path
from flythrough.media.video import read_video, write_video
from flythrough.models import catalog
from flythrough.rollout import store
from throwaway import Command

PATH = "forward 0.2; pan left 10deg"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_camera_path_gives_a_trimmed_video_and_nothing_else(
    flythrough: Command, tiny_model: Path, photo: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.mp4"
    answer = flythrough(
        "generate", photo, "--camera", PATH, "--model", tiny_model, "--frames", 40, "-o", out
    )
    assert answer.status == 0
    assert answer.result["frames"] == 40
    assert answer.result["chunks"] == 2
    clip = read_video(out)
    assert clip.frames.shape == (40, 64, 128, 3)
    assert clip.fps == 16.0
    assert clip.metadata["flythrough"] == answer.result["digest"]
    assert names(tmp_path) == {"out.mp4"}


def test_equal_requests_give_equal_videos_and_a_seed_changes_them(
    flythrough: Command, tiny_model: Path, photo: Path, tmp_path: Path
) -> None:
    def digest(seed: int) -> str:
        words = ["generate", photo, "--camera", PATH, "--model", tiny_model, "--frames", 33]
        return flythrough(*words, "--seed", seed, "-o", tmp_path / "out.mp4").result["digest"]

    assert digest(3) == digest(3)
    assert digest(3) != digest(4)


@pytest.mark.parametrize(
    ("path", "leaves"), [("pan right 170deg", True), ("pan right 5deg", False)]
)
def test_a_path_that_leaves_the_scene_is_foretold(
    flythrough: Command,
    tiny_model: Path,
    photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    leaves: bool,
) -> None:
    words = ["generate", photo, "--camera", path, "--geometry", "flat", "--model", tiny_model]
    kept = [] if leaves else ["--rollout", tmp_path / "run"]
    answer = flythrough(*words, "--frames", 33, "-o", tmp_path / "o.mp4", *kept)
    assert answer.status == 0
    assert ("the path leaves the scene: from frame" in answer.err) == leaves
    if leaves:
        return
    digests: list[Path] = []
    take = catalog.folder_digest
    monkeypatch.setattr(catalog, "folder_digest", lambda path: digests.append(path) or take(path))
    away = ["--camera", "pan right 170deg", "--frames", 20]
    answer = flythrough("continue", tmp_path / "run", *away)
    assert re.search(r"from frame 4\d to 53 less than .* from what was made so far", answer.err)
    assert digests == [tiny_model]  # 70 GB are not read twice


def test_a_camera_file_in_another_convention_is_told(
    flythrough: Command, tiny_model: Path, photo: Path, tmp_path: Path
) -> None:
    """An orbit with OpenGL axes, read with OpenCV's, turns away from its subject."""
    file, run, out = tmp_path / "c.npz", tmp_path / "run", tmp_path / "o.mp4"
    orbit = parse_path("orbit left 60deg", 33).world_from_camera
    keys = {"camera_poses": orbit @ np.diag([1.0, -1, -1, 1]), "unit": "median-depth"}
    np.savez(file, **keys)
    words = ["generate", photo, "--geometry", "flat", "--model", tiny_model, "--frames", 33]
    words += ["--camera", file, "--rollout", run, "-o", out]
    refused = flythrough(*words)
    assert refused.status == 2
    assert refused.err.count("\n") <= 3
    assert "states no convention" in refused.err
    assert "opengl,world-from-camera" in refused.err
    assert not run.exists()
    made = flythrough(*words, "--camera-convention", "opengl")
    assert made.status == 0, made.err
    assert "loses sight" not in made.err
    request = store.load(run).chunks[0].request
    assert request.world_from_camera is not None
    np.testing.assert_allclose(request.world_from_camera, orbit, atol=1e-9)
    plan = (run / "plan.json").read_bytes()
    again = flythrough("continue", run, "--camera", file, "-o", out)
    assert "states no convention" in again.err
    assert (run / "plan.json").read_bytes() == plan
    np.savez(file, **keys, convention="opencv")
    stated = flythrough("continue", run, "--camera", file, "-o", out, "--frames", 32)
    assert stated.status == 0, stated.err
    assert "the file states the former" in stated.err


def test_dropping_the_text_encoder_changes_nothing(
    flythrough: Command, tiny_model: Path, photo: Path, tmp_path: Path
) -> None:
    words = ["generate", photo, "--camera", PATH, "--prompt", "a hill", "--model", tiny_model]
    digests = [
        flythrough(*words, "--memory", memory, "-o", tmp_path / "o.mp4").result["digest"]
        for memory in ("resident", "drop-text")
    ]
    assert digests[0] == digests[1]


def test_camera_file_in_pixels_of_another_size(
    flythrough: Command, tiny_model: Path, photo: Path, tmp_path: Path
) -> None:
    file, folder = tmp_path / "path.npz", tmp_path / "run"
    poses = np.tile(np.eye(4), (33, 1, 1))
    poses[:, 0, 3] = np.linspace(0, 0.1, 33)
    matrix = np.array([[200.0, 0, 128], [0, 200, 64], [0, 0, 1]])
    np.savez(file, camera_poses=poses, intrinsics=np.tile(matrix, (33, 1, 1)), size=[128, 256])
    assert len(read_trajectory(file)) == 33
    words = ["generate", photo, "--camera", file, "--model", tiny_model, "--frames", 33]
    assert flythrough(*words, "--rollout", folder, "-o", tmp_path / "o.mp4").status == 0
    request = store.load(folder).chunks[0].request
    assert request.intrinsics is not None
    np.testing.assert_allclose(request.intrinsics[5], [[100, 0, 64], [0, 100, 32], [0, 0, 1]])


@pytest.mark.parametrize(
    "extra",
    [
        ["--geometry", "flat"],
        ["--geometry", "pi3x"],
        ["--lora", "off"],
        ["--size", "128x64"],
        ["--steps", "1,1,2"],
        ["--prompt", "a room", "--device", "cpu"],
        ["--method", "warp-as-history"],
    ],
    ids=" ".join,
)
def test_options_of_the_camera_method(
    flythrough: Command, tiny_model: Path, photo: Path, tmp_path: Path, extra: list[str]
) -> None:
    words = ["generate", photo, "--camera", PATH, "--model", tiny_model, "--frames", 8]
    answer = flythrough(*words, *extra, "-o", tmp_path / "out.mp4")
    assert answer.status == 0, answer.err
    assert answer.result["frames"] == 8


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".png"])
def test_depth_files(
    flythrough: Command, tiny_model: Path, photo: Path, tmp_path: Path, suffix: str
) -> None:
    depth = np.linspace(1.0, 3.0, 96 * 192, dtype=np.float32).reshape(96, 192)
    file = tmp_path / f"depth{suffix}"
    if suffix == ".npy":
        np.save(file, depth)
    elif suffix == ".npz":
        np.savez(file, depth=depth)
    else:
        Image.fromarray((depth * 1000).astype(np.uint16)).save(file)
    words = ["generate", photo, "--camera", PATH, "--model", tiny_model, "--frames", 33]
    answer = flythrough(*words, "--geometry", file, "-o", tmp_path / "out.mp4")
    assert answer.status == 0, answer.err
    assert "only the photo is kept" in answer.err


def test_own_adapter_file_equals_the_shipped_one(
    flythrough: Command, tiny_model: Path, photo: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "mine.safetensors"
    copy.write_bytes((tiny_model / "lora" / "camera.safetensors").read_bytes())
    words = ["generate", photo, "--camera", PATH, "--model", tiny_model, "--frames", 33]
    folders = [tmp_path / "shipped", tmp_path / "own"]
    flythrough(*words, "--rollout", folders[0], "-o", tmp_path / "a.mp4")
    flythrough(*words, "--rollout", folders[1], "--lora", copy, "-o", tmp_path / "b.mp4")
    one, two = (store.load(folder).chunks[0] for folder in folders)
    assert one.digest() == two.digest()


def test_photo_without_camera_and_prompt_alone(
    flythrough: Command, tiny_model: Path, photo: Path, tmp_path: Path
) -> None:
    words = ["--model", tiny_model, "--frames", 66, "-o", tmp_path / "out.mp4"]
    from_photo = flythrough("generate", photo, "--method", "helios", *words)
    from_prompt = flythrough("generate", "--prompt", "a lake at dawn", *words)
    assert (from_photo.status, from_prompt.status) == (0, 0)
    assert from_photo.result["digest"] != from_prompt.result["digest"]


def test_the_photo_is_the_first_frame_as_the_codec_shows_it(
    flythrough: Command, tiny_model: Path, photo: Path, tmp_path: Path
) -> None:
    """Latent 0 is the encoded photo whatever the seed."""
    first = []
    for seed in (1, 2):
        folder = tmp_path / str(seed)
        words = ["generate", photo, "--camera", PATH, "--model", tiny_model, "--frames", 33]
        flythrough(*words, "--seed", seed, "--rollout", folder, "-o", tmp_path / "out.mp4")
        first.append(store.load(folder).chunks[0])
    np.testing.assert_array_equal(first[0].latents[:, 0], first[1].latents[:, 0])
    np.testing.assert_array_equal(first[0].frames[0], first[1].frames[0])
    assert (first[0].latents[:, 5] != first[1].latents[:, 5]).any()


def test_saved_warp_can_lead_another_run(
    flythrough: Command, tiny_model: Path, photo: Path, tmp_path: Path
) -> None:
    warp, out = tmp_path / "warp.mp4", tmp_path / "out.mp4"
    words = ["generate", photo, "--model", tiny_model, "--frames", 40, "-o", out]
    made = flythrough(*words, "--camera", "forward 0.5", "--save-warp", warp)
    assert made.status == 0, made.err
    assert len(read_video(warp).frames) == 40
    led = flythrough(*words, "--warp", warp, "--warp-mask", warp)
    unmasked = flythrough(*words, "--warp", warp)
    assert (led.status, unmasked.status) == (0, 0)
    assert led.result["digest"] != unmasked.result["digest"]


def test_what_is_cut_or_assumed_is_announced(
    flythrough: Command, tiny_model: Path, photo: Path, tmp_path: Path
) -> None:
    warp = tmp_path / "warp.mp4"
    words = ["generate", photo, "--model", tiny_model, "-o", tmp_path / "out.mp4"]
    flythrough(*words, "--camera", "static", "--frames", 40, "--save-warp", warp)
    cut = flythrough(*words, "--warp", warp, "--frames", 20)
    assert "note: the warp" in cut.err
    long = flythrough(*words, "--camera", "static", "--frames", 8, "--prompt", "lake " * 20)
    assert "the model reads only the first 64" in long.err
    large = flythrough(*words, "--camera", "static", "--frames", 8, "--size", "64x256")
    assert "is enlarged" in large.err
    assert "only the middle" not in cut.err
    upright = flythrough(*words, "--camera", "static", "--frames", 8, "--size", "128x64")
    assert "in a video 64 wide and 128 high (--size is HEIGHTxWIDTH)" in upright.err
    assert "at 128x64 its videos may fall apart" in upright.err
    assert "fall apart" not in cut.err


def test_without_an_adapter_the_model_runs_zero_shot_and_says_so(
    flythrough: Command, tiny_model: Path, photo: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for part in tiny_model.iterdir():
        if part.name not in ("lora", "geometry"):
            os.symlink(part, bare / part.name)
    words = ["generate", photo, "--camera", PATH, "--frames", 8, "-o", tmp_path / "out.mp4"]
    answer = flythrough(*words, "--model", bare, "--geometry", "flat")
    assert answer.status == 0, answer.err
    assert "running zero-shot" in answer.err
    refused = flythrough(*words, "--model", bare)
    assert refused.status == 2
    assert "ships no geometry network" in refused.err


def test_a_clip_is_continued(flythrough: Command, tiny_model: Path, tmp_path: Path) -> None:
    rows = np.arange(64, dtype=np.uint8)[:, None, None]
    frames = np.stack([np.broadcast_to(rows + 2 * t, (64, 128, 3)) for t in range(70)])
    write_video(tmp_path / "clip.mp4", frames, 16.0, {})
    words = ["generate", "--video", tmp_path / "clip.mp4", "--model", tiny_model, "--frames", 33]
    answer = flythrough(*words, "--rollout", tmp_path / "run", "-o", tmp_path / "out.mp4")
    assert answer.status == 0, answer.err
    assert "last 66 and the first are remembered" in answer.err
    rollout = store.load(tmp_path / "run")
    assert rollout.start is not None
    assert rollout.start.video is not None
    assert rollout.start.video.shape == (66, 64, 128, 3)
    again = flythrough("continue", tmp_path / "run", "--frames", 33, "-o", tmp_path / "more.mp4")
    assert again.status == 0, again.err
    assert read_video(tmp_path / "more.mp4").frames.shape[0] == 66


def test_prompts_blend_over_the_chosen_chunks(
    flythrough: Command, tiny_model: Path, photo: Path, tmp_path: Path
) -> None:
    def second(blend: int, prompt: str) -> np.ndarray:
        run = tmp_path / f"{blend}-{prompt[:3]}"
        words = ["generate", photo, "--prompt", "a calm lake", "--model", tiny_model, "--frames"]
        first = flythrough(
            *words, 33, "--blend-chunks", blend, "--rollout", run, "-o", tmp_path / "a.mp4"
        )
        assert first.status == 0, first.err
        more = ["continue", run, "--prompt", prompt, "--frames", 66, "-o", tmp_path / "b.mp4"]
        assert flythrough(*more).status == 0
        return np.asarray([chunk.latents for chunk in store.load(run).chunks])

    same, at_once, slowly = second(2, "a calm lake"), second(0, "a storm"), second(2, "a storm")
    assert np.array_equal(slowly[1], same[1])  # the first chunk of a change still has the old one
    assert not np.array_equal(at_once[1], same[1])
    assert not np.array_equal(slowly[2], same[2])


def test_the_camera_files_focal_length_is_the_photos_too(
    flythrough: Command, tiny_model: Path, photo: Path, tmp_path: Path
) -> None:
    """Otherwise the picture would jump from frame 0, which is the photo, to frame 1."""
    file, warp = tmp_path / "still.npz", tmp_path / "warp.mp4"
    matrix = np.array([[150.0, 0, 64], [0, 150, 32], [0, 0, 1]])
    poses = np.tile(np.eye(4), (33, 1, 1))
    np.savez(file, camera_poses=poses, intrinsics=np.tile(matrix, (33, 1, 1)), size=[64, 128])
    words = ["generate", photo, "--camera", file, "--model", tiny_model, "--frames", 33]
    answer = flythrough(
        *words, "--geometry", "flat", "--save-warp", warp, "-o", tmp_path / "out.mp4"
    )
    assert answer.status == 0, answer.err
    assert "focal length of the camera file is used for the photo too" in answer.err
    frames = read_video(warp).frames.astype(float)
    assert np.abs(frames[0] - frames[1]).mean() < 4


def test_words_are_not_taken_for_files(
    flythrough: Command,
    tiny_model: Path,
    photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("default", "off", "flat"):
        (tmp_path / name).write_text("in the way")
    monkeypatch.chdir(tmp_path)
    words = ["generate", photo, "--camera", "static", "--model", tiny_model, "--frames", 1]
    answer = flythrough(*words, "--lora", "off", "-o", "out.mp4")
    assert answer.status == 0, answer.err
