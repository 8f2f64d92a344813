"""Words that cannot be used end in one sentence that says what to do; stops say how to go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from flythrough.cli.main import run
from flythrough.cli.stopping import TerminatedError, goes_on, stopped

CASES = {
    "doctor --gpus 2.5": "--gpus 2.5 is not a whole number; write it like --gpus 3",
    "train nano codec -o x --seed 1.5": "--seed 1.5 is not a whole number",
    "generate p.png --frames ten -o o.mp4": "--frames ten is not a whole number; write it like",
    "generate p.png --guidance much -o o.mp4": "--guidance much is not a number; write it like",
    "generate p.png --camera static": "needs -o or --output, which was not given; add --output",
    "generate p.png -o": "-o lacks its value; write one after it",
    "generate p.png --frame 3 -o o.mp4": "has no option --frame; did you mean --frames?",
    "generate p.png --zzz 3 -o o.mp4": "has no option --zzz; see `flythrough generate --help`.",
    "generate p.png -q -o o.mp4": "has no option -q; see `flythrough generate --help`.",
    "generate a b -o o.mp4": "has no place for 'b'; quote values that hold spaces",
    "generate p.png -o a.mp4 -o b.mp4": "-o was given more than once; keep one",
    "generate p.png --method hellios -o o.mp4": 'did you mean "helios"?',
    "generat p.png": 'did you mean "generate"?',
    "rewind": "lacks FOLDER; add it after the command",
    "rewind run": "needs --chunks, which was not given; add --chunks VALUE",
    "branch run": "lacks NEW; add it after the command",
}


@pytest.mark.parametrize("line", CASES)
def test_each_is_one_sentence(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(line.split()) == 2
    printed = capsys.readouterr().err
    assert CASES[line] in printed
    assert printed.startswith("error: ")
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    ("path", "near"),
    [("foward 0.5", "forward"), ("static; oribt left 30deg", "orbit"), ("doly-in", "dolly-in")],
)
def test_near_misses_of_moves(path: str, near: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["camera", path, "-o", "path.npz"]) == 2
    assert f"is no known move (did you mean {near}?)" in capsys.readouterr().err


@pytest.mark.parametrize(("kind", "status"), [(KeyboardInterrupt, 130), (TerminatedError, 143)])
def test_stops_say_how_to_go_on(kind: type[KeyboardInterrupt], status: int, tmp_path: Path) -> None:
    folder = tmp_path / "my run"
    folder.mkdir()

    def ended(rollout: Path | None) -> str:
        with pytest.raises(KeyboardInterrupt) as stop, goes_on(rollout):
            raise kind
        text, given = stopped(stop.value)
        assert given == status
        return text

    assert "with --rollout FOLDER a stopped run can be continued" in ended(None)
    assert ended(folder) == "stopped"  # nothing was stored yet
    (folder / "rollout.json").touch()
    assert ended(folder) == f"stopped; `flythrough continue '{folder}'` goes on where it ended"
