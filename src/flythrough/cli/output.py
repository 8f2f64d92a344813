"""What the command line prints: results on stdout, progress and notes on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

_NO_EDGE = 1000
_AS_JSON: ContextVar[bool] = ContextVar("as_json", default=False)


@contextmanager
def json_output(enabled: bool) -> Iterator[None]:
    """Within the block, results are printed as one JSON object a line instead of text."""
    token = _AS_JSON.set(enabled)
    try:
        yield
    finally:
        _AS_JSON.reset(token)


def emit(data: Mapping[str, object], text: str) -> None:
    """Print one result: ``data`` as a JSON line under ``--json``, else ``text``."""
    line = json.dumps(dict(data), default=str) if _AS_JSON.get() else text
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def stderr_console() -> Console:
    """A rich console on stderr, so that stdout holds nothing but results. Where it is no terminal
    no line is cut or wrapped."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        console.width = _NO_EDGE
    return console


def note(text: str) -> None:
    """Announce something the user should know (a fallback, a licence) on stderr."""
    sys.stderr.write(f"note: {text}\n")
    sys.stderr.flush()
