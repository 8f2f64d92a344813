"""Option types, results and the exit status."""

from __future__ import annotations

import json

import pytest

from flythrough.cli import main as entry
from flythrough.cli.output import emit, json_output
from flythrough.engine.words import parse_size, parse_steps
from flythrough.errors import FaultError, InputError


@pytest.mark.parametrize("text", ["192x320", "192X320", " 192 × 320 "])
def test_size_is_height_by_width(text: str) -> None:
    assert parse_size(text) == (192, 320)
    assert parse_size(None) is None


@pytest.mark.parametrize("text", ["", "192", "192x", "axb", "192x320x3", "-1x2"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="HEIGHTxWIDTH"):
        parse_size(text)


def test_steps() -> None:
    assert parse_steps("2,2,3") == (2, 2, 3)
    assert parse_steps(None) is None
    with pytest.raises(InputError, match="list of counts"):
        parse_steps("two")


def test_results_as_text_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"frames": 3}, "three frames")
    with json_output(True):
        emit({"frames": 3}, "three frames")
    text, line = capsys.readouterr().out.splitlines()
    assert text == "three frames"
    assert json.loads(line) == {"frames": 3}


@pytest.mark.parametrize(
    ("error", "status"),
    [(FaultError("disk full."), 1), (InputError("bad."), 2), (KeyboardInterrupt(), 130)],
)
def test_exit_status(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
) -> None:
    def fail() -> None:
        def app(*_args: object, **_settings: object) -> None:
            raise error

        return app  # type: ignore[return-value]

    monkeypatch.setattr(entry, "build_app", fail)
    assert entry.run(["generate"]) == status
    assert capsys.readouterr().err.count("\n") == 1
