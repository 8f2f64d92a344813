"""A streaming network from the command line: its folder as geometry, a video as camera."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from flythrough.cameras.formats import read_trajectory
from flythrough.cameras.trajectory import LengthUnit
from flythrough.engine import reference_camera
from flythrough.engine.files import is_monocular, is_streaming
from flythrough.errors import CameraError
from flythrough.media.video import write_video
from flythrough.models.ttt3r import TTT3R
from flythrough.models.ttt3r_config import TINY
from flythrough.models.ttt3r_files import save_ttt3r
from throwaway import Command


@pytest.fixture
def network(tmp_path: Path) -> Path:
    folder = tmp_path / "stream"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        save_ttt3r(TTT3R(TINY), folder)
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-sa-4.0\n---\n")
    return folder


@pytest.fixture
def video(tmp_path: Path) -> Path:
    shades = np.random.default_rng(2).integers(0, 255, (6, 32, 48, 3), np.uint8)
    write_video(tmp_path / "walk.mp4", shades, 8.0)
    return tmp_path / "walk.mp4"


def test_the_folder_is_a_geometry(
    flythrough: Command, network: Path, photo: Path, tiny_model: Path, tmp_path: Path
) -> None:
    assert is_streaming(str(network))
    assert not is_monocular(str(network))
    words = ["geometry", photo, "--model", tiny_model, "--geometry", network]
    answer = flythrough(*words, "-o", tmp_path / "depth.npz")
    assert answer.status == 0, answer.err
    assert answer.result["scale"] == "metric"
    assert "rules out commercial use" in answer.err
    (network / "model.safetensors").unlink()
    answer = flythrough(*words, "-o", tmp_path / "again.npz")
    assert answer.status == 2
    assert "not whole" in answer.err


def test_a_video_becomes_a_path(
    flythrough: Command, network: Path, video: Path, tiny_model: Path, tmp_path: Path
) -> None:
    target = tmp_path / "path.npz"
    words = ["camera", video, "--geometry", network, "--model", tiny_model, "-o", target]
    answer = flythrough(*words, "--speed", 0.5, "--frames", 20, "--extend", "ping-pong")
    assert answer.status == 0, answer.err
    path = read_trajectory(target)
    assert (len(path), path.unit, path.intrinsics) == (20, LengthUnit.MEDIAN_DEPTH, None)
    assert path.step() == pytest.approx(1 / 8)
    for more, word in (
        (["--geometry", "flat"], "how a camera moves"),
        (["--fps", 4], "no effect on the video"),
    ):
        kept = words if more[0] != "--geometry" else [*words[:2], *words[4:]]
        answer = flythrough(*kept, *more)
        assert answer.status == 2
        assert word in answer.err


def test_options_without_effect(flythrough: Command, tmp_path: Path) -> None:
    for more, word in (
        (["--extend", "loop"], "without --frames"),
        (["--geometry", "pi3x"], "no video"),
        (["--speed", 9], "out of range"),
    ):
        answer = flythrough("camera", "forward 0.5", "-o", tmp_path / "p.json", *more)
        assert answer.status == 2
        assert word in answer.err
    answer = flythrough("camera", "shots: dolly_in", "--frames", 12, "-o", tmp_path / "p.json")
    assert answer.status == 0, answer.err
    stored = json.loads((tmp_path / "p.json").read_text())
    assert len(stored["world_from_camera"]) == 12


def test_the_bundled_network_is_announced_and_has_a_limit(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class LoadedError(Exception):
        pass

    def loaded(*_: object) -> None:
        raise LoadedError

    monkeypatch.setattr(reference_camera, "build_estimator", loaded)
    notes: list[str] = []
    with pytest.raises(LoadedError):
        reference_camera.camera_of_video(video, "default", "nano", "cpu", notes.append)
    assert len(notes) == 1
    assert "next to no motion" in notes[0]
    shades = np.random.default_rng(2).integers(0, 255, (65, 32, 48, 3), np.uint8)
    write_video(tmp_path / "long.mp4", shades, 8.0)
    with pytest.raises(CameraError, match=r"takes 64 frames at a time but .* has 65"):
        reference_camera.camera_of_video(
            tmp_path / "long.mp4", "default", "nano", "cpu", notes.append
        )
    assert len(notes) == 1
