"""The measuring scripts of ``bench/`` at their least size on a CPU: no row fails."""

from __future__ import annotations

import json
import os
import runpy
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec, patch

import pytest

from flythrough.bench import suites, warp
from flythrough.bench.sizes import SIZES

BENCH = Path(__file__).parents[2] / "bench"
SMALL = ("--config", "tiny", "--device", "cpu", "--runs", 1)

SHARED = (
    (suites, "ceilings"),
    (suites, "vae"),
    (suites, "wan_rows"),
    (warp, "conditioning"),
    (warp, "latency"),
)
"""Rows that ``flythrough bench`` measures as well: its tests run them, here their arguments alone
are looked at."""

Script = Callable[..., None]
Rows = dict[str, dict[str, Any]]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """Run ``python bench/NAME ARGUMENTS`` in this process."""
    monkeypatch.syspath_prepend(BENCH)
    for module, name in SHARED:
        monkeypatch.setattr(module, name, create_autospec(getattr(module, name)))

    def run(name: str, *words: object) -> None:
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        runpy.run_path(str(BENCH / name), run_name="__main__")

    return run


def found(target: Path, *, whole: bool = True) -> Rows:
    """The rows of a result; none has failed, what is compared agrees, and nothing was left out for
    want of time if it is ``whole``."""
    rows: Rows = json.loads(target.read_text())["rows"]
    assert not whole or not [n for n, row in rows.items() if row.get("left_out") == "time is up"]
    assert not {name: row["failed"] for name, row in rows.items() if "failed" in row}
    compared = [name for name in rows if name.startswith(("correct", "equal"))]
    assert [name for name in compared if not rows[name].get("good", True)] == []
    return rows


def names(script: Script, name: str, folder: Path) -> list[str]:
    """The sections of a script: all are named when there is no time."""
    script(name, folder, *SMALL, "--seconds", 0)
    (target,) = folder.glob("*.json")
    return [row.removeprefix("section ") for row in found(target, whole=False)]


def codec_alone(monkeypatch: pytest.MonkeyPatch, *, wan: bool = False) -> None:
    """Pictures of 32x32, for sections that the codec has to itself."""
    monkeypatch.setitem(SIZES, "tiny", replace(SIZES["tiny"], height=32, width=32, wan=wan))


def test_denoiser(script: Script, tmp_path: Path) -> None:
    sections = names(script, "gpu_fast.py", tmp_path / "names")
    sections.remove("compiled")
    script("gpu_fast.py", tmp_path, *SMALL, "--chunks", 1, "--only", ",".join(sections))
    rows = found(tmp_path / "fast.json")
    assert {f"section {name}" for name in sections} <= set(rows)
    assert {"wah [2, 2, 2]", "wah realtime fp8", "new token counts, torch's choice"} <= set(rows)
    assert (tmp_path / "profile-full-fp8.txt").read_text()


def test_codec_beside_the_denoiser(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec_alone(monkeypatch, wan=True)
    script("gpu_fast.py", tmp_path, *SMALL, "--only", "codecs")
    rows = found(tmp_path / "fast.json")
    assert rows["codec decode, cudnn.benchmark"]["psnr_db"] > 60
    assert rows["codec decode, + last"]["psnr_db"] > 30


def test_codec(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = ("helios", "camera", "8 bits")
    sections = names(script, "gpu_codec.py", tmp_path / "names")
    whole = [name for name in sections if name.startswith(chunks)]
    alone = [name for name in sections if name not in whole]
    script("gpu_codec.py", tmp_path / "whole", *SMALL, "--chunks", 1, "--only", ",".join(whole))
    rows = found(tmp_path / "whole" / "codec.json")
    assert rows["helios [2, 2, 2] fp8, beside against before"]["frames_equal"]
    assert "wah realtime fp8, decoded beside" in rows
    codec_alone(monkeypatch)
    script("gpu_codec.py", tmp_path / "alone", *SMALL, "--only", ",".join(alone))
    rows = found(tmp_path / "alone" / "codec.json")
    assert {f"section {name}" for name in alone} <= set(rows)
    assert rows["best"]["settings"]


def test_conditioning(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIZES, "tiny", replace(SIZES["tiny"], width=64))
    script("gpu_warp.py", tmp_path, *SMALL, "--chunks", 1)
    rows = found(tmp_path / "warp.json")
    assert {"render, later chunk, without Triton", "adapter switched on and off"} <= set(rows)
    assert (tmp_path / "profile-geometry.txt").read_text()


def test_several_processes(script: Script, tmp_path: Path) -> None:
    with patch.dict(os.environ):
        script("gpu_parallel.py", tmp_path, *SMALL, "--worlds", "1,2", "--no-led")
    rows = found(tmp_path / "parallel.json")
    assert rows["correct, 2 GPUs, warp, quarter"]["same_bits"]
    assert rows["gains"]["calls fp8 2 chunk"] > 0


def test_worldwarp(script: Script, tmp_path: Path) -> None:
    parts = "floor,ttt3r,denoiser,codec,summary"
    script("gpu_worldwarp.py", tmp_path, *SMALL, "--parts", parts)
    rows = found(tmp_path / "worldwarp.json")
    assert {f"part {name}" for name in parts.split(",")} <= set(rows)


def test_geometry(script: Script, tmp_path: Path) -> None:
    target = tmp_path / "geometry.json"
    script("geometry.py", target, "--config", "tiny")
    made = json.loads(target.read_text())["estimates"]
    assert [row["views"] for row in made] == [1, 2, 4]
    assert all(row["finite"] for row in made)


def test_scene_memories(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    script("scene_memories.py", 1, "32x48", 2, "noisy")
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in printed[-2:]] == [["mean", "mesh"], ["mean", "gaussian"]]


def test_memory_of_a_run(
    script: Script, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script("peak_memory.py", tiny_model, "--run", "resident:camera:64x128:1", "--one")
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert row["finite"]
    assert row["foretold_phases_gib"]
    assert len(row["seconds_per_chunk"]) == 1


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_chunks_of_a_run(script: Script, tiny_model: Path, tmp_path: Path) -> None:
    target = tmp_path / "shared.json"
    runs = ("--run", "1:helios:plain", "--run", "1:camera:fast")
    script(
        "shared_run.py", tiny_model, "-o", target, *runs, "--chunks", 2, "--skip", 1, *SMALL[2:4]
    )
    made = json.loads(target.read_text())["runs"]
    assert [len(row["chunk_s"]) for row in made.values()] == [1, 1]
