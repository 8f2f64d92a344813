"""Folders of rollouts: refusals in one sentence, and a process that is really killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from flythrough import disk
from flythrough.errors import FaultError, RolloutError
from flythrough.rollout import store
from flythrough.rollout.chunk import Chunk, ChunkRequest
from flythrough.rollout.rollout import Rollout, Start
from flythrough.rollout.spec import RolloutSpec

SPEC = RolloutSpec(
    method="helios", model="nano", model_digest="d", height=8, width=8, fps=24.0, seed=1
)


def chunk(index: int, side: int = 8) -> Chunk:
    rng = np.random.default_rng(index)
    return Chunk(
        request=ChunkRequest(
            index,
            "a lake",
            np.tile(np.eye(4), (33, 1, 1)),
            np.tile(np.eye(3), (33, 1, 1)),
        ),
        latents=rng.standard_normal((16, 9, side // 8, side // 8), dtype=np.float32),
        frames=rng.integers(0, 256, (33, side, side, 3), dtype=np.uint8),
        timings={"sample": 0.5},
    )


def rollout(chunks: int = 2) -> Rollout:
    start = Start(np.zeros((8, 8, 3), np.uint8), np.eye(3))
    return Rollout(SPEC, start, tuple(chunk(index) for index in range(chunks)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store.create(tmp_path / "run", rollout())
    store.write_plan(tmp_path / "run", {"frames": 99})
    return tmp_path / "run"


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def chunk_paths(folder: Path) -> list[Path]:
    return sorted((folder / "chunks").iterdir())


def test_the_layout_is_as_documented(folder: Path) -> None:
    names = [f"chunks/{k:06d}-{chunk(k).digest()}.safetensors" for k in range(2)]
    assert list(files(folder)) == [*names, "plan.json", "rollout.json", "start.safetensors"]
    manifest = json.loads((folder / "rollout.json").read_text())
    assert manifest["format"] == "flythrough-rollout"
    assert manifest["version"] == 1
    assert [entry["file"] for entry in manifest["chunks"]] == names
    with safe_open(folder / names[0], framework="numpy") as file:
        assert set(file.keys()) == {"latents", "frames", "world_from_camera", "intrinsics"}
        assert json.loads(file.metadata()["request"])["prompt"] == "a lake"
        assert json.loads(file.metadata()["timings"]) == {"sample": 0.5}


def test_a_folder_that_holds_a_rollout_is_refused_and_untouched(folder: Path) -> None:
    before = files(folder)
    with pytest.raises(RolloutError, match="already holds a rollout"):
        store.create(folder, rollout(0))
    assert files(folder) == before


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("hello")
    with pytest.raises(RolloutError, match="is a file"):
        store.create(tmp_path / "run", rollout())
    with pytest.raises(RolloutError, match="not a folder"):
        store.load(tmp_path / "run")


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "chunks").mkdir()
    kept = ["notes.txt", "chunks/000000-mine.safetensors", ".hidden.partial", "chunks/a.partial.b"]
    for name in kept:
        (tmp_path / name).write_text("mine")
    store.create(tmp_path, rollout())
    store.append(tmp_path, chunk(2))
    store.truncate(tmp_path, 0)
    assert all((tmp_path / name).read_text() == "mine" for name in kept)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def _edit(**change: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "rollout.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))

    return edit


def _edit_entry(**change: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "rollout.json"
        data = json.loads(path.read_text())
        data["chunks"][1] |= change
        path.write_text(json.dumps(data))

    return edit


def _swap_chunks(folder: Path) -> None:
    data = json.loads((folder / "rollout.json").read_text())
    data["chunks"].reverse()
    (folder / "rollout.json").write_text(json.dumps(data))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda f: (f / "rollout.json").unlink(), "rollout.json is missing"),
    "empty manifest": (lambda f: (f / "rollout.json").write_text(""), "not valid JSON"),
    "half a manifest": (lambda f: _cut(f / "rollout.json"), "not valid JSON"),
    "binary manifest": (lambda f: (f / "rollout.json").write_bytes(b"\xff\xfe"), "not valid JSON"),
    "a list": (lambda f: (f / "rollout.json").write_text("[]"), "not written by Flythrough"),
    "foreign": (_edit(format="other"), "not written by Flythrough"),
    "newer": (_edit(version=2), "version 2"),
    "no chunks": (_edit(chunks=None), "lacks a part"),
    "odd chunks": (_edit(chunks=[1]), "lacks a part"),
    "odd start": (_edit(start=5), "lacks a part"),
    "odd spec": (_edit(spec=[]), "cannot be used"),
    "bad spec": (_edit(spec=SPEC.to_dict() | {"seed": -4}), "seed -4"),
    "odd settings": (_edit(spec=SPEC.to_dict() | {"settings": 3}), "lacks a part"),
    "other size": (_edit(spec=SPEC.to_dict() | {"height": 16}), "do not belong together"),
    "way out": (_edit_entry(file="../../secret.safetensors"), "secret.safetensors"),
    "other digest": (_edit_entry(digest="0" * 32), "0" * 32),
    "other checksum": (_edit_entry(checksum="0" * 32), "checksum differs"),
    "swapped": (_swap_chunks, "belongs"),
    "no start": (lambda f: (f / "start.safetensors").unlink(), "start.safetensors is missing"),
    "cut start": (lambda f: _cut(f / "start.safetensors"), "start.safetensors is damaged"),
    "no chunk": (lambda f: chunk_paths(f)[1].unlink(), "is missing; .*--chunks 1 "),
    "cut chunk": (lambda f: _cut(chunk_paths(f)[0]), "is damaged.*--chunks 2 "),
    "flipped chunk": (lambda f: _flip(chunk_paths(f)[1]), "is damaged.*--chunks 1 "),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_folder_is_refused_in_one_sentence(folder: Path, name: str) -> None:
    damage, words = DAMAGE[name]
    damage(folder)
    before = files(folder)
    with pytest.raises(RolloutError, match=words) as caught:
        store.load(folder)
    message = str(caught.value)
    assert str(folder) in message
    assert "\n" not in message
    assert message.endswith(".")
    assert files(folder) == before


@pytest.mark.parametrize("content", [b"", b"\x00" * 40, b"\xff" * 8, b"\x02\0\0\0\0\0\0\0{}"])
def test_a_file_of_another_kind_is_refused_even_with_its_checksum(
    folder: Path, content: bytes
) -> None:
    path = chunk_paths(folder)[1]
    path.write_bytes(content)
    _edit_entry(checksum=store._checksum(content))(folder)
    with pytest.raises(RolloutError, match="not a chunk file"):
        store.load(folder)


def test_a_start_in_the_place_of_a_chunk_is_refused(folder: Path) -> None:
    content = (folder / "start.safetensors").read_bytes()
    chunk_paths(folder)[1].write_bytes(content)
    _edit_entry(checksum=store._checksum(content))(folder)
    with pytest.raises(RolloutError, match="not a chunk file"):
        store.load(folder)


def test_dropping_a_damaged_chunk_makes_the_folder_whole(folder: Path) -> None:
    _cut(chunk_paths(folder)[1])
    store.truncate(folder, 1)
    assert store.load(folder).digest() == rollout(1).digest()


@pytest.mark.parametrize("keep", [-1, 3])
def test_truncating_out_of_range_is_refused(folder: Path, keep: int) -> None:
    with pytest.raises(RolloutError, match=f"Cannot keep {keep} chunks"):
        store.truncate(folder, keep)


def test_a_chunk_that_does_not_fit_is_refused(folder: Path) -> None:
    wide = replace(chunk(2), latents=np.zeros((16, 9, 2, 2), np.float32))
    for given, words in ((chunk(2, side=16), "16x16"), (wide, "latents of chunk 2")):
        with pytest.raises(RolloutError, match=words):
            store.append(folder, given)
    assert store.load(folder).digest() == rollout().digest()


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_folders_without_a_rollout_are_refused(tmp_path: Path, name: str) -> None:
    for verb in (
        store.load,
        store.read_plan,
        lambda path: store.append(path, chunk(0)),
        lambda path: store.truncate(path, 0),
        lambda path: store.write_plan(path, {}),
    ):
        with pytest.raises(RolloutError, match="made with --rollout"):
            verb(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_plan_is_replaced_and_damage_is_named(folder: Path) -> None:
    store.write_plan(folder, {"frames": 132, "legs": [{"a": None}]})
    assert store.read_plan(folder) == {"frames": 132, "legs": [{"a": None}]}
    with pytest.raises(RolloutError, match="as JSON"):
        store.write_plan(folder, {"frames": object()})
    with pytest.raises(RolloutError, match="as JSON"):
        store.write_plan(folder, {"frames": float("nan")})
    assert store.read_plan(folder)["frames"] == 132
    (folder / "plan.json").write_text('{"format": "flythrough-plan", "version": 1}')
    with pytest.raises(RolloutError, match=r"plan\.json holds no plan"):
        store.read_plan(folder)


@pytest.mark.parametrize("failing", range(2))
def test_a_full_disk_is_a_fault_that_keeps_the_rollout(
    folder: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    rename, calls = disk.put_in_place, []

    def full(partial: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == failing + 1:
            raise OSError(28, "No space left on device")
        rename(partial, target)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "put_in_place", full)
        with pytest.raises(FaultError, match="No space left"):
            store.append(folder, chunk(2))
    assert not any(disk.is_partial(path) for path in folder.rglob("*"))
    assert store.load(folder).digest() == rollout().digest()
    store.append(folder, chunk(2))
    assert store.load(folder).digest() == rollout(3).digest()


@pytest.mark.parametrize("instant", ["chunk written", "chunk renamed", "manifest written"])
def test_a_process_killed_while_appending_loses_only_that_chunk(folder: Path, instant: str) -> None:
    code = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_store_folder import chunk
from flythrough import disk
from flythrough.rollout import store

rename = disk.put_in_place

def deadly(partial, target):
    manifest = target.name == "rollout.json"
    if manifest == {instant == "manifest written"} and {instant != "chunk renamed"}:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(partial, target)
    os.kill(os.getpid(), signal.SIGKILL) if {instant == "chunk renamed"} else None

disk.put_in_place = deadly
store.append(Path({str(folder)!r}), chunk(2))
"""
    killed = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert len(files(folder)) > 5
    assert store.load(folder).digest() == rollout().digest()
    store.append(folder, chunk(2))
    assert store.load(folder).digest() == rollout(3).digest()
    assert len(files(folder)) == 6
