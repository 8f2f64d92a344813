"""Every command and program in README.md, and those marked in docs/, run with the bundled model."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flythrough.cli.main import build_app
from flythrough.media.video import read_video

ROOT = Path(__file__).parents[2]
DOCS = list((ROOT / "docs").glob("*.md"))
PHOTO = ROOT / "src/flythrough/assets/example.jpg"


def blocks(marker: str, page: str = "README.md") -> list[tuple[str, str]]:
    """(language, text) of the fenced blocks of ``page`` that follow ``<!-- marker -->``."""
    text = (ROOT / page).read_text()
    return re.findall(rf"<!-- {marker} -->\n```(\w+)\n(.*?)```", text, flags=re.DOTALL)


def bash(text: str, folder: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=folder,
        env={**os.environ, "PATH": path},
        check=True,
    )


def test_the_first_command_makes_the_promised_video(tmp_path: Path) -> None:
    ((_, command),) = blocks("first-command")
    words = command.split("&&")[-1].strip().removeprefix(".venv/bin/")
    assert words.startswith("flythrough generate src/flythrough/assets/example.jpg")
    bash(words.replace("src/flythrough/assets/example.jpg", str(PHOTO)), tmp_path)
    video = read_video(tmp_path / "flythrough.mp4")
    assert video.frames.shape == (66, 192, 320, 3)


@pytest.mark.parametrize(
    ("page", "number"),
    [
        (page, i)
        for page in ("README.md", *(f"docs/{n}.md" for n in ("helios", "live", "cameras", "paths")))
        for i in range(len(blocks("tested", page)))
    ],
)
def test_a_block_of_the_pages_runs(page: str, number: int, tmp_path: Path) -> None:
    language, text = blocks("tested", page)[number]
    shutil.copy(PHOTO, tmp_path / "photo.jpg")
    if language == "bash":
        bash(text, tmp_path)
    else:
        assert language == "python"
        subprocess.run([sys.executable, "-c", text], cwd=tmp_path, check=True)


def test_the_commands_of_the_page_on_geometry_run(tmp_path: Path) -> None:
    shutil.copy(PHOTO, tmp_path / "photo.jpg")
    found = blocks("tested", "docs/geometry.md")
    assert found
    for _, text in found:
        bash(text, tmp_path)
    assert (tmp_path / "depth.png").is_file()


@pytest.mark.parametrize("page", ["README.md", *sorted(f"docs/{p.name}" for p in DOCS)])
def test_every_block_is_run(page: str) -> None:
    marked = sum(len(blocks(m, page)) for m in ("tested", "first-command", "test-command"))
    runnable = re.findall(r"^```(?:bash|python)$", (ROOT / page).read_text(), flags=re.MULTILINE)
    assert len(runnable) == marked


@pytest.mark.parametrize("page", ["README.md", *sorted(f"docs/{p.name}" for p in DOCS)])
def test_every_shown_command_is_understood(page: str) -> None:
    """Also those that are too long to run here: names, options and kinds of their values."""
    text = (ROOT / page).read_text().replace("\\\n", " ")
    for block in re.findall(r"^```\w*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        for line in map(str.strip, block.splitlines()):
            if line.startswith("flythrough "):
                words = shlex.split(line, comments=True)[1:]
                build_app().parse_args(words, exit_on_error=False, print_error=False)
