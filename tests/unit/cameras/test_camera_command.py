"""``flythrough camera``: lengths, options without effect, and the real command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flythrough.cameras.formats import read_trajectory, write_trajectory
from flythrough.cameras.path_language import parse_path
from flythrough.cli.camera import camera
from flythrough.cli.main import run
from flythrough.errors import CameraError


def test_command_keeps_the_length_of_a_file(tmp_path: Path) -> None:
    file, copy = tmp_path / "a.npz", tmp_path / "b.json"
    long = parse_path("forward 1", 100)
    write_trajectory(file, long)
    camera(str(file), output=copy)
    assert read_trajectory(copy).digest() == long.digest()
    camera(str(file), output=copy, frames=10, convention="opencv")
    assert read_trajectory(copy).digest() == long[:10].digest()
    camera("forward 1", output=copy)
    assert len(read_trajectory(copy)) == 66


@pytest.mark.parametrize(
    ("source", "options", "word"),
    [
        ("file", {"fps": 8.0}, "--fps 8"),
        ("file", {"convention": "opengl"}, "states opencv,world"),
        ("file", {"frames": 0}, "--frames 0"),
        ("forward 1", {"frames": -3}, "--frames -3"),
        ("forward 1", {"convention": "opengl"}, "--convention opengl"),
        ("forward 1", {"fps": -1.0}, "-1"),
        ("lost.npz", {}, "no camera file"),
    ],
)
def test_command_refuses_what_has_no_effect(
    tmp_path: Path, source: str, options: dict[str, Any], word: str
) -> None:
    file = tmp_path / "a.npz"
    write_trajectory(file, parse_path("forward 1", 9))
    given = str(file) if source == "file" else source
    with pytest.raises(CameraError, match=word):
        camera(given, output=tmp_path / "b.npz", **options)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.npz"]


def status(*words: str) -> int:
    """The exit status of a command line, whether it returns or exits."""
    try:
        return run(words)
    except SystemExit as done:
        return int(done.code or 0)


def test_command_line_from_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.json"
    assert status("camera", "orbit left 30deg", "--frames", "33", "-o", str(out), "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["frames"] == 33
    assert said["digest"] == read_trajectory(out).digest()
    out.unlink()
    assert status("camera", "pan right 20", "-o", str(out)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "20deg" in captured.err
    assert captured.err.count("\n") == 1
    assert not out.exists()
