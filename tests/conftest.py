"""Fixtures for all tests: a throw-away model, a photo to start from, the command line."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from throwaway import (
    Answer,
    Command,
    build_tiny_captioner,
    build_tiny_depth,
    build_tiny_model,
    build_tiny_st_diff,
    show_frames,
)


def pytest_configure(config: pytest.Config) -> None:
    """Commands take the share of the cores that one of pytest's processes has: two that take all
    of them wait for each other, and everything lasts several times as long."""
    beside = int(config.getoption("numprocesses", None) or 1)  # its processes inherit the answer
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // beside)))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tiny networks are slower on many threads."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder in the published layout; the same weights in every session."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    build_tiny_model(folder)
    return folder


@pytest.fixture(scope="session")
def visible_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a decoder whose frames are not black, for comparisons of frames."""
    folder = tmp_path_factory.mktemp("models") / "visible"
    shutil.copytree(tiny_model, folder)
    show_frames(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_st_diff(visible_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A WorldWarp model of the tiny parts: 64x96, chunks of 9 frames of which 5 are shared."""
    folder = tmp_path_factory.mktemp("models") / "st-diff"
    build_tiny_st_diff(folder, visible_model)
    return folder


@pytest.fixture(scope="session")
def tiny_captioner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of Qwen2.5-VL with random weights."""
    folder = tmp_path_factory.mktemp("captioner")
    build_tiny_captioner(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_depth(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of monocular depth networks by kind: depth-pro, relative, metric."""
    folder = tmp_path_factory.mktemp("depth")
    for kind in ("depth-pro", "relative", "metric"):
        build_tiny_depth(folder / kind, kind)
    return {kind: folder / kind for kind in ("depth-pro", "relative", "metric")}


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smooth picture of 96x192 pixels without EXIF data."""
    path = tmp_path_factory.mktemp("photos") / "photo.png"
    rows, columns = np.mgrid[0:96, 0:192] / 96.0
    waves = [np.sin(5 * rows + 3 * columns), np.cos(4 * columns), np.sin(9 * rows * columns)]
    pixels = np.stack(waves, axis=-1) * 100 + 128
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


@pytest.fixture
def flythrough(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run ``flythrough ARGUMENTS --json`` in this process."""
    from flythrough.cli.main import run

    def call(*arguments: object) -> Answer:
        capsys.readouterr()
        status = run([*map(str, arguments), "--json"])
        printed = capsys.readouterr()
        return Answer(status, printed.out, printed.err)

    return call
