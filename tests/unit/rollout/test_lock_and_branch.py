"""One writer a folder, and branches that share files with a parent that stays as it is."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from flythrough.errors import RolloutError
from flythrough.rollout import store
from flythrough.rollout.chunk import Chunk, ChunkRequest
from flythrough.rollout.lock import LOCK, held
from flythrough.rollout.rollout import Rollout, Start
from flythrough.rollout.spec import RolloutSpec

SPEC = RolloutSpec(
    method="helios", model="m", model_digest="d", height=8, width=8, fps=16.0, seed=1
)
HOLDER = """
import sys
from pathlib import Path
from flythrough.rollout.lock import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def chunk(index: int, level: float = 0.0) -> Chunk:
    latents = np.full((16, 9, 1, 1), index + level, np.float32)
    return Chunk(ChunkRequest(index), latents, np.zeros((33, 8, 8, 3), np.uint8))


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    start = Start(np.zeros((8, 8, 3), np.uint8), np.eye(3))
    rollout = Rollout(SPEC, start, tuple(chunk(index) for index in range(3)))
    store.create(tmp_path / "parent", rollout, {"legs": []})
    return tmp_path / "parent"


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_a_second_process_is_refused_and_a_dead_one_leaves_nothing(parent: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    with (
        pytest.raises(RolloutError, match="Another process is at work on the rollout"),
        held(parent),
    ):
        pytest.fail("two processes hold one folder")
    other.kill()
    other.wait()
    assert (parent / LOCK).exists()
    with held(parent):
        pass


def test_blocks_of_one_thread_nest_and_another_thread_is_refused(parent: Path) -> None:
    refused: list[str] = []

    def other() -> None:
        try:
            with held(parent):
                pass
        except RolloutError as error:
            refused.append(str(error))

    with held(parent):
        with held(parent):
            pass
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(refused) == 1
    with held(parent):
        pass


def test_a_folder_without_rollout_gets_no_lock(tmp_path: Path) -> None:
    with held(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_branch_shares_chunks_and_leaves_its_parent_alone(parent: Path, tmp_path: Path) -> None:
    """Chunks are immutable: no writer changes a file in place, so links never leak a change."""
    before = files(parent)
    twins = [tmp_path / "one", tmp_path / "two"]
    for twin in twins:
        assert store.branch(parent, twin, 2).digest() == store.load(parent).kept(2).digest()
        first = sorted((twin / "chunks").iterdir())[0]
        assert os.path.samefile(first, parent / "chunks" / first.name)
    store.append(twins[0], chunk(2, 0.5))
    store.append(twins[1], chunk(2))
    assert store.load(twins[0]).digest() != store.load(twins[1]).digest()
    assert store.load(twins[1]).digest() == store.load(parent).digest()
    for writing in (
        lambda: store.truncate(twins[0], 0),
        lambda: store.append(twins[0], chunk(0, 0.25)),
        lambda: store.write_plan(twins[0], {"legs": [1]}),
        lambda: store.truncate(twins[1], 1),
        lambda: store.append(twins[1], chunk(1)),  # the very chunk that was dropped
    ):
        writing()
        assert files(parent) == before
    store.truncate(parent, 0)
    assert len(store.load(twins[1]).chunks) == 2


def test_without_links_files_are_copied(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    made = store.branch(parent, tmp_path / "copy", plan={"legs": []})
    assert made.digest() == store.load(tmp_path / "copy").digest() == store.load(parent).digest()
    names = {path.name for path in (tmp_path / "copy" / "chunks").iterdir()}
    assert names == {path.name for path in (parent / "chunks").iterdir()}


def test_a_damaged_parent_is_not_branched(parent: Path, tmp_path: Path) -> None:
    newest = sorted((parent / "chunks").iterdir())[-1]
    os.truncate(newest, 50)
    with pytest.raises(RolloutError, match="is damaged"):
        store.branch(parent, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert len(store.branch(parent, tmp_path / "new", 2).chunks) == 2
    with pytest.raises(RolloutError, match="already holds a rollout"):
        store.branch(parent, tmp_path / "new", 2)


def test_a_value_branches_too(parent: Path) -> None:
    rollout = store.load(parent)
    assert rollout.branch().digest() == rollout.digest()
    assert rollout.branch(1).digest() == rollout.kept(1).digest()
    with pytest.raises(RolloutError, match="Cannot keep 4"):
        rollout.branch(4)
