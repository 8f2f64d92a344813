"""The bundled model through the real command line: the picture moves as told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.color import rgb2gray
from skimage.feature import SIFT, match_descriptors

from flythrough.cli.main import run
from flythrough.media.video import read_video
from flythrough.worlds.clips import Clip, ClipSettings, clip

SIZE = (192, 320)
HELDOUT = {"room": 9_000_101, "street": 9_000_102}
"""Seeds by kind of world; training draws its worlds from other seeds."""

PAN, FORWARD = "pan right 20deg", "forward 0.5"


@pytest.fixture(autouse=True)
def _all_cores() -> Iterator[None]:
    """nano is large enough to use every core that is not taken."""
    before = torch.get_num_threads()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True, eq=False)
class Motion:
    """Where features of the photo should be in a frame, and where they were found: [n,2] pixels."""

    start: np.ndarray
    expected: np.ndarray
    found: np.ndarray

    @property
    def error(self) -> float:
        return float(np.median(np.linalg.norm(self.found - self.expected, axis=1)))

    @property
    def distance(self) -> float:
        return float(np.median(np.linalg.norm(self.expected - self.start, axis=1)))

    @property
    def agreement(self) -> float:
        """Median cosine between the motion found and the motion expected."""
        found, expected = self.found - self.start, self.expected - self.start
        lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
        return float(np.median((found * expected).sum(1) / lengths.clip(1e-6)))


def keypoints(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    detector = SIFT(upsampling=1)
    detector.detect_and_extract(rgb2gray(frame))
    return detector.keypoints[:, ::-1] + 0.5, detector.descriptors


def motion(world: Clip, frame: np.ndarray, index: int) -> Motion:
    """Match the photo's features with ``frame`` and project them by exact depth and camera."""
    start, descriptors = keypoints(photo_of(world))
    found, others = keypoints(frame)
    pairs = match_descriptors(descriptors, others, max_ratio=0.8, cross_check=True)
    start, found = start[pairs[:, 0]], found[pairs[:, 1]]
    column, row = np.floor(start).astype(int).T
    depth = world.depth[0].numpy()[row, column]
    rays = np.c_[start, np.ones(len(start))] @ np.linalg.inv(world.intrinsics[0].numpy()).T
    camera_from_world = np.linalg.inv(world.world_from_camera[index].numpy())
    points = (rays * depth[:, None]) @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
    projected = points @ world.intrinsics[index].numpy().T
    return Motion(start, projected[:, :2] / projected[:, 2:], found)


def photo_of(world: Clip) -> np.ndarray:
    return np.asarray((world.rgb[0].permute(1, 2, 0) * 255).round().to(torch.uint8))


def generated(folder: Path, kind: str, camera: str, *more: object, count: int = 33) -> np.ndarray:
    """Frames that the command line makes from a world's photo."""
    words = ["world", HELDOUT[kind], "--kind", kind, "--camera", camera, "--frames", count]
    assert run([*map(str, words), "-o", str(folder)]) == 0
    video = folder / "made.mp4"
    words = ["generate", folder / "photo.png", "--camera", camera, "--frames", count, "-o", video]
    assert run([*map(str, words), *(str(m).format(folder=folder) for m in more)]) == 0
    frames = read_video(video).frames
    assert frames.shape == (count, *SIZE, 3)
    return np.asarray(frames)


def exact(kind: str, camera: str, count: int = 33) -> Clip:
    return clip(HELDOUT[kind], camera, count, SIZE, settings=ClipSettings(kind=kind))


@pytest.mark.parametrize(("camera", "index", "kind"), [(PAN, 32, "street"), (FORWARD, 16, "room")])
def test_the_picture_moves_as_told(kind: str, camera: str, index: int, tmp_path: Path) -> None:
    frames = generated(tmp_path / "w", kind, camera, "--geometry", "{folder}/depth.npz")
    world = exact(kind, camera)
    moved = motion(world, frames[index], index)
    assert len(moved.found) >= 12
    assert moved.distance > 8
    assert moved.error < 0.25 * moved.distance
    still = motion(world, frames[0], index)  # the measure must fail a picture that stands still
    assert still.error > 0.8 * still.distance


@pytest.mark.parametrize(
    ("camera", "agreement", "kind"), [(PAN, 0.95, "room"), (FORWARD, 0.5, "street")]
)
def test_it_moves_as_told_with_its_own_geometry(
    kind: str, camera: str, agreement: float, tmp_path: Path
) -> None:
    """Amounts hang on the focal length and the depth that the network guesses; directions less."""
    frames = generated(tmp_path / "w", kind, camera)
    moved = motion(exact(kind, camera), frames[16], 16)
    assert len(moved.found) >= 12
    assert moved.agreement > agreement
    assert moved.error < 0.7 * moved.distance


def test_the_second_chunk_moves_on(tmp_path: Path) -> None:
    """Frame 49 hangs on the first chunk's last frame: its camera, its depth and its scale."""
    camera = "pan right 24deg"
    frames = generated(tmp_path / "w", "room", camera, "--geometry", "{folder}/depth.npz", count=66)
    moved = motion(exact("room", camera, 66), frames[49], 49)
    assert len(moved.found) >= 8
    assert moved.distance > 50
    assert moved.error < 0.25 * moved.distance
