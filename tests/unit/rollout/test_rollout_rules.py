"""What rollout values refuse, and what they derive."""

from __future__ import annotations

import pickle
import struct
from dataclasses import FrozenInstanceError, replace
from hashlib import blake2b
from typing import Any

import numpy as np
import pytest

from flythrough.errors import FaultError, RolloutError
from flythrough.rollout.canonical import digest_of, frozen_array
from flythrough.rollout.chunk import Chunk, ChunkRequest
from flythrough.rollout.rollout import Rollout, Start
from flythrough.rollout.spec import RolloutSpec, Settings

SPEC = RolloutSpec(
    method="warp-as-history",
    model="nano",
    model_digest="d",
    height=16,
    width=24,
    fps=24,
    seed=3,
    settings={"steps": [2, 2, 2], "amplify": True},
)


def request(index: int = 0, cameras: bool = True) -> ChunkRequest:
    if not cameras:
        return ChunkRequest(index)
    poses = np.tile(np.eye(4), (33, 1, 1))
    poses[:, 2, 3] = np.arange(33) + 33 * index
    return ChunkRequest(index, "a lake", poses, np.tile(np.eye(3), (33, 1, 1)))


def chunk(index: int = 0, cameras: bool = True) -> Chunk:
    latents = np.full((16, 9, 2, 3), index, np.float32)
    frames = np.full((33, 16, 24, 3), index, np.uint8)
    frames[:] += np.arange(33, dtype=np.uint8)[:, None, None, None]
    return Chunk(request(index, cameras), latents, frames, {"sample": 1})


def start() -> Start:
    return Start(np.full((16, 24, 3), 200, np.uint8), np.diag([20.0, 20.0, 1.0]))


@pytest.mark.parametrize(
    "change",
    [
        {"method": "magic"},
        {"height": 0},
        {"width": -8},
        {"height": 16.0},
        {"seed": -1},
        {"seed": 2**63},
        {"seed": True},
        {"fps": 0},
        {"fps": float("nan")},
        {"fps": "24"},
        {"prompt": None},
        {"settings": {"a": float("inf")}},
        {"settings": {"a": {"b": 1}}},
        {"settings": {"a": np.zeros(2)}},
        {"settings": {1: 2}},
    ],
    ids=str,
)
def test_a_specification_out_of_range_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(RolloutError) as caught:
        replace(SPEC, **change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [{"extra": 1}, {"seed": None}, {"method": None}])
def test_a_dictionary_with_other_fields_is_refused(change: dict[str, Any]) -> None:
    data = SPEC.to_dict() | change
    with pytest.raises(RolloutError):
        RolloutSpec.from_dict(data)
    del data[next(iter(change))]
    if "extra" not in change:
        with pytest.raises(RolloutError, match="lacks the field"):
            RolloutSpec.from_dict(data)


def test_settings_are_frozen_sorted_hashable_and_picklable() -> None:
    values = {"b": [1, [2]], "a": 1}
    frozen = Settings(values)
    values["a"] = 2
    assert list(frozen) == ["a", "b"]
    assert frozen["b"] == (1, (2,))
    assert frozen == Settings({"a": 1, "b": (1, (2,))})
    assert hash(frozen) == hash(Settings(dict(frozen)))
    assert pickle.loads(pickle.dumps(frozen)) == frozen
    assert frozen.to_dict() == {"a": 1, "b": [1, [2]]}
    with pytest.raises(TypeError):
        frozen["a"] = 3  # type: ignore[index]


def test_specifications_are_values() -> None:
    assert replace(SPEC, settings={"amplify": True, "steps": (2, 2, 2)}) == SPEC
    assert len({SPEC, replace(SPEC), replace(SPEC, seed=4)}) == 2
    with pytest.raises(FrozenInstanceError):
        SPEC.seed = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    "change",
    [
        {"index": -1},
        {"intrinsics": None},
        {"world_from_camera": None},
        {"world_from_camera": np.zeros((32, 4, 4))},
        {"world_from_camera": np.zeros((33, 4, 4), np.float32)},
        {"world_from_camera": np.full((33, 4, 4), np.nan)},
        {"intrinsics": np.zeros((33, 4, 4))},
    ],
    ids="-".join,
)
def test_a_bad_request_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(RolloutError):
        replace(request(), **change)


@pytest.mark.parametrize(
    "change",
    [
        {"latents": np.zeros((16, 9, 2, 3))},
        {"latents": np.zeros((16, 8, 2, 3), np.float32)},
        {"latents": np.zeros((16, 9, 0, 3), np.float32)},
        {"latents": np.zeros((1, 16, 9, 2, 3), np.float32)},
        {"frames": np.zeros((33, 16, 24, 3), np.float32)},
        {"frames": np.zeros((32, 16, 24, 3), np.uint8)},
        {"frames": np.zeros((33, 3, 16, 24), np.uint8)},
    ],
)
def test_a_chunk_of_the_wrong_shape_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(RolloutError, match="must be"):
        replace(chunk(), **change)


def test_latents_that_are_not_finite_are_a_fault() -> None:
    latents = np.zeros((16, 9, 2, 3), np.float32)
    latents[3, 4, 1, 1] = np.nan
    with pytest.raises(FaultError, match="chunk 0"):
        replace(chunk(), latents=latents)


