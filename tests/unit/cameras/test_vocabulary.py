"""The page on paths and ``flythrough camera --list`` hold every word that the code knows."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path

import pytest

from flythrough.cameras.path_language import parse_path, starts_like_a_path
from flythrough.cameras.presets import PRESETS
from flythrough.cameras.shots import SHOTS, is_shots, parse_shots
from flythrough.cameras.verbs import VERBS
from flythrough.cameras.vocabulary import Table, tables
from flythrough.cli.main import run

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/paths.md").read_text()
CODE = {"verb", "example", "write", "preset", "if left out"}


def markdown(table: Table) -> str:
    """``table`` as the page shows it."""
    if len(table.columns) == 1:
        return textwrap.fill(", ".join(f"`{row[0]}`" for row in table.rows) + ".", 100)
    lines = [table.columns, ("---",) * len(table.columns)]
    for row in table.rows:
        cells = zip(table.columns, row, strict=True)
        lines.append(tuple(f"`{t}`" if name in CODE and t != "-" else t for name, t in cells))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@pytest.mark.parametrize("name", tables())
def test_the_page_has_the_words_of_the_code(name: str) -> None:
    found = re.search(rf"<!-- words: {name} -->\n(.*?)<!-- end -->", PAGE, flags=re.DOTALL)
    assert found is not None
    assert found[1] == markdown(tables()[name]) + "\n"


def examples(page: str) -> list[str]:
    """Paths in the page's running text, tables and blocks."""
    text = (ROOT / page).read_text()
    blocks = re.findall(r"^```text\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    shown = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]
    return lines + [code for code in shown if is_path(code)]


def is_path(code: str) -> bool:
    """A path rather than one of its words or a pattern."""
    alone = len(code.split()) == 1 and code not in PRESETS
    return is_shots(code) or (starts_like_a_path(code) and not alone)


@pytest.mark.parametrize(
    "page", ["docs/paths.md", "README.md", "docs/live.md", "docs/worldwarp.md"]
)
def test_every_example_is_understood(page: str) -> None:
    found = examples(page)
    assert found or page != "docs/paths.md"
    for text in found:
        made = parse_shots(text, 200) if is_shots(text) else parse_path(text, 200)
        assert len(made) == 200


def test_the_examples_use_every_verb_direction_and_preset() -> None:
    words = set(re.findall(r"[a-z-]+", " ".join(examples("docs/paths.md"))))
    assert set(VERBS) <= words
    assert {direction for verb in VERBS.values() for direction in verb.directions} <= set(
        re.findall(r"[a-z]+", PAGE)
    )
    assert all(f"`{name}`" in PAGE for name in (*PRESETS, *SHOTS))


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
