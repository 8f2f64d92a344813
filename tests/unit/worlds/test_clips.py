"""Clips along typed paths, and the command that writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from flythrough.cli.output import json_output
from flythrough.cli.world import world
from flythrough.errors import FlythroughError, InputError
from flythrough.media.video import read_video
from flythrough.worlds.clips import ClipSettings, clip, photo_intrinsics

SIZE = (32, 48)


def test_forward_is_in_multiples_of_the_median_depth() -> None:
    made = clip(3, "forward 0.5", frames=9, size=SIZE)
    assert made.rgb.shape == (9, 3, *SIZE)
    assert made.depth.shape == (9, *SIZE)
    assert torch.equal(made.world_from_camera[0], torch.eye(4, dtype=torch.float64))
    moved = made.world_from_camera[-1, :3, 3]
    median = float(made.frames.median_depth()[0])
    assert float(moved[2]) == pytest.approx(0.5 * median, rel=0.15)
    assert float(moved[:2].abs().max()) < 1e-9
    assert torch.allclose(made.intrinsics[0], photo_intrinsics(SIZE, 60.0))
    assert made.caption


def test_metres_are_metres() -> None:
    made = clip(3, "forward 0.5m", frames=5, size=SIZE)
    assert float(made.world_from_camera[-1, 2, 3]) == pytest.approx(0.5)


def test_world_command_writes_a_ground_truth_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "clip"
    with json_output(True):
        world(
            7,
            camera="forward 0.3; pan left 10deg",
            frames=7,
            size="32x48",
            kind="terrain",
            output=folder,
        )
    told = json.loads(capsys.readouterr().out)
    assert told["kind"] == "terrain"
    assert told["frames"] == 7
    video = read_video(folder / "frames.mp4")
    assert video.frames.shape == (7, 32, 48, 3)
    photo = np.asarray(Image.open(folder / "photo.png"))
    assert np.abs(photo.astype(int) - video.frames[0]).mean() < 8
    depth = np.load(folder / "depth.npz")
    assert depth["depth"].dtype == np.float32
    assert depth["depth"].shape == (7, 32, 48)
    assert (depth["depth"][depth["sky"]] == 0).all()
    assert (depth["depth"][~depth["sky"]] > 0).all()
    cameras = np.load(folder / "cameras.npz")
    assert cameras["camera_poses"].shape == (7, 4, 4)
    assert np.allclose(cameras["camera_poses"][0], np.eye(4))
    assert cameras["size"].tolist() == [32, 48]
    assert float(cameras["fps"]) == 16
    assert (folder / "caption.txt").read_text().strip() == told["caption"]


@pytest.mark.parametrize(
    "wrong",
    [{"kind": "castle"}, {"camera": "fly 3"}, {"frames": 0}, {"size": "2x2"}, {"fov": 1.0}],
)
def test_bad_input_leaves_nothing_behind(tmp_path: Path, wrong: dict[str, Any]) -> None:
    words: dict[str, Any] = {"camera": "forward 0.3", "frames": 2, "size": "16x16", **wrong}
    with pytest.raises(FlythroughError) as error:
        world(1, output=tmp_path / "clip", **words)
    assert error.value.exit_status == 2
    assert not (tmp_path / "clip").exists()


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.write_text("x")
    with pytest.raises(InputError, match="folder"):
        world(1, camera="static", frames=2, output=taken)


def test_view_angle_out_of_range_is_refused() -> None:
    with pytest.raises(InputError, match="200"):
        ClipSettings(view_angle=200)
