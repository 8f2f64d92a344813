"""An ``st_diff`` put into the bundled model is found by every command, without another change.

On a throw-away folder in the place of the bundled one, and on the bundled one.
"""

from __future__ import annotations

import shutil
from importlib.resources import files
from pathlib import Path

import pytest

from flythrough.models import catalog, hub
from throwaway import Command

BUNDLED = Path(str(files("flythrough"))) / "assets" / "nano"


@pytest.fixture(params=["throw-away", "real"])
def nano(
    request: pytest.FixtureRequest,
    visible_model: Path,
    tiny_st_diff: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """Where ``--model nano`` points to."""
    if request.param == "real":
        return BUNDLED
    folder = tmp_path / "nano"
    shutil.copytree(visible_model, folder)
    shutil.copytree(tiny_st_diff / "transformer", folder / "st_diff")
    for module in (catalog, hub):
        monkeypatch.setattr(module, "bundled_folder", lambda: folder)
    return folder


def test_every_command_finds_it(
    flythrough: Command, nano: Path, photo: Path, tmp_path: Path
) -> None:
    answer = flythrough("models", "list")
    (entry,) = (row for row in answer.result["models"] if row["name"] == "nano")
    assert "st_diff" in entry["parts"]
    assert entry["path"] == str(nano)
    answer = flythrough("models", "check", "nano")
    assert answer.status == 0, answer.out
    assert "st_diff" in [part["part"] for part in answer.result["parts"]]
    answer = flythrough("doctor", "--method", "worldwarp", "--device", "cpu")
    assert answer.status == 0, answer.err
    assert "worldwarp" in answer.result["run"]

    run = tmp_path / "run"
    words: list[object] = ["generate", photo, "--camera", "forward 0.2", "--method", "worldwarp"]
    words += ["--geometry", "flat", "--size", "64x96", "--chunk-frames", 9, "--steps", 1]
    answer = flythrough(*words, "--frames", 13, "--rollout", run, "-o", tmp_path / "out.mp4")
    assert answer.status == 0, answer.err
    assert (answer.result["frames"], answer.result["chunks"]) == (13, 2)
    assert flythrough("rewind", run, "--chunks", 1).status == 0
    again = flythrough("continue", run, "-o", tmp_path / "again.mp4")
    assert again.result["digest"] == answer.result["digest"]


def test_the_shipped_files_are_packaged_and_small() -> None:
    """Everything below the package's folder goes into the wheel; each shard may be pushed."""
    parts = {path.name for path in BUNDLED.iterdir() if path.is_dir()}
    assert {"transformer", "vae", "geometry", "lora"} <= parts
    for file in BUNDLED.rglob("*.safetensors"):
        assert file.stat().st_size < 20_000_000, file
