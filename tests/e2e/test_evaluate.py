"""``flythrough evaluate ablation``: the whole command on the throw-away model, and its refusals.

The model's frames hold nothing that could be found again: failures are what must be counted.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from throwaway import Command

pytest.importorskip("cv2")

ROWS = "warp,plain,zero-shot-no-align,full,still,shuffled"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for the tests below, which go on where the one before stopped."""
    return tmp_path_factory.mktemp("ablation")


def command(folder: Path, model: Path, rows: str) -> list[object]:
    words = ["evaluate", "ablation", "-o", folder, "--model", model, "--clips", 1]
    return [*words, "--rows", rows, "--device", "cpu"]


def test_every_row_is_made_and_measured(
    folder: Path, tiny_model: Path, flythrough: Command
) -> None:
    answer = flythrough(*command(folder, tiny_model, ROWS))
    assert answer.status == 0, answer.err
    assert (answer.result["made"], answer.result["kept"]) == (6, 0)
    assert "do not answer as they must" not in answer.err
    data = json.loads((folder / "results.json").read_text())
    lines = {line["row"]: line for line in data["means"]}
    assert list(lines) == ROWS.split(",")
    assert lines["full"]["failure_rate"] == 1.0
    assert lines["full"]["rotation"] == pytest.approx(lines["still"]["rotation"], rel=1e-6)
    assert lines["full"]["measured_rotation"] is None
    assert lines["warp"]["psnr_visible"] > lines["plain"]["psnr_visible"]
    assert data["controls_fail"] == {"still": True, "shuffled": True}
    assert len(data["clips"][0]["frame_rotation"]) == 32
    page = (folder / "index.html").read_text()
    assert "data:image/jpeg;base64," in page
    assert page.count("<svg") == 2
    assert 'src="http' not in page
    assert list(folder.glob("sheet-*.png"))
    assert (folder / "table.md").read_text().count("\n") == 2 + 6


def test_what_is_there_is_kept_and_what_changed_is_made_again(
    folder: Path, tiny_model: Path, flythrough: Command
) -> None:
    files = {file: file.read_bytes() for file in (folder / "clips").glob("*.json")}
    (folder / "clips" / "room-9000301-still.json").write_text("torn")
    answer = flythrough(*command(folder, tiny_model, ROWS))
    assert (answer.result["made"], answer.result["kept"]) == (1, 5)
    for file, before in files.items():
        old, new = json.loads(before), json.loads(file.read_text())
        assert {**old, "seconds": 0} == {**new, "seconds": 0}
    one = command(folder, tiny_model, "warp,still")
    assert flythrough(*one, "--geometry", "default").result["made"] == 1  # controls need no model


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--clips", "0"], "--clips 0 is out of range"),
        (["--clips", "9"], "the suite has 8 clips"),
        (["--chunks", "0"], "--chunks 0 is out of range"),
        (["--rows", "full,best"], "The row 'best' is unknown"),
        (["--device", "abacus"], "The device 'abacus' is unknown"),
        (["--lora", "none.safetensors"], "There is no adapter file none.safetensors"),
        (["--geometry", "guess"], "--geometry guess cannot serve several worlds"),
        (["--model", "nobody"], "nobody"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(
    words: list[str], said: str, tmp_path: Path, flythrough: Command
) -> None:
    answer = flythrough("evaluate", "ablation", "-o", tmp_path / "out", *words)
    assert answer.status == 2
    assert said in answer.err
    assert answer.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file_is_refused(tmp_path: Path, flythrough: Command) -> None:
    (tmp_path / "file").write_text("mine")
    answer = flythrough("evaluate", "ablation", "-o", tmp_path / "file")
    assert answer.status == 2
    assert "is a file" in answer.err


def test_a_missing_extra_names_the_command(
    tmp_path: Path, flythrough: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    answer = flythrough("evaluate", "ablation", "-o", tmp_path / "out")
    assert answer.status == 2
    assert 'pip install "flythrough[evaluate]"' in answer.err
    assert not (tmp_path / "out").exists()


def test_a_row_may_have_its_own_number_of_stages(tmp_path: Path, tiny_model: Path) -> None:
    from flythrough.evaluation.judged_model import ModelChoice
    from flythrough.evaluation.rows import Row
    from flythrough.evaluation.suite import CASES, Worlds
    from flythrough.evaluation.videos import VideoMaker

    truth = Worlds().truth(CASES[0], (64, 128))
    choice = ModelChoice(model=str(tiny_model), geometry="flat", device="cpu")
    maker = VideoMaker(choice, tmp_path, lambda _: None)
    for stages in (1, 2):
        row = Row("x", "", "generated", {"lora": "off", "warp_stages": stages})
        spec = maker._job(truth, row, "flat").rollout.spec
        assert (spec.settings["warp_stages"], spec.lora) == (stages, "off")
