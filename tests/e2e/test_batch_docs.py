"""docs/batch.md does what it says, and lists in the published layout work as they are."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flythrough.engine.batch_record import read_records
from flythrough.media.video import read_video, write_video
from flythrough.rollout import store
from throwaway import Command

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(
    r"<!-- tested -->\n```(\w+)\n(.*?)```", (ROOT / "docs/batch.md").read_text(), flags=re.DOTALL
)
HEADER = [
    "first_frame_path",
    "prompt",
    "camera_poses_path",
    "warp_video_path",
    "warp_visibility_mask_path",
]


@pytest.mark.parametrize("number", range(2))
def test_the_examples_run(number: int, tiny_model: Path, tmp_path: Path) -> None:
    """As they stand, but with a smaller model."""
    language, text = BLOCKS[number]
    text = text.replace("-o shots", f"-o shots --model {tiny_model}")
    text = text.replace("frames=33)", f"frames=33, model={str(tiny_model)!r})")
    assert str(tiny_model) in text
    shutil.copy(ROOT / "src/flythrough/assets/example.jpg", tmp_path / "photo.jpg")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shell = ["bash", "-euo", "pipefail", "-c"] if language == "bash" else [sys.executable, "-c"]
    subprocess.run([*shell, text], cwd=tmp_path, env={**os.environ, "PATH": path}, check=True)
    made = {f"walk-camera{c}-seed{s}" for c in (1, 2) for s in (1, 2)} | {"lake"}
    expected = made if language == "bash" else {"walk-camera1", "walk-camera2"}
    assert set(read_records(tmp_path / "shots")) == expected
    assert (tmp_path / "shots/contact.png").is_file()


@pytest.fixture
def release(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small repository in the published layout; the command runs elsewhere."""
    root = tmp_path / "release"
    for name in ("castle", "rider"):
        (root / "data/demo" / name).mkdir(parents=True)
        shutil.copy(photo, root / "data/demo" / name / "frame.png")
    poses = np.tile(np.eye(4, dtype=np.float32), (40, 1, 1))
    poses[:, 2, 3] = np.linspace(0, 2, 40)
    np.savez(root / "data/demo/castle/camera_poses.npz", camera_poses=poses)
    frames = [np.full((48, 96, 3), 60 + 3 * t, np.uint8) for t in range(33)]
    half = np.where(np.arange(96) < 48, 255, 0).astype(np.uint8)
    mask = np.broadcast_to(half[None, :, None], (48, 96, 3))
    write_video(root / "data/demo/rider/warp.mp4", frames, 15.0)
    write_video(root / "data/demo/rider/visibility_mask.mp4", [mask] * 33, 15.0)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return root


def demo(release: Path, name: str, *row: str, header: list[str] = HEADER) -> Path:
    path = release / "data/demo" / f"{name}.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, row])
    return path


def test_poses_of_a_published_list(flythrough: Command, tiny_model: Path, release: Path) -> None:
    folder = "data/demo/castle"
    row = (f"{folder}/frame.png", "A castle | at dusk, quiet", f"{folder}/camera_poses.npz", "", "")
    path = demo(release, "castle", *row)
    words = ["batch", path, "-o", "out", "--model", tiny_model, "--keep-rollouts"]
    answer = flythrough(*words)
    assert answer.status == 0, answer.err
    assert "note: the list is in the published Warp-as-History layout" in answer.err
    assert len(read_video("out/castle.mp4").frames) == 40
    rollout = store.load("out/rollouts/castle")
    assert (rollout.spec.seed, rollout.spec.prompt) == (42, "A castle | at dusk, quiet")
    plan = store.read_plan("out/rollouts/castle")
    last = rollout.chunks[-1].request.world_from_camera
    assert last is not None
    np.testing.assert_allclose(last[-1, 2, 3], 2 * 0.1 * plan["median_depth"], rtol=1e-5)
    long = flythrough(*words, "--frames", 50)
    assert "50 frames are asked for but there are 40 poses: the last is held" in long.err
    assert len(read_video("out/castle.mp4").frames) == 50