@pytest.mark.parametrize(
    "change",
    [
        {"image": np.zeros((16, 24), np.uint8)},
        {"image": np.zeros((16, 24, 3))},
        {"intrinsics": np.eye(4)},
        {"intrinsics": np.full((3, 3), np.inf)},
        {"video": np.zeros((2, 16, 25, 3), np.uint8)},
        {"video": np.zeros((0, 16, 24, 3), np.uint8)},
    ],
)
def test_a_bad_start_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(RolloutError):
        replace(start(), **change)


def test_writing_to_the_arrays_given_changes_nothing() -> None:
    latents, frames = np.zeros((16, 9, 2, 3), np.float32), np.zeros((33, 16, 24, 3), np.uint8)
    shown = frames[:]
    shown.setflags(write=False)
    made = Chunk(request(), latents, shown)
    latents[:] = 1
    frames[:] = 1
    assert made.latents.max() == 0
    assert made.frames.max() == 0


def test_replacing_a_record_copies_no_arrays() -> None:
    first = chunk()
    second = replace(first, timings={"sample": 2})
    assert second.frames is first.frames
    assert second.latents is first.latents
    assert second.digest() == first.digest()


def test_sizes_must_agree() -> None:
    with pytest.raises(RolloutError, match="16x24 but the rollout is 16x32"):
        Rollout(replace(SPEC, width=32), start())
    with pytest.raises(RolloutError, match="16x24 but the rollout is 16x32"):
        Rollout(replace(SPEC, width=32), None).appended(chunk())
    one = Rollout(SPEC, None).appended(chunk())
    odd = replace(chunk(1), latents=np.zeros((16, 9, 4, 6), np.float32))
    with pytest.raises(RolloutError, match="latents of chunk 1"):
        one.appended(odd)


def test_what_an_empty_rollout_derives() -> None:
    prompted, photo = Rollout(SPEC, None), Rollout(SPEC, start())
    assert prompted.last_frame() is None
    assert prompted.last_camera() is None
    assert prompted.latents().shape == (16, 0, 0, 0)
    assert prompted.boundary_frames().shape == (0, 16, 24, 3)
    assert list(prompted.frames()) == []
    frame, camera = photo.last_frame(), photo.last_camera()
    assert frame is not None
    assert frame[0, 0, 0] == 200
    assert camera is not None
    assert np.array_equal(camera[0], np.eye(4))
    assert np.array_equal(camera[1], start().intrinsics)
    video = replace(start(), video=np.full((2, 16, 24, 3), 9, np.uint8))
    last = Rollout(SPEC, video).last_frame()
    assert last is not None
    assert last[0, 0, 0] == 9


def test_what_a_rollout_derives() -> None:
    rollout = Rollout(SPEC, start()).appended(chunk(0)).appended(chunk(1))
    assert rollout.frame_count == 66
    assert [int(frame[0, 0, 0]) for frame in rollout.frames()] == [*range(33), *range(1, 34)]
    assert rollout.latents().shape == (16, 18, 2, 3)
    assert rollout.latents()[0, :, 0, 0].tolist() == [0] * 9 + [1] * 9
    assert rollout.boundary_frames()[:, 0, 0, 0].tolist() == [32, 33]
    cameras, camera = rollout.cameras(), rollout.last_camera()
    assert cameras is not None
    assert cameras[0][:, 2, 3].tolist() == list(range(66))
    assert cameras[1].shape == (66, 3, 3)
    assert camera is not None
    assert camera[0][2, 3] == 65
    free = rollout.appended(chunk(2, cameras=False))
    assert free.cameras() is None
    assert free.last_camera() is None


@pytest.mark.parametrize("count", [-1, 3, 100])
def test_rewinding_out_of_range_is_refused(count: int) -> None:
    rollout = Rollout(SPEC, start()).appended(chunk(0)).appended(chunk(1))
    for verb, word in ((rollout.rewind, "rewind"), (rollout.kept, "keep")):
        with pytest.raises(RolloutError, match=f"Cannot {word} {count} chunks.*give 0 to 2"):
            verb(count)


def test_digests_separate_parts_kinds_and_shapes() -> None:
    values = [
        digest_of("ab", "c"),
        digest_of("a", "bc"),
        digest_of("abc"),
        digest_of(b"abc"),
        digest_of("abc", None),
        digest_of(np.zeros((2, 3))),
        digest_of(np.zeros((3, 2))),
        digest_of(np.zeros((2, 3), np.int64)),
    ]
    assert len(set(values)) == len(values)
    array = np.arange(6.0).reshape(2, 3)
    assert digest_of(array.T) == digest_of(np.ascontiguousarray(array.T))
    assert digest_of(array.astype(">f8")) == digest_of(array)


def test_the_bytes_behind_a_digest_are_fixed() -> None:
    """Stored rollouts name their files by digest, so its recipe is part of the file format."""
    written = b"str:4;spec" + b"array:float32:[3];" + struct.pack("<3f", 0, 1, 2) + b"none;"
    expected = blake2b(written, digest_size=16).hexdigest()
    assert digest_of("spec", np.arange(3, dtype=np.float32), None) == expected


def test_frozen_arrays_are_not_copied_twice() -> None:
    array = frozen_array(np.zeros(3), np.float64, (3,), "It")
    assert frozen_array(array, np.float64, (3,), "It") is array
