"""The law of the rollout: data in, data out, and nothing lost but the chunk in flight."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rollout_values import chunk_of, field_names, rollouts, same, specs, start_of, words

from flythrough import disk
from flythrough.errors import RolloutError
from flythrough.rollout import store
from flythrough.rollout.rollout import Rollout, Start
from flythrough.rollout.spec import RolloutSpec

few = settings(max_examples=25, deadline=None)
many = settings(max_examples=60, deadline=None)


@contextmanager
def new_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as place:
        yield Path(place) / "run"


@few
@given(rollouts())
def test_saving_then_loading_is_the_identity(rollout: Rollout) -> None:
    with new_folder() as folder:
        store.create(folder, rollout)
        loaded = store.load(folder)
    assert same(loaded, rollout)
    assert loaded.digest() == rollout.digest()


@few
@given(rollouts(min_chunks=1))
def test_appending_on_disk_equals_creating_at_once(rollout: Rollout) -> None:
    with new_folder() as folder:
        store.create(folder, rollout.kept(0))
        for chunk in rollout.chunks:
            store.append(folder, chunk)
        assert same(store.load(folder), rollout)


@many
@given(rollouts(), st.data())
def test_rewinding_is_slicing(rollout: Rollout, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(rollout.chunks)))
    kept = len(rollout.chunks) - count
    rewound = rollout.rewind(count)
    assert rewound.chunks == rollout.chunks[:kept]
    assert rewound.digest() == rollout.kept(kept).digest()
    frames = list(rollout.frames())
    left = list(rewound.frames())
    window = rollout.spec.window
    count = window.first(kept)
    assert rewound.frame_count == count == len(left)
    assert all(np.array_equal(a, b) for a, b in zip(left, frames[:count], strict=True))
    ends = [window.first(index + 1) for index in range(kept)]
    if kept:
        assert np.array_equal(rewound.latents(), rollout.latents()[:, : window.latents * kept])
        assert np.array_equal(rewound.boundary_frames(), np.stack([frames[n - 1] for n in ends]))
        assert np.array_equal(rewound.last_frame(), frames[count - 1])


@few
@given(rollouts(min_chunks=1), st.data())
def test_truncating_on_disk_equals_rewinding(rollout: Rollout, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(rollout.chunks)))
    with new_folder() as folder:
        store.create(folder, rollout)
        store.truncate(folder, len(rollout.chunks) - count)
        assert same(store.load(folder), rollout.rewind(count))
        assert len(list((folder / "chunks").iterdir())) == len(rollout.chunks) - count


@few
@given(rollouts(min_chunks=1))
def test_rewind_then_replay_gives_the_same_rollout(rollout: Rollout) -> None:
    with new_folder() as folder:
        store.create(folder, rollout)
        store.truncate(folder, len(rollout.chunks) - 1)
        store.append(folder, replace(rollout.chunks[-1], timings={"sample": 9.0}))
        assert store.load(folder).digest() == rollout.digest()


@many
@given(rollouts(), st.integers(2000, 3000), words)
def test_a_branch_leaves_its_parent_unchanged(rollout: Rollout, seed: int, prompt: str) -> None:
    before, chunks = rollout.digest(), rollout.chunks
    other = chunk_of(rollout.spec, len(chunks), seed, prompt)
    branch = rollout.appended(other)
    if chunks:
        rollout.rewind(1).appended(chunk_of(rollout.spec, len(chunks) - 1, seed, prompt))
    assert branch.chunks[:-1] == chunks
    assert rollout.chunks is chunks
    assert rollout.digest() == before != branch.digest()
    for array in (branch.chunks[-1].latents, branch.chunks[-1].frames):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


@many
@given(rollouts(), st.integers(0, 6))
def test_appending_out_of_order_is_refused(rollout: Rollout, index: int) -> None:
    chunk = chunk_of(rollout.spec, index, 5)
    if index == len(rollout.chunks):
        assert rollout.appended(chunk).chunks[-1] is chunk
        return
    with pytest.raises(RolloutError, match=f"Chunk {index} "):
        rollout.appended(chunk)
    with new_folder() as folder:
        store.create(folder, rollout)
        with pytest.raises(RolloutError, match=f"Chunk {index} "):
            store.append(folder, chunk)
        assert same(store.load(folder), rollout)


@many
@given(rollouts())
def test_the_digest_of_a_prefix_does_not_depend_on_what_follows(rollout: Rollout) -> None:
    prefixes = [rollout.kept(count).digest() for count in range(len(rollout.chunks) + 1)]
    assert len(set(prefixes)) == len(prefixes)
    rebuilt = rollout.kept(0)
    for chunk, digest in zip(rollout.chunks, prefixes[1:], strict=True):
        rebuilt = rebuilt.appended(chunk)
        assert rebuilt.digest() == digest


@many
@given(specs())
def test_a_specification_survives_its_dictionary(spec: RolloutSpec) -> None:
    again = RolloutSpec.from_dict(spec.to_dict())
    assert again == spec
    assert hash(again) == hash(spec)
    assert again.digest() == spec.digest()


SPEC = RolloutSpec(
    method="helios", model="nano", model_digest="d", height=8, width=16, fps=24.0, seed=1
)
OTHER_SPEC: dict[str, Any] = {
    "method": "warp-as-history",
    "model": "other",
    "model_digest": "e",
    "height": 16,
    "width": 24,
    "fps": 25.0,
    "seed": 2,
    "prompt": "a lake",
    "negative_prompt": "blur",
    "geometry": "flat",
    "lora": "off",
    "settings": {"steps": [2, 2, 2]},
    "start_image": "abc",
}


@pytest.mark.parametrize("name", field_names(SPEC))
def test_the_digest_changes_with_every_field_of_the_specification(name: str) -> None:
    changed = replace(SPEC, **{name: OTHER_SPEC[name]})
    assert changed.digest() != SPEC.digest()
    assert Rollout(changed, None).digest() != Rollout(SPEC, None).digest()


@pytest.mark.parametrize("name", ["image", "intrinsics", "video"])
def test_the_digest_changes_with_every_field_of_the_start(name: str) -> None:
    start, other = start_of(SPEC, 1, video=True), start_of(SPEC, 2, video=True)
    changed: Start = replace(start, **{name: getattr(other, name)})
    assert changed.digest() != start.digest()
    assert Rollout(SPEC, changed).digest() != Rollout(SPEC, start).digest()
    assert Rollout(SPEC, None).digest() != Rollout(SPEC, start).digest()


@pytest.mark.parametrize(
    "change",
    [
        {"index": 1},
        {"prompt": "b"},
        {"warp_digest": "c"},
        {"world_from_camera": chunk_of(SPEC, 0, 2).request.world_from_camera},
        {"intrinsics": chunk_of(SPEC, 0, 2).request.intrinsics},
        {"world_from_camera": None, "intrinsics": None},
    ],
    ids="-".join,
)
def test_the_digest_changes_with_every_field_of_the_request(change: dict[str, Any]) -> None:
    chunk = chunk_of(SPEC, 0, 1)
    changed = replace(chunk, request=replace(chunk.request, **change))
    assert changed.digest() != chunk.digest()


@many
@given(st.integers(0, 16 * 9 * 2 - 1), st.integers(0, 31))
def test_the_digest_changes_with_every_bit_of_the_latents(place: int, bit: int) -> None:
    chunk = chunk_of(SPEC, 0, 1)
    bits = chunk.latents.view(np.uint32).copy()
    bits.reshape(-1)[place] ^= np.uint32(1 << bit)
    latents = bits.view(np.float32)
    if np.isfinite(latents).all():
        assert replace(chunk, latents=latents).digest() != chunk.digest()


class Snapshots:
    """Copies of a folder at every instant at which a process could be killed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.taken = folder, list[Path]()

    def take(self) -> None:
        copy = self.folder.parent / f"instant-{len(self.taken)}"
        if self.folder.exists():
            shutil.copytree(self.folder, copy)
            self.taken.append(copy)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """A copy within every write, and before and after every rename and removal."""
        write, rename, remove = Path.write_bytes, disk.put_in_place, Path.unlink

        def written(path: Path, data: bytes) -> int:
            write(path, data[: len(data) // 2])
            self.take()
            return write(path, data)

        def framed(step: Callable[..., None]) -> Callable[..., None]:
            def stepped(*args: Any, **options: Any) -> None:
                self.take()
                step(*args, **options)
                self.take()

            return stepped

        with (
            mock.patch.object(Path, "write_bytes", written),
            mock.patch.object(disk, "put_in_place", framed(rename)),
            mock.patch.object(Path, "unlink", framed(remove)),
        ):
            yield


def check_instants(snapshots: Snapshots, before: Rollout, after: Rollout) -> None:
    """Every instant loads as the rollout before or after, and can be continued."""
    assert len(snapshots.taken) >= 4
    reached = False
    for copy in snapshots.taken:
        loaded = store.load(copy)
        assert same(loaded, after if same(loaded, after) else before)
        assert not reached or same(loaded, after)
        reached = reached or same(loaded, after)
        next_chunk = chunk_of(loaded.spec, len(loaded.chunks), 77)
        store.append(copy, next_chunk)
        assert same(store.load(copy), loaded.appended(next_chunk))
        assert leftovers(copy) == []
    assert reached


def leftovers(folder: Path) -> list[Path]:
    """Files that no manifest names."""
    named = {folder / entry.file for entry in store.read_manifest(folder).chunks}
    own = {folder / name for name in ("rollout.json", "plan.json", "start.safetensors")}
    return [path for path in folder.rglob("*") if path.is_file() and path not in named | own]


@settings(max_examples=6, deadline=None)
@given(rollouts(max_chunks=2))
def test_a_kill_while_appending_loses_at_most_that_chunk(rollout: Rollout) -> None:
    chunk = chunk_of(rollout.spec, len(rollout.chunks), 77)
    with new_folder() as folder:
        store.create(folder, rollout)
        snapshots = Snapshots(folder)
        with snapshots.watching():
            store.append(folder, chunk)
        check_instants(snapshots, rollout, rollout.appended(chunk))


@settings(max_examples=6, deadline=None)
@given(rollouts(min_chunks=1, max_chunks=3))
def test_a_kill_while_truncating_leaves_the_old_or_the_new(rollout: Rollout) -> None:
    with new_folder() as folder:
        store.create(folder, rollout)
        snapshots = Snapshots(folder)
        with snapshots.watching():
            store.truncate(folder, 0)
        check_instants(snapshots, rollout, rollout.kept(0))


@settings(max_examples=6, deadline=None)
@given(rollouts(max_chunks=2))
def test_a_kill_while_creating_leaves_nothing_or_all(rollout: Rollout) -> None:
    with new_folder() as folder:
        snapshots = Snapshots(folder)
        with snapshots.watching():
            store.create(folder, rollout)
        for copy in snapshots.taken:
            if not (copy / "rollout.json").exists():
                with pytest.raises(RolloutError, match=r"rollout\.json is missing"):
                    store.load(copy)
                store.create(copy, rollout)
            assert same(store.load(copy), rollout)


@few
@given(rollouts(max_chunks=0), st.dictionaries(words, st.lists(words | st.integers())))
def test_a_plan_survives(rollout: Rollout, plan: dict[str, Any]) -> None:
    with new_folder() as folder:
        store.create(folder, rollout)
        store.write_plan(folder, plan)
        assert store.read_plan(folder) == plan
        assert same(store.load(folder), rollout)
