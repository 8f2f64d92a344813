"""``flythrough models`` as a user types it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file

from flythrough.cli.main import run
from throwaway import Command

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(autouse=True)
def _empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


def test_list(flythrough: Command, capsys: pytest.CaptureFixture[str]) -> None:
    answer = flythrough("models", "list")
    assert (answer.status, answer.err) == (0, "")
    rows = {row["name"]: row for row in answer.result["models"]}
    assert rows["nano"]["present"] is True
    assert Path(rows["nano"]["path"]).is_dir()
    distilled = rows["helios-distilled"]
    assert distilled["source"] == "https://huggingface.co/BestWishYsh/Helios-Distilled"
    assert (distilled["present"], distilled["path"]) == (False, None)
    assert len(distilled["revision"]) == 40
    assert rows["pi3x"]["licence"].startswith("CC-BY-NC-4.0")
    assert rows["warp-as-history-lora"]["revision"] is None
    assert run(["models", "list"]) == 0
    table = capsys.readouterr().out
    assert all(name in table for name in rows)
    assert "80.5 GB" in table
    assert "not pinned" in table
    assert max(map(len, table.splitlines())) <= 100
    assert all(row["what"] in table and row["licence"] in table for row in rows.values())


def test_long_paths_are_broken_at_slashes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "a folder" / "/".join(["deeper"] * 20)
    snapshot = cache / "models--yyfz233--Pi3X" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    assert run(["models", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    at = next(number for number, line in enumerate(lines) if "in part" in line)
    shown = lines[at].partition("in part: ")[2]
    while lines[at].endswith("/"):
        at += 1
        shown += lines[at].strip()
    assert shown == str(snapshot)


def test_list_shows_what_the_cache_holds(flythrough: Command, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "models--yyfz233--Pi3X"
    snapshot = folder / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")

    def row() -> dict[str, object]:
        rows = flythrough("models", "list").result["models"]
        return next(found for found in rows if found["name"] == "pi3x")

    assert (row()["present"], row()["path"]) == (False, str(snapshot))
    (snapshot / "model.safetensors").write_bytes(bytes(7))
    assert (row()["present"], row()["size"], row()["local_revision"]) == (True, 7, "abc")
    answer = flythrough("models", "check", "pi3x")
    assert answer.status == 2
    assert "cut short" in answer.result["parts"][0]["faults"][0]


def test_list_and_help_load_nothing_heavy() -> None:
    code = (
        "import sys\nfrom flythrough.cli.main import run\n"
        "assert run(['models', '--help']) == run(['models', 'list']) == 0\n"
        "assert not {'torch', 'diffusers', 'transformers', 'numpy'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_check_says_what_is_wrong_and_leaves_with_status_2(
    flythrough: Command,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer = flythrough("models", "check", tiny_model)
    assert (answer.status, answer.result["good"]) == (0, True)
    model = shutil.copytree(tiny_model, tmp_path / "model")
    (model / "vae" / WEIGHTS).unlink()
    answer = flythrough("models", "check", model)
    assert (answer.status, answer.result["good"]) == (2, False)
    assert answer.err.count("\n") == 1
    assert answer.err.startswith("error: ")
    assert "vae" in answer.err
    assert run(["models", "check", str(model)]) == 2
    shown = capsys.readouterr().out
    assert "ok   transformer: HeliosTransformer3DModel" in shown
    assert "FAIL vae: TAEHV\n     missing: " in shown
    assert f"wrong: {WEIGHTS} is missing" in shown


def test_convert_then_read(flythrough: Command, tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.ones(2)}, "step": 5}, tmp_path / "w.pt")
    answer = flythrough("models", "convert", tmp_path / "w.pt", "-o", tmp_path / "w.safetensors")
    assert answer.status == 0
    assert (answer.result["tensors"], answer.result["wrapper"]) == (1, "model")
    assert answer.err == "note: taken from 'model'; left out: step\n"
    assert load_file(tmp_path / "w.safetensors")["a"].tolist() == [1.0, 1.0]
    torch.save({"step": 5}, tmp_path / "w.pt")
    answer = flythrough("models", "convert", tmp_path / "w.pt", "-o", tmp_path / "v.safetensors")
    assert (answer.status, answer.err.count("\n")) == (2, 1)
    assert not (tmp_path / "v.safetensors").exists()


def test_pull_without_a_network(
    flythrough: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    answer = flythrough("models", "pull", "helios-base", "--to", tmp_path / "here")
    assert (answer.status, answer.out) == (2, "")
    note, error = answer.err.splitlines()
    assert note.startswith("note: helios-base: Apache-2.0")
    assert error.startswith("error: The model hub cannot be reached")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pull", "helios"], "no model named 'helios'"),
        (["pull", "taew2_1"], "is not on the model hub"),
        (["check", "pi3x"], "run `flythrough models pull pi3x`"),
        (["check", "no-such-folder"], "no model or folder"),
        (["convert", "no-such-file.pt"], "no file no-such-file.pt"),
    ],
)
def test_bad_input_is_one_sentence(flythrough: Command, words: list[str], said: str) -> None:
    answer = flythrough("models", *words)
    assert (answer.status, answer.out) == (2, "")
    assert said in answer.err
    assert answer.err.count("\n") == 1


def test_pull_of_the_bundled_model_names_its_folder(flythrough: Command) -> None:
    answer = flythrough("models", "pull", "nano")
    assert answer.status == 0
    described = json.loads((Path(answer.result["path"]) / "flythrough.json").read_text())
    assert described["name"] == "nano"
