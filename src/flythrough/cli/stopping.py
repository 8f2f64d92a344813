"""Stopping from outside: Ctrl-C and SIGTERM end a command alike, and say how to go on."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

_STATUS = 128
"""A process that a signal ended has this plus the signal's number as its exit status."""


class TerminatedError(KeyboardInterrupt):
    """SIGTERM, raised where Ctrl-C would raise its parent class, so that all is cleaned up."""


def end_on_sigterm() -> None:
    """From now on SIGTERM raises :class:`TerminatedError` in the main thread."""
    signal.signal(signal.SIGTERM, _terminated)


def _terminated(number: int, frame: FrameType | None) -> None:
    del number, frame
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # who asks again does not want to wait
    raise TerminatedError


@contextmanager
def goes_on(rollout: Path | None) -> Iterator[None]:
    """Within the block, a stop says how the run is continued; ``rollout`` is its folder, if any."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if rollout is None:
            stop.add_note("nothing is kept; with --rollout FOLDER a stopped run can be continued")
        elif (rollout / "rollout.json").exists():
            command = f"flythrough continue {shlex.quote(str(rollout))}"
            stop.add_note(f"`{command}` goes on where it ended")
        raise


def stopped(stop: KeyboardInterrupt) -> tuple[str, int]:
    """What to print and the exit status."""
    number = signal.SIGTERM if isinstance(stop, TerminatedError) else signal.SIGINT
    return "; ".join(["stopped", *getattr(stop, "__notes__", ())]), _STATUS + number
