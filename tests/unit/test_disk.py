"""Files on disk: whole or not at all, under any name, and JSON objects only."""

from __future__ import annotations

from pathlib import Path

import pytest

from flythrough import disk


def write(path: Path, text: str, *, fail: bool = False) -> None:
    with disk.replacing(path) as partial:
        partial.write_text(text)
        assert disk.is_partial(partial)
        assert partial.suffix in (path.suffix, ".partial")
        if fail:
            raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["a.npz", "plain", "x" * 250 + ".json", "é" * 125 + ".mp4"])
def test_a_file_is_replaced_whole_or_kept(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write(path, "old")
    with pytest.raises(KeyboardInterrupt):
        write(path, "new", fail=True)
    assert path.read_text() == "old"
    write(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
    assert not disk.is_partial(path)


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "made"

    def made(*, fail: bool = False) -> None:
        with disk.replacing_folder(target) as partial:
            assert disk.is_partial(partial)
            (partial / "inner").mkdir()
            (partial / "inner" / "file").write_text("text")
            if fail:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(fail=True)
    assert list(tmp_path.iterdir()) == []
    target.mkdir()
    made()
    assert (target / "inner" / "file").read_text() == "text"
    assert list(tmp_path.iterdir()) == [target]
    with pytest.raises(OSError):  # noqa: PT011 - which one depends on the system
        made()
    assert list(tmp_path.iterdir()) == [target]


def test_only_json_objects_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(FileNotFoundError):
        disk.read_json(path)
    for content, kind in (("{", ValueError), ("[1]", TypeError), ("null", TypeError)):
        path.write_text(content)
        with pytest.raises(kind):
            disk.read_json(path)
    path.write_text('{"é": 1}', encoding="utf-8")
    assert disk.read_json(path) == {"é": 1}
