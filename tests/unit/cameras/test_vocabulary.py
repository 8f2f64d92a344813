"""``flythrough camera --list`` holds every word that the code knows."""

from __future__ import annotations

import json
import re

import pytest

from flythrough.cameras.path_language import parse_path
from flythrough.cameras.presets import PRESETS
from flythrough.cameras.shots import SHOTS
from flythrough.cameras.verbs import VERBS
from flythrough.cli.main import run


def test_the_command_shows_them_within_a_hundred_columns(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["camera", "--list"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 100
    words = set(re.findall(r"[\w.-]+", text))
    assert {*VERBS, *PRESETS, *SHOTS, "ccw", "over", "0.5m"} <= words
    assert run(["camera", "--list", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [row["verb"] for row in said["verbs"]] == list(VERBS)
    assert said["verbs"][0]["example"] == "forward 0.5"


@pytest.mark.parametrize(
    ("path", "near"),
    [("wobble 3", "(the nearest is "), ("foward 0.5", "did you mean forward?")],
)
def test_an_unknown_word_is_told_briefly(path: str, near: str) -> None:
    with pytest.raises(Exception, match="is no known move") as caught:
        parse_path(path, 33)
    said = str(caught.value)
    assert near in said
    assert "`flythrough camera --list`" in said
    assert len(said) < 160
