"""Help, doctor, geometry, and what importing costs."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flythrough.cli.main import COMMANDS, run
from throwaway import Command

HEAVY = {"torch", "numpy", "diffusers", "transformers", "peft", "av", "PIL"}


def modules_after(code: str) -> set[str]:
    report = "import sys; print('\\n' + ' '.join({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


def test_help_loads_nothing_heavy() -> None:
    code = "from flythrough.cli.main import run; assert run(['--help']) == 0"
    assert not modules_after(code) & HEAVY


def test_help_of_a_command_loads_nothing_heavy() -> None:
    commands = ["generate", "continue", "rewind", "geometry", "doctor", "camera", "batch"]
    commands.append("evaluate")
    code = (
        "from flythrough.cli.main import run\n"
        f"for command in {commands}: assert run([command, '--help']) == 0"
    )
    assert not modules_after(code) & HEAVY


def test_python_names_load_no_torch() -> None:
    code = "import flythrough as ft; ft.path('forward 1'); ft.Pipeline; ft.Clip; ft.Rollout"
    assert "torch" not in modules_after(code)
    assert not modules_after("import flythrough") & HEAVY


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    assert "Usage: flythrough" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.strip() == "0.1.0"


def test_unknown_command_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fly"]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_doctor(flythrough: Command, tiny_model: Path) -> None:
    answer = flythrough("doctor", "--model", tiny_model)
    assert answer.status == 0
    assert answer.result["ready"] is True
    assert "transformer" in answer.result["model"]
    assert {"--memory resident", "--memory drop-text", "time"} <= answer.result["numbers"].keys()
    resident = answer.result["numbers"]["--memory resident"]
    assert resident["fits"] is True
    assert resident["device_bytes"] == max(resident["phases"].values())


def test_doctor_foretells_larger_runs(flythrough: Command, tiny_model: Path) -> None:
    def peak(*options: object) -> int:
        answer = flythrough("doctor", "--model", tiny_model, *options)
        assert answer.status == 0, answer.err
        return answer.result["numbers"]["--memory resident"]["device_bytes"]

    usual = peak("--method", "helios")
    assert peak("--size", "128x256", "--method", "helios") > usual
    assert peak("--precision", "fp8", "--method", "helios") < usual
    answer = flythrough("doctor", "--model", tiny_model, "--precision", "fp8", "--device", "cpu")
    assert "imitated on cpu" in answer.result["precision"]


@pytest.mark.parametrize(
    "options",
    [["--memory", "offload", "--device", "cpu"], ["--size", "65x128"], ["--frames", "0"]],
)
def test_doctor_refuses(flythrough: Command, tiny_model: Path, options: list[str]) -> None:
    answer = flythrough("doctor", "--model", tiny_model, *options)
    assert answer.status == 2
    assert answer.err.startswith("error: ")
    assert answer.err.count("\n") == 1


def test_results_without_json_are_plain_text(
    tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["doctor", "--model", str(tiny_model)]) == 0
    printed = capsys.readouterr()
    assert printed.out.endswith("ready\n")
    assert printed.err == ""


def test_geometry_files(flythrough: Command, tiny_model: Path, photo: Path, tmp_path: Path) -> None:
    for suffix in ("npz", "ply", "glb", "png"):
        out = tmp_path / f"depth.{suffix}"
        answer = flythrough("geometry", photo, "-o", out, "--model", tiny_model)
        assert answer.status == 0, answer.err
        assert answer.result["median_depth"] > 0
    with np.load(tmp_path / "depth.npz") as arrays:
        assert arrays["depth"].shape == arrays["valid"].shape == (64, 128)
        assert arrays["intrinsics"].shape == (3, 3)
        valid = int(arrays["valid"].sum())
    width, height = Image.open(tmp_path / "depth.png").size
    assert width > 6 * 128  # small maps are enlarged, and a legend stands beside and below
    assert height > 6 * 64
    header, body = (tmp_path / "depth.ply").read_bytes().split(b"end_header\n", 1)
    assert f"element vertex {valid}\n".encode() in header
    assert len(body) == 15 * valid
    glb = (tmp_path / "depth.glb").read_bytes()
    magic, version, total, length, _ = struct.unpack("<IIIII", glb[:20])
    assert (magic, version, total) == (0x46546C67, 2, len(glb))
    scene = json.loads(glb[20 : 20 + length])
    assert [a["count"] for a in scene["accessors"]] == [valid, valid]
    assert len(list(tmp_path.iterdir())) == 4


def test_depth_from_one_command_serves_the_next(
    flythrough: Command, tiny_model: Path, photo: Path, tmp_path: Path
) -> None:
    depth = tmp_path / "depth.npz"
    flythrough("geometry", photo, "-o", depth, "--model", tiny_model)
    words = ["generate", photo, "--camera", "forward 0.2", "--model", tiny_model, "--frames", 8]
    answer = flythrough(*words, "--geometry", depth, "-o", tmp_path / "out.mp4")
    assert answer.status == 0, answer.err