def test_warp_and_mask_of_a_published_list(
    flythrough: Command, tiny_model: Path, release: Path
) -> None:
    """At the shape of the photo and a size of its own; the mask is optional and counts."""
    photo, warp, mask = (
        f"data/demo/rider/{name}" for name in ("frame.png", "warp.mp4", "visibility_mask.mp4")
    )
    poses = "data/demo/castle/camera_poses.npz"
    digests = set()
    for place, row in enumerate(
        [(photo, "x", "", warp, mask), (photo, "x", "", warp, ""), (photo, "x", poses, warp, mask)]
    ):
        path = demo(release, "rider", *row)
        answer = flythrough("batch", path, "-o", f"out{place}", "--model", tiny_model)
        assert answer.status == 0, answer.err
        assert "is 48x96 and is cut and scaled to 64x128" in answer.err
        assert ("the warp leads" in answer.err) == (place == 2)
        record = read_records(Path(f"out{place}"))["rider"]
        assert record.frames == 33
        digests.add(record.digest)
    assert len(digests) == 2


def test_aliases_prompt_files_and_own_columns(
    flythrough: Command, tiny_model: Path, release: Path
) -> None:
    (release / "words.txt").write_text("A rider.\n")
    header = ["Image_Path", "prompt_path", "warp_path", "warp_visibliry_mask_path", "seed", "id"]
    row = ("rider/frame.png", "words.txt", "rider/warp.mp4", "", "5", "mine")
    path = demo(release, "rider", *row, header=header)
    answer = flythrough("batch", path, "-o", "out", "--model", tiny_model, "--frames", 8)
    assert answer.status == 0, answer.err
    request = read_records(Path("out"))["mine"].request
    assert (request["prompt"], request["seed"], request["frames"]) == ("A rider.", 5, 8)


@pytest.mark.parametrize(
    ("header", "row", "sentence"),
    [
        (HEADER, ("none.png", "x", "data/demo/castle/camera_poses.npz", "", ""), "does not exist"),
        (HEADER, ("rider/frame.png", "x", "none.npz", "", ""), "no camera file"),
        (HEADER, ("rider/frame.png", "x", "", "none.mp4", ""), "does not exist"),
        (HEADER, ("rider/frame.png", "x", "", "", "rider/warp.mp4"), "no effect without --warp"),
        (["image_path", "prompt_path", "camera_path"], ("a", "none.txt", "b"), "prompt file"),
        (["image_path", "first_frame"], ("a.png", "b.png"), "filled twice"),
        (["image_path", "fps"], ("a.png", "24"), "column 'fps' is unknown"),
    ],
)
def test_published_lists_are_checked_too(
    flythrough: Command,
    tiny_model: Path,
    release: Path,
    header: list[str],
    row: tuple[str, ...],
    sentence: str,
) -> None:
    path = demo(release, "castle", *row, header=header)
    answer = flythrough("batch", path, "-o", "out", "--model", tiny_model)
    assert answer.status == 2
    assert sentence in answer.err
    assert not Path("out").exists()


def test_small_stills_show_every_clip(tmp_path: Path) -> None:
    from flythrough.engine.contact import write_contact

    clips = {}
    for number in range(5):
        clips[f"clip-{number}"] = tmp_path / f"{number}.mp4"
        levels = [50 * number + t for t in range(1 + number)]
        frames = [np.full((64, 128, 3), level, np.uint8) for level in levels]
        write_video(clips[f"clip-{number}"], frames, 16.0)
    sheet = np.array(Image.open(write_contact(tmp_path / "contact.png", clips)))
    assert sheet.shape[1] <= 2600
    for number in range(5):
        shown = (np.abs(sheet.astype(int) - 50 * number).max(axis=2) < 8).sum()
        assert shown > min(3, 1 + number) * 8000
