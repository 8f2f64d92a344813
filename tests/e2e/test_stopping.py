"""Runs that are stopped, folders that two want, branches on disk, devices that are not there."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from flythrough.engine import build
from flythrough.media.video import read_video
from flythrough.rollout import store
from flythrough.rollout.lock import held
from throwaway import Answer, Command

PATH = "forward 0.2; pan left 10deg"
PROGRAM = "import torch; torch.set_num_threads(1); from flythrough.cli.main import main; main()"


@pytest.fixture
def run(flythrough: Command, tiny_model: Path, photo: Path, tmp_path: Path) -> Path:
    """A finished rollout of one chunk with its video beside it."""
    words = ["generate", photo, "--camera", PATH, "--model", tiny_model, "--frames", 33]
    folder = tmp_path / "run"
    answer = flythrough(*words, "--rollout", folder, "-o", tmp_path / "run.mp4", "--seed", 4)
    assert answer.status == 0, answer.err
    return folder


def sentence(answer: Answer) -> str:
    assert answer.status == 2, answer.err
    assert answer.err.startswith("error: ")
    assert answer.err.count("\n") == 1
    return answer.err


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_sigterm_ends_like_ctrl_c_and_the_hint_holds(
    flythrough: Command, run: Path, tmp_path: Path
) -> None:
    """While the process is at work, a second one is refused."""
    out = tmp_path / "longer.mp4"
    words = ["continue", run, "--camera", PATH, "--frames", 330, "--prompt", "dusk", "-o", out]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while len(list(run.glob("chunks/[0-9]*"))) < 2 and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.01)
    for second in (["continue", run, "--camera", "static"], ["rewind", run, "--chunks", 1]):
        assert "Another process is at work on the rollout" in sentence(flythrough(*second))
    branch = tmp_path / "branch"
    assert flythrough("branch", run, branch, "--chunks", 1).status == 0  # reading is free
    process.send_signal(signal.SIGTERM)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == 143
    assert printed.endswith(f"stopped; `flythrough continue {run}` goes on where it ended\n")
    assert "Traceback" not in printed
    assert not out.exists()
    assert not list(run.rglob("*.partial*"))
    made = len(store.load(run).chunks)
    assert 2 <= made < 11
    plan = json.loads((run / "plan.json").read_text())
    plan["plan"]["legs"][-1]["frames"] = 33 * made  # enough: one more chunk
    (run / "plan.json").write_text(json.dumps(plan))
    before = (tmp_path / "run.mp4").read_bytes()
    answer = flythrough("continue", run)
    assert answer.status == 0, answer.err
    assert answer.result["output"] == str(out)
    assert len(read_video(out).frames) == 33 * (made + 1)
    assert (tmp_path / "run.mp4").read_bytes() == before
    assert {chunk.request.prompt for chunk in store.load(run).chunks[1:]} == {"dusk"}


def test_a_leg_killed_while_the_model_loads_is_remembered(
    flythrough: Command, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "other.mp4"
    with monkeypatch.context() as patched:
        patched.setattr(build, "load_model", killed)
        stopped = flythrough("continue", run, "--prompt", "snow falls", "-o", out)
    assert stopped.status == 130
    assert f"`flythrough continue {run}` goes on" in stopped.err
    answer = flythrough("continue", run)
    assert answer.status == 0, answer.err
    assert answer.result["output"] == str(out)
    assert store.load(run).chunks[1].request.prompt == "snow falls"


def test_a_leg_that_is_refused_is_not_remembered(
    flythrough: Command, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise build.InputError("Too little memory; use another machine.")

    before = contents(run)
    with monkeypatch.context() as patched:
        patched.setattr(build, "load_model", refused)
        sentence(flythrough("continue", run, "--camera", "static"))
    assert contents(run) == before
    assert "is complete already" in sentence(flythrough("continue", run))


def test_branches_on_disk(flythrough: Command, run: Path, tmp_path: Path) -> None:
    before = contents(run)
    digests = {}
    for name, way in (("a", "pan left 9deg"), ("b", "pan right 9deg"), ("c", "pan left 9deg")):
        made = flythrough("branch", run, tmp_path / name)
        assert made.status == 0, made.err
        assert made.result["chunks"] == 1
        out = tmp_path / f"{name}.mp4"
        assert "names no output video" in sentence(
            flythrough("continue", tmp_path / name, "--camera", way)
        )
        answer = flythrough("continue", tmp_path / name, "--camera", way, "-o", out)
        assert answer.status == 0, answer.err
        digests[name] = answer.result["digest"]
    assert digests["a"] == digests["c"] != digests["b"]
    assert {path: data for path, data in contents(run).items() if path.name != ".lock"} == {
        path: data for path, data in before.items() if path.name != ".lock"
    }
    for words in (["a"], ["new", "--chunks", 2], ["run/inside"], ["none/new"], ["run.mp4"]):
        sentence(flythrough("branch", run, tmp_path / words[0], *words[1:]))
    assert not (tmp_path / "new").exists()


def test_damage_in_the_folder_is_one_sentence(
    flythrough: Command, run: Path, tmp_path: Path
) -> None:
    manifest, plan = run / "rollout.json", run / "plan.json"
    for file, old, new in (
        (manifest, '"visible_threshold": ', '"warp.fill_radius": "x", "visible_threshold": '),
        (manifest, '"visible_threshold": ', '"warp.unknown": 1, "visible_threshold": '),
        (plan, '"frames": 33', '"frames": "33"'),
        (plan, '"trajectory": {', '"trajectory": {"more": 1, '),
        (plan, "{", "["),
    ):
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, 1))
        words = sentence(flythrough("continue", run, "--camera", "static"))
        assert file.name in words
        assert "restore" in words
        file.write_text(text)
    assert flythrough("branch", run, tmp_path / "whole").status == 0


def test_metres_are_checked_when_a_run_goes_on(
    flythrough: Command, tiny_model: Path, photo: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "flat"
    words = ["generate", photo, "--camera", PATH, "--model", tiny_model, "--frames", 33]
    words += ["--geometry", "flat", "--rollout", folder, "-o", tmp_path / "flat.mp4"]
    assert flythrough(*words).status == 0
    expected = "in metres but --geometry flat has no metric scale"
    assert expected in sentence(flythrough("continue", folder, "--camera", "forward 1m"))
    with held(folder):  # the same thread may go on
        assert expected in sentence(flythrough("continue", folder, "--camera", "forward 1m"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_device_that_is_not_there_is_refused_before_anything_is_loaded(
    flythrough: Command,
    run: Path,
    tiny_model: Path,
    photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(build, "load_model", lambda *_: pytest.fail("loaded"))
    model = ["--model", tiny_model]
    for words in (
        ["generate", photo, "--camera", PATH, *model, "-o", tmp_path / "o.mp4"],
        ["generate", "--prompt", "a lake", *model, "-o", tmp_path / "o.mp4"],
        ["continue", run, "--camera", "static"],
        ["geometry", photo, *model, "-o", tmp_path / "depth.png"],
    ):
        for device in ("cuda", "cuda:3"):
            answer = flythrough(*words, "--device", device)
            assert "PyTorch sees no CUDA GPU; use cpu or auto" in sentence(answer)
