"""Progress where there is no terminal."""

from __future__ import annotations

import pytest
from rich.progress import TextColumn

from flythrough.cli import bar


def shown(monkeypatch: pytest.MonkeyPatch, silence: float) -> None:
    monkeypatch.setattr(bar, "SILENCE", silence)
    with bar.Bar(TextColumn("{task.description} {task.completed:.0f}/{task.total:.0f}")) as moving:
        first = moving.add_task("frames", total=4)
        moving.add_task("hidden", total=4, visible=False)
        for done in range(1, 5):
            moving.update(first, completed=done)


def test_a_log_gets_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shown(monkeypatch, 0.0)
    said = capfd.readouterr().err.split("\n")
    # Every step but the last, then what the closed bar leaves behind.
    assert [line.strip() for line in said if line.strip()] == [
        *(f"frames {done}/4" for done in range(1, 5))
    ]


def test_a_short_run_says_no_more_than_its_end(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shown(monkeypatch, 30.0)
    said = capfd.readouterr().err
    assert said.count("frames") == 1
    assert "frames 4/4" in said
