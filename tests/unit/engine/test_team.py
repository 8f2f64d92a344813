"""Processes that share a denoiser: what happens when one of them does not come up."""

from __future__ import annotations

import subprocess
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist

from flythrough.engine import team
from flythrough.errors import FaultError

CPU = torch.device("cpu")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes that are started."""
    found = []
    popen = subprocess.Popen

    def noted(*words: Any, **more: Any) -> subprocess.Popen[bytes]:
        found.append(popen(*words, **more))
        return found[-1]

    monkeypatch.setattr(subprocess, "Popen", noted)
    return found


def runs(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(team, "_FOLLOWER", ("-c", code))


def nothing_is_left(started: list[subprocess.Popen[bytes]], count: int) -> None:
    assert [one.returncode is not None for one in started] == [True] * count
    assert not dist.is_initialized()


def test_a_process_that_ends_at_once_ends_the_start(
    monkeypatch: pytest.MonkeyPatch, started: list[subprocess.Popen[bytes]]
) -> None:
    """The other one would wait for a minute."""
    runs(monkeypatch, "import sys, time; time.sleep(60 * (sys.argv[1] == '1'))")
    with pytest.raises(FaultError, match=r"GPU 2 ended while it started .* fewer --gpus"):
        team.Team(3, CPU)
    nothing_is_left(started, 2)


def test_a_process_that_never_comes_ends_the_start(
    monkeypatch: pytest.MonkeyPatch, started: list[subprocess.Popen[bytes]]
) -> None:
    runs(monkeypatch, "import time; time.sleep(60)")
    monkeypatch.setattr(team, "_START", timedelta(seconds=1))
    with pytest.raises(FaultError, match="--gpus 2 did not all start within 1 seconds; try again"):
        team.Team(2, CPU)
    nothing_is_left(started, 1)


@pytest.mark.parametrize("error", [RuntimeError("no route"), KeyboardInterrupt()])
def test_what_goes_wrong_while_joining_leaves_no_process(
    monkeypatch: pytest.MonkeyPatch,
    started: list[subprocess.Popen[bytes]],
    error: BaseException,
) -> None:
    def fails(*_: object) -> None:
        raise error

    runs(monkeypatch, "import time; time.sleep(60)")
    monkeypatch.setattr(team.Team, "_meet", lambda *_: None)
    monkeypatch.setattr(team, "join", fails)
    told = FaultError if isinstance(error, Exception) else KeyboardInterrupt
    with pytest.raises(told) as caught:
        team.Team(2, CPU)
    if told is FaultError:
        assert "could not join (RuntimeError: no route)" in str(caught.value)
    nothing_is_left(started, 1)
