"""``flythrough evaluate worlds`` and ``inputs``: finished videos, the throw-away model, controls
that must fail, and the commands of docs/evaluation.md."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from flythrough.media.video import write_video
from throwaway import Command

pytest.importorskip("cv2")

ROOT = Path(__file__).parents[2]
SMALL = ["--tracks", "chunk", "--clips", 1, "--size", "64x96"]
CLIP = "room-9000301"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of a tool that follows the path exactly, and a folder of results."""
    from flythrough.evaluation.suite import CASES, Worlds

    folder = tmp_path_factory.mktemp("suite")
    (folder / "videos").mkdir()
    frames = Worlds().truth(CASES[0], (96, 160)).frames
    write_video(folder / "videos" / f"{CLIP}.mp4", frames, 16, crf=4)
    return folder


@pytest.fixture
def _few_controls(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of each kind; all of them take half a minute."""
    from flythrough.evaluation import benchmark
    from flythrough.evaluation.rows import controls

    few = controls("still", "half", "flickering")
    monkeypatch.setattr(benchmark, "_CHUNK_CONTROLS", few)


def judged(folder: Path, *more: object) -> list[object]:
    words = ["evaluate", "worlds", "-o", folder / "out", *SMALL[:-1], "96x160"]
    return [*words, "--videos", folder / "videos", "--label", "mine", *more]


@pytest.mark.usefixtures("_few_controls")
def test_videos_of_other_tools_are_judged_beside_controls(made: Path, flythrough: Command) -> None:
    answer = flythrough(*judged(made))
    assert answer.status == 0, answer.err
    data = json.loads((made / "out" / "results.json").read_text())
    lines = {line["row"]: line for line in data["means"]}
    assert lines["given"]["title"] == "mine"
    assert lines["given"]["failure_rate"] < 0.3
    assert lines["given"]["measured_rotation"] < 0.5
    assert lines["given"]["psnr_visible"] > 30
    assert lines["half"]["length_ratio"] == pytest.approx(0.5, abs=0.15)
    checks = {(check["row"], check["check"]): check["as_it_must"] for check in data["checks"]}
    for name in ("still", "half"):
        assert checks[name, "camera"], name
    assert checks["truth", "camera"]
    assert checks["flickering", "flicker"]
    page = (made / "out" / "index.html").read_text()
    assert "data:image/jpeg;base64," in page
    assert page.count("<svg") == 4
    assert "Do the measures see" in page
    assert 'src="http' not in page


@pytest.mark.usefixtures("_few_controls")
def test_a_second_run_keeps_all_and_new_videos_are_measured_again(
    made: Path, flythrough: Command
) -> None:
    answer = flythrough(*judged(made))
    assert answer.result["made"] == 0
    grey = np.full((33, 96, 160, 3), 90, np.uint8)
    write_video(made / "videos" / f"{CLIP}.mp4", grey, 16)
    answer = flythrough(*judged(made))
    assert answer.result["made"] == 1
    given = next(line for line in answer.result["means"] if line["row"] == "given")
    assert given["failure_rate"] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--clips", 0], "--clips 0 is out of range"),
        (["--clips", 9], "the suite worlds has 8 clips"),
        (["--tracks", "middle"], "The track 'middle' is unknown"),
        (["--chunks", 1, "--tracks", "long"], "without a border"),
        (["--label", "mine"], "give --videos FOLDER too"),
        (["--videos", "nowhere"], "--videos nowhere is no folder"),
        (["--videos", ".", "--model", "nano2"], "have no effect"),
        (["--videos", "."], f"has no {CLIP}.mp4"),
        (["--model", "nobody"], "nobody"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(
    words: list[object], said: str, tmp_path: Path, flythrough: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    answer = flythrough("evaluate", "worlds", "-o", tmp_path / "out", *words)
    assert answer.status == 2
    assert said in answer.err
    assert answer.err.count("\n") == 1


def test_a_video_that_is_too_short_is_refused(tmp_path: Path, flythrough: Command) -> None:
    write_video(tmp_path / f"{CLIP}.mp4", np.zeros((9, 64, 96, 3), np.uint8), 16)
    words = ["evaluate", "worlds", "-o", tmp_path / "out", *SMALL, "--no-controls"]
    answer = flythrough(*words, "--videos", tmp_path)
    assert answer.status == 2
    assert "has 9 frames, but the clip has 33" in answer.err


def test_inputs_for_other_tools(tmp_path: Path, flythrough: Command) -> None:
    from flythrough.cameras.formats import read_trajectory

    answer = flythrough("evaluate", "inputs", "worlds", "-o", tmp_path / "in", *SMALL)
    assert answer.result["clips"] == [CLIP]
    told = json.loads((tmp_path / "in" / "clips.json").read_text())[CLIP]
    assert (told["frames"], told["path"]) == (33, "orbit left 14deg")
    assert len(read_trajectory(tmp_path / "in" / f"{CLIP}.npz")) == 33
    assert np.load(tmp_path / "in" / f"{CLIP}-depth.npz")["depth"].shape == (64, 96)
    assert (tmp_path / "in" / f"{CLIP}.png").is_file()


def blocks() -> list[str]:
    text = (ROOT / "docs/evaluation.md").read_text()
    found = re.findall(r"<!-- tested -->\n```bash\n(.*?)```", text, flags=re.DOTALL)
    return [line for block in found for line in block.splitlines() if line.startswith("flyth")]


def test_the_commands_of_the_page_run(
    tmp_path: Path, visible_model: Path, flythrough: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they stand, but with a smaller model or size, and one clip without controls."""
    monkeypatch.chdir(tmp_path)
    lines = blocks()
    assert len(lines) >= 3
    for line in lines:
        words = shlex.split(line)[1:]
        if words[1] == "inputs":
            words += ["--size", "64x96"]
        elif "--videos" in words:
            videos = tmp_path / words[words.index("--videos") + 1]
            videos.mkdir(exist_ok=True)
            write_video(videos / f"{CLIP}.mp4", np.zeros((33, 64, 96, 3), np.uint8), 16)
            words += ["--size", "64x96", "--no-controls"]
        else:
            words += ["--model", str(visible_model), "--device", "cpu", "--no-controls"]
        answer = flythrough(*words)
        assert answer.status == 0, (line, answer.err)
