"""``flythrough doctor`` on models that are not here yet, and on several devices."""

from __future__ import annotations

import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from flythrough.cli.main import run
from flythrough.engine import acceleration, build, doctor, doctor_plan, placement
from flythrough.engine.intent import Row
from throwaway import Command

GIB = 2**30
Disk = Callable[[int], None]
Memory = Callable[[dict[str, int]], None]
PAIR = {"cuda": 100, "cuda:0": 100, "cuda:1": 100}


@pytest.fixture(autouse=True)
def _empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Say how many bytes are free on every disk."""
    usage = namedtuple("usage", "total used free")

    def say(free: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _place: usage(2 * free, free, free))

    return say


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    """Say which devices there are and how many GiB of each are free; the host has 200."""

    def say(free: dict[str, int]) -> None:
        gpus = sum(":" in name for name in free)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        properties = SimpleNamespace(total_memory=140 * GIB)  # decides the passes of the codec
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
        monkeypatch.setattr(acceleration, "check_eight_bits", lambda *_: None)
        monkeypatch.setattr(build, "pick_device", lambda _: torch.device("cuda" if gpus else "cpu"))
        monkeypatch.setattr(doctor, "_devices", lambda: Row("devices", "made up"))
        monkeypatch.setattr(doctor_plan, "matrix_rate", lambda _: 1e15)
        monkeypatch.setattr(doctor_plan, "bus_rate", lambda _: 5e10)
        monkeypatch.setattr(placement, "free_bytes", lambda at: free.get(str(at), 200) * GIB)
        monkeypatch.setattr(placement, "available_host_bytes", lambda: 200 * GIB)

    return say


def test_a_model_that_is_not_here(flythrough: Command, memory: Memory, disk: Disk) -> None:
    """Nothing is fetched, loaded or left behind; the exit status says whether it will fit."""
    memory(PAIR)
    disk(100_000_000_000)
    answer = flythrough("doctor", "--model", "helios-distilled", "--method", "helios")
    assert (answer.status, answer.err) == (0, "")
    found, numbers = answer.result, answer.result["numbers"]
    assert (found["ready"], found["to_fetch"]) == (True, ["helios-distilled"])
    assert "helios-distilled is not on this machine" in found["model"]
    assert "`flythrough models pull helios-distilled` fetches 80.5 GB into" in found["model"]
    assert found["model"].endswith("where 100.0 GB are free")
    assert numbers["model"]["fetch_bytes"] == 80_481_086_028
    assert numbers["model"]["fetch_to"].startswith(str(constants.HF_HUB_CACHE))
    assert found["run"] == "66 frames of 384x640, helios, on cuda"
    phases = numbers["--memory resident"]["phases"]
    # as foretold for a folder on an H200: bench/results/peak-memory-h200.json, and docs/speed.md of
    # the codec's fast path
    assert phases["read the prompt"] / GIB == pytest.approx(38.04, abs=0.3)
    assert (phases["decode"] - phases["render the warp"]) / GIB == pytest.approx(7.3, abs=0.1)
    assert (phases["encode"] - phases["render the warp"]) / GIB == pytest.approx(7.4, abs=0.1)
    assert numbers["--memory drop-text"]["host_bytes"] == pytest.approx(14.6 * GIB, rel=0.01)
    assert "camera" not in found


def test_a_depth_network_is_counted_before_it_is_here(
    flythrough: Command, tiny_model: Path, memory: Memory
) -> None:
    memory(PAIR)

    def whole(geometry: str) -> int:
        answer = flythrough("doctor", "--model", tiny_model, "--geometry", geometry)
        assert (answer.status, answer.err) == (0, "")
        assert answer.result["to_fetch"] == ([] if geometry == "flat" else [geometry])
        assert ("geometry" in answer.result) is (geometry != "flat")
        if geometry == "depth-pro":
            assert answer.result["numbers"]["geometry"]["fetch_bytes"] == 4 * 951_994_402
        return int(answer.result["numbers"]["--memory resident"]["device_bytes"])

    assert whole("depth-pro") - whole("flat") > 3.5 * GIB


def test_all_that_a_camera_needs(
    memory: Memory, disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    memory(PAIR)
    disk(100_000_000_000)
    words = ["doctor", "--model", "helios-distilled", "--size", "128x192"]
    assert run([*words, "--geometry", "depth-anything"]) == 0
    out = capsys.readouterr().out
    pulls = "flythrough models pull helios-distilled; flythrough models pull depth-anything"
    assert out.endswith(f"ready once they are here: {pulls}\n")
    assert "no camera adapter" in out
    assert "no geometry network" not in out
    disk(81_000_000_000)  # enough for the model alone
    assert run([*words, "--geometry", "depth-pro"]) == 1
    out = capsys.readouterr().out
    assert "fetches 3.8 GB at most, for which 0.5 GB are left; make room" in out


def test_adapters_are_counted(flythrough: Command, visible_model: Path, memory: Memory) -> None:
    memory(PAIR)
    adapter = next((visible_model / "lora").glob("*.safetensors"))
    sizes = []
    for lora in ("off", "default", adapter):
        answer = flythrough("doctor", "--model", visible_model, "--lora", lora)
        sizes.append(answer.result["numbers"]["--memory resident"]["device_bytes"])
    assert sizes[0] < sizes[1] == sizes[2]


def test_a_disk_without_room(
    memory: Memory, disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    memory(PAIR)
    disk(50_000_000_000)
    words = ["doctor", "--model", "helios-base", "--precision", "fp8", "--size", "128x128"]
    assert run(words) == 1
    printed = capsys.readouterr()
    assert "only 50.0 GB are free; make room or choose another disk with --to" in printed.out
    assert "FAIL model: helios-base" in printed.out
    assert "ships no geometry network" in printed.out
    assert printed.err.endswith("not ready (model); see the lines marked FAIL.\n")
    disk(90_000_000_000)
    assert run(words) == 0
    verdict = "ready once it is here: flythrough models pull helios-base\n"
    assert capsys.readouterr().out.endswith(verdict)


def test_each_gpu_has_a_row(flythrough: Command, tiny_model: Path, memory: Memory) -> None:
    memory(PAIR)

    def devices(*options: object) -> dict[str, int]:
        answer = flythrough("doctor", "--model", tiny_model, *options)
        assert (answer.status, answer.err) == (0, "")
        assert "--memory offload" not in answer.result
        numbers = answer.result["numbers"]
        assert numbers["cuda:0"]["device_bytes"] == numbers["--memory resident"]["device_bytes"]
        return {name: at["device_bytes"] for name, at in numbers.items() if name in PAIR}

    pair = devices("--gpus", 2)
    assert pair.keys() == {"cuda:0", "cuda:1"}
    assert devices("--gpus", 2, "--graphs") == pair  # as there is room
    launched = devices("--gpus", 2, "--no-graphs")
    assert launched["cuda:1"] < pair["cuda:1"]
    assert "graphs" not in flythrough("doctor", "--gpus", 2, "--no-graphs").result
    shared = devices("--gpus", 2, "--codec-device", "cuda:1")
    assert shared["cuda:1"] > pair["cuda:1"]
    assert shared["cuda:0"] < pair["cuda:0"]
    apart = devices("--geometry-device", "cuda:1", "--codec-device", "cuda:1")
    assert apart["cuda:0"] < shared["cuda:0"]
    answer = flythrough("doctor", "--model", tiny_model, "--gpus", 2)
    assert answer.result["cuda:1"].endswith("GiB for denoiser, 100.0 GiB free")
    assert "calls of the denoiser are recorded" in answer.result["graphs"]
    assert answer.result["time"].endswith("1.6 times as fast as on one GPU in full precision")
    numbers = answer.result["numbers"]
    seconds = [numbers["time"]["seconds"]]
    for options in (("--precision", "fp8"), ("--gpus", 2, "--no-graphs"), ("--device", "cuda")):
        answer = flythrough("doctor", "--model", tiny_model, *options)
        seconds.append(answer.result["numbers"]["time"]["seconds"])
    assert seconds[0] < seconds[1] < seconds[2] < seconds[3]


def test_a_gpu_that_is_too_small(flythrough: Command, tiny_model: Path, memory: Memory) -> None:
    words = ("doctor", "--model", tiny_model, "--gpus", 2)
    memory({**PAIR, "cuda:1": 0})
    answer = flythrough(*words)
    assert answer.status == 1
    assert answer.result["cuda:1"].endswith("0.0 GiB free: does not fit")
    assert "not ready (cuda:1)" in answer.err
    memory({**PAIR, "cuda": 0})
    answer = flythrough(*words)
    assert answer.status == 1
    assert "not ready (memory)" in answer.err
    assert answer.result["numbers"]["cuda:1"]["fits"] is True


def test_processes_on_the_cpu(flythrough: Command, tiny_model: Path) -> None:
    answer = flythrough("doctor", "--model", tiny_model, "--gpus", 3, "--device", "cpu")
    assert (answer.status, answer.err) == (0, "")
    assert "GiB for the run itself" in answer.result["cpu"]
    assert "GiB for denoiser" in answer.result["2 further on cpu"]
    one = flythrough("doctor", "--model", tiny_model, "--device", "cpu").result
    assert "cpu" not in one


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--gpus", "0"], "--gpus 0 is out of range"),
        (["--gpus", "2"], "there are 0; drop it or plan for GPUs that are not here with --card."),
        (["--gpus", "2", "--memory", "offload"], "weights on every GPU"),
        (["--graphs"], "--graphs has no effect on one GPU"),
        (["--no-graphs"], "--no-graphs has no effect on one GPU"),
        (["--graphs", "--gpus", "2", "--device", "cpu"], "--graphs has no effect on a CPU"),
        (["--codec-device", "cpu", "--device", "cpu"], "no effect"),
        (["--geometry-device", "cuda:7"], "not available here"),
        (["--geometry-device", "cpu", "--method", "helios"], "no scene is rendered"),
        (["--geometry", "flat", "--method", "helios"], "--geometry flat has no effect"),
        (["--geometry", "nothing-here"], "nothing-here"),
        (["--lora", "off", "--method", "helios"], "--lora off has no effect with method helios"),
        (["--lora", ""], "--lora is empty"),
        (["--lora", "nowhere.safetensors"], "There is no adapter file nowhere.safetensors"),
    ],
)
def test_refused_as_generate_refuses(
    flythrough: Command, tiny_model: Path, options: list[str], said: str
) -> None:
    if torch.cuda.is_available():
        pytest.skip("for machines without a GPU")
    answer = flythrough("doctor", "--model", tiny_model, *options)
    assert answer.status == 2
    assert said in answer.err
    assert answer.err.count("\n") == 1


def test_an_unfetched_model_has_no_st_diff(flythrough: Command) -> None:
    answer = flythrough("doctor", "--model", "helios-mid", "--method", "worldwarp")
    assert answer.status == 2
    assert "helios-mid" in answer.err


def test_a_card_that_is_not_here(flythrough: Command, capsys: pytest.CaptureFixture[str]) -> None:
    """The figures are those of a GPU whatever this machine has, and of no other machine's host."""

    def found(*words: object) -> dict[str, Any]:
        answer = flythrough("doctor", "--model", "helios-distilled", *words)
        assert (answer.status, answer.err) == (0, ""), answer.err
        assert not any(name in answer.result for name in ("torch", "devices", "disk", "time"))
        return dict(answer.result["numbers"])

    small = found("--card", 24, "--precision", "fp8")
    assert 18 * GIB < small["--memory drop-text"]["device_bytes"] < 19 * GIB
    assert small["--memory drop-text"]["fits"] is True
    assert small["--memory resident"]["fits"] is False
    assert run(["doctor", "--model", "helios-distilled", "--card", "24"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("no   --memory resident") for line in lines)
    assert lines[-1] == "it fits"
    large, larger = found("--card", 48), found("--card", 141)
    decode = [plan["--memory resident"]["phases"]["decode"] for plan in (large, larger)]
    assert decode[1] > decode[0] + GIB  # the codec takes more at once
    shared = found("--card", 48, "--gpus", 4, "--method", "helios")
    assert shared["graphs"]["records"] is False
    assert run(["doctor", "--model", "helios-distilled", "--card", "48", "--gpus", "4"]) == 0
    assert "too little memory is free to record" in capsys.readouterr().out
    shared = found("--card", 48, "--gpus", 4, "--graphs", "--method", "helios")
    assert shared["graphs"]["records"] is True
    assert shared["each of 3 others"]["device_bytes"] > 28 * GIB
    assert "--memory offload" not in shared


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (
            ["--card", "24", "--memory", "drop-text"],
            1,
            "does not fit GPUs of 24 GB as it was asked for (memory)",
        ),
        (["--card", "0.5"], 2, "--card 0.5 is out of range"),
        (["--card", "24", "--device", "cpu"], 2, "so --device cpu cannot be named beside it"),
        (["--card", "24", "--codec-device", "cuda:1"], 2, "so --codec-device cuda:1 cannot be"),
        (
            ["--card", "24", "--lora", "warp-as-history-lora"],
            2,
            "history-lora --to adapters",
        ),
        (["--card", "24", "--gpus", "0"], 2, "--gpus 0 is out of range"),
    ],
)
def test_a_card_that_does_not_do(
    flythrough: Command, words: list[str], status: int, said: str
) -> None:
    answer = flythrough("doctor", "--model", "helios-distilled", *words)
    assert answer.status == status
    assert said in answer.err
