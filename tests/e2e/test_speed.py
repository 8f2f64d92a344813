"""The fast path through the whole engine, its switches, and ``flythrough bench``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flythrough as ft
from flythrough.bench.rows import Rows, line
from flythrough.bench.sections import SectionRun, start
from flythrough.cli.compute import chosen_compute
from flythrough.errors import InputError
from throwaway import Command


def test_fast_runs_equal_plain_ones(visible_model: Path, photo: Path) -> None:
    """Two chunks led by a camera (adapter in one stage) and one from text."""
    plain, fast = (ft.load(visible_model, device="cpu", compute=way) for way in ("plain", "fast"))
    cases: list[dict[str, Any]] = [
        {"image": photo, "camera": "forward 0.5; pan left 30deg", "frames": 40},
        {"prompt": "a lake", "frames": 33},
    ]
    for case in cases:
        one, two = (pipe(seed=5, **case) for pipe in (plain, fast))
        for before, after in zip(one.rollout.chunks, two.rollout.chunks, strict=True):
            np.testing.assert_allclose(after.latents, before.latents, atol=2e-5)
        assert np.abs(one.frames.astype(int) - two.frames).max() <= 1


def test_eight_bits_are_near_and_said(
    flythrough: Command, visible_model: Path, photo: Path, tmp_path: Path
) -> None:
    words = [photo, "--camera", "forward 0.5", "--frames", 33, "--model", visible_model]
    words = ["generate", *words, "--device", "cpu"]
    precise = ("fp8", "fp8-all")
    for name, more in (("exact", ()), *((word, ("--precision", word)) for word in precise)):
        answer = flythrough(*words, *more, "--rollout", tmp_path / name, "-o", tmp_path / "o.mp4")
        assert answer.status == 0
        assert ("imitated" in answer.err) == (name != "exact")
    from flythrough.rollout import store

    exact, near, nearby = (store.load(tmp_path / n).latents() for n in ("exact", *precise))
    assert not np.array_equal(near, nearby)
    for found in (near, nearby):
        error = np.sqrt(np.square(exact - found).mean() / np.square(exact).mean())
        assert 1e-5 < error < 0.05


def test_switches_become_one_word() -> None:
    assert chosen_compute(None, False, "full") == "auto"
    assert chosen_compute(True, False, "full") == "fast"
    assert chosen_compute(False, False, "full") == "plain"
    assert chosen_compute(None, True, "full") == "compiled"
    assert chosen_compute(None, False, "fp8") == "fp8"
    assert chosen_compute(None, False, "fp8-all") == "fp8-all"
    for compiled, precision in ((True, "full"), (False, "fp8"), (False, "fp8-all")):
        with pytest.raises(InputError, match="no effect with --no-fast"):
            chosen_compute(False, compiled, precision)
    with pytest.raises(InputError, match="no effect with --precision fp8"):
        chosen_compute(None, True, "fp8")


def test_half_precision_of_the_codec_is_for_gpus(
    flythrough: Command, visible_model: Path, photo: Path, tmp_path: Path
) -> None:
    for verb in (["generate", photo, "--model", visible_model], ["continue", tmp_path]):
        words = [*verb, "--device", "cpu", "--codec-precision", "fp16", "-o", tmp_path / "o.mp4"]
        answer = flythrough(*words)
        assert answer.status == 2
        said = (
            "--codec-precision fp16 is for CUDA GPUs: on the device cpu the codec runs in float32"
        )
        assert said in " ".join(answer.err.split())


def test_what_the_codec_computes_in() -> None:
    """By device, path and what is asked for."""
    import torch

    from flythrough.engine.acceleration import codec_dtype

    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert codec_dtype("auto", "auto", gpu) == torch.float16
    assert codec_dtype("auto", "fp8", gpu) == torch.float16
    assert codec_dtype("auto", "plain", gpu) == torch.float32
    assert codec_dtype("bf16", "plain", gpu) == torch.bfloat16
    assert codec_dtype("fp32", "auto", gpu) == torch.float32
    assert codec_dtype("auto", "fast", cpu) == torch.float32
    with pytest.raises(InputError, match="drop it"):
        codec_dtype("fp16", "auto", cpu)


@pytest.mark.parametrize("suite", ["helios", "wah", "warp", "vae"])
def test_bench_measures_small_networks(flythrough: Command, tmp_path: Path, suite: str) -> None:
    target = tmp_path / "out.json"
    words = ["--config", "tiny", "--device", "cpu", "--runs", 1, "--chunks", 1, "-o", target]
    answer = flythrough("bench", suite, *words)
    assert answer.status == 0
    found = json.loads(target.read_text())
    assert next(iter(found["rows"])).startswith("ceiling product")
    assert found["machine"]["torch"]
    assert found["config"]["size"] == "tiny"
    wanted = {
        "helios": ["forward diffusers", "forward fast", "helios [2, 2, 2]", "helios [1, 1, 1] fp8"],
        "wah": ["forward warp, adapter merged", "wah [2, 2, 2]", "wah realtime fp8"],
        "warp": [
            "render, later chunk",
            "conditioning of a later chunk",
            "camera command to new frames, realtime",
        ],
        "vae": [
            "codec decode",
            "fast codec encode",
            "wan plain fp32 decode",
            "wan fast bf16 encode",
        ],
    }
    assert set(wanted[suite]) <= set(found["rows"])
    if suite == "vae":
        assert found["rows"]["wan fast bf16 decode"]["psnr_db"] > 35
    if suite == "helios":
        assert "helios [2, 2, 2], decoded beside" in found["rows"]
        quality = found["rows"]["fp8 against full precision, random weights"]
        assert 25 < quality["latent_psnr_db"] < 80


def test_bench_of_worldwarp(flythrough: Command, tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    words = ["--config", "tiny", "--device", "cpu", "--runs", 1, "-o", target]
    answer = flythrough("bench", "worldwarp", *words)
    assert answer.status == 0, answer.err
    found = json.loads(target.read_text())
    rows = found["rows"]
    assert found["config"]["steps"] == 3
    assert rows["correct st_diff"]["good"]
    assert rows["correct gaussians"]["good"]
    assert rows["call fast"]["ms"] > 0
    assert rows["steps fast"]["calls"] == 6
    beside = rows["beside the published"]
    assert beside["denoise"]["published_s"] == 42.5
    assert beside["gaussian_fit"]["ours_s"] == rows["gaussians 20 steps"]["fit_s"]
    assert beside["ttt3r"]["ours_s"] > 0


def test_bench_of_the_model_itself(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from flythrough.bench.nano import nano

    monkeypatch.chdir(tmp_path)
    rows = Rows({}, None)
    nano(rows, torch.device("cpu"), 33, str(tiny_model))
    figures = rows.found["nano, camera, with file"]
    assert len(figures["chunks_s"]) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nano", "--config", "tiny"], "has no effect"),
        (["helios", "--runs", "0"], "--runs 0 is out of range"),
        (["helios", "-o", "out.txt"], "must end in .json"),
        (["vae", "-o", "nowhere/out.json"], "does not exist"),
        (["worldwarp", "--chunks", "2"], "--chunks 2 has no effect"),
    ],
)
def test_bench_refuses(flythrough: Command, words: list[str], said: str) -> None:
    answer = flythrough("bench", *words)
    assert answer.status == 2
    assert said in answer.err


def test_a_failing_row_is_kept_and_the_next_measured(tmp_path: Path) -> None:
    target = tmp_path / "rows.json"
    rows = Rows({"suite": "x"}, target, forgive=True)
    assert rows.measure("bad", lambda: {"a": 1 // 0}) is None
    assert rows.measure("good", lambda: {"a": 1}) == {"a": 1}
    found = json.loads(target.read_text())["rows"]
    assert "ZeroDivisionError" in found["bad"]["failed"]
    assert "FAILED ZeroDivisionError" in line("bad", found["bad"])
    with pytest.raises(ZeroDivisionError):
        Rows({}).measure("bad", lambda: {"a": 1 // 0})


def test_a_script_runs_the_sections_that_were_asked_for(tmp_path: Path) -> None:
    arguments = [str(tmp_path), "--config", "tiny", "--device", "cpu", "--only", "one, three"]
    run = start(SectionRun, "a measurement", "rows.json", arguments)
    done: list[str] = []
    for name in ("one", "two", "three"):
        run.section(name, lambda name=name: done.append(name))  # type: ignore[misc]
    run.until = 0.0
    run.section("three", lambda: done.append("late"))
    assert done == ["one", "three"]
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert rows["section three"] == {"left_out": "time is up"}
    assert "section two" not in rows
    with pytest.raises(InputError, match="There is no section 'three '") as refused:
        SectionRun(run.bench, tmp_path, 0.0, ("three ",)).end()
    assert "choose among" in str(refused.value)
    run.end()
