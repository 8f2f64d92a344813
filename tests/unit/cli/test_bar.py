"""Progress where there is no terminal."""

from __future__ import annotations

import time

import pytest
from rich.progress import TextColumn

from flythrough.cli import bar, progress
from flythrough.cli.progress import frame_progress, stage_progress, working
from flythrough.engine.chunk_time import ChunkTime
from flythrough.rollout.window import STANDARD

EVEN = ChunkTime()


def shown(monkeypatch: pytest.MonkeyPatch, silence: float) -> None:
    monkeypatch.setattr(bar, "SILENCE", silence)
    with bar.Bar(TextColumn("{task.description} {task.completed:.0f}/{task.total:.0f}")) as moving:
        first = moving.add_task("frames", total=4)
        moving.add_task("hidden", total=4, visible=False)
        for done in range(1, 5):
            moving.update(first, completed=done)


def lines(capfd: pytest.CaptureFixture[str]) -> list[str]:
    return [line.strip() for line in capfd.readouterr().err.split("\n") if line.strip()]


def test_a_log_gets_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shown(monkeypatch, 0.0)
    # Every step but the last, then what the closed bar leaves behind.
    assert [line.partition(" elapsed")[0] for line in lines(capfd)] == [
        *(f"frames {done}/4" for done in range(1, 5))
    ]


def test_a_short_run_says_no_more_than_its_end(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shown(monkeypatch, 30.0)
    assert lines(capfd) == ["frames 4/4 elapsed 0:00 left 0:00"]


def test_frames_count_within_a_chunk_and_no_line_is_cut(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bar, "SILENCE", 0.0)
    monkeypatch.setenv("COLUMNS", "40")
    with frame_progress(0, 2, 40, STANDARD, EVEN) as report:
        report(0, "warp", 0.0)
        report(0, "denoise", 0.5)
        report(1, "denoise", 0.5)
        report(0, "done", 1.0)  # frames that came while the next chunk was denoised
        report(1, "decode", 0.9)
        report(1, "done", 1.0)
    said = lines(capfd)
    counts = [int(next(w for w in line.split() if "/40" in w).split("/")[0]) for line in said]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 40)
    assert 0 < counts[1] < 33 < counts[2] < 40
    assert said[1].startswith("chunk 1/2: denoising")
    assert said[-1].startswith("chunk 2/2: done")
    assert all("elapsed 0:00" in line for line in said)
    assert said[-1].endswith("left 0:00")


def test_stages_are_named_as_they_begin(capfd: pytest.CaptureFixture[str]) -> None:
    with stage_progress() as report:
        report("reading", 0, 1)
        assert lines(capfd) == ["reading"]
        report("reading", 1, 1)
        report("writing", 0, 3)
        assert lines(capfd) == ["writing"]
        report("writing", 3, 3)
    said = lines(capfd)
    assert [line.split()[0] for line in said] == ["reading", "writing"]
    assert "1/1" in said[0]
    assert "3/3" in said[1]


def test_a_log_hears_of_what_takes_long(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with working("loading"):
        pass
    assert lines(capfd) == []
    monkeypatch.setattr(progress, "_LONG", 0.0)
    said: list[str] = []
    with working("loading"):
        until = time.monotonic() + 20
        while not said and time.monotonic() < until:
            said = lines(capfd)
    assert said == ["loading"]
