"""Chunks whose frames come later: kept in order, as soon as they are there, whatever goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest

from flythrough.engine.ahead import chunks_ahead
from flythrough.generators.base import Report
from flythrough.generators.unfinished import Unfinished, unfinished
from flythrough.rollout.chunk import Chunk, ChunkRequest
from flythrough.rollout.rollout import Rollout
from flythrough.rollout.spec import RolloutSpec

HEIGHT, WIDTH, COUNT = 64, 64, 4


@dataclass
class Later:
    """Frames that are there once somebody waited, or when ``early`` says so."""

    number: int
    early: bool
    waited: list[int]

    def ready(self) -> bool:
        return self.early

    def wait(self) -> tuple[np.ndarray, float]:
        self.waited.append(self.number)
        return np.full((33, HEIGHT, WIDTH, 3), self.number + 1, np.uint8), 0.5


@dataclass
class Fake:
    """Latents at once, frames later. ``fails`` at a chunk; ``early`` are chunks whose frames are
    there when the next one reports for the first time."""

    early: tuple[int, ...] = ()
    fails: int | None = None
    at_once: bool = False
    waited: list[int] = field(default_factory=list)
    frames: dict[int, Later] = field(default_factory=dict)

    def begin(self, rollout: Rollout, request: ChunkRequest, report: Report) -> Unfinished:
        index = len(rollout.chunks)
        assert request.index == index
        if index - 1 in self.early:
            self.frames[index - 1].early = True
        report("denoise", 0.5)
        if index == self.fails:
            raise KeyboardInterrupt
        latents = np.full((16, 9, HEIGHT // 8, WIDTH // 8), index, np.float32)
        later = self.frames[index] = Later(index, self.at_once, self.waited)
        return unfinished(request, latents, (HEIGHT, WIDTH), {"sample": 1.0}, lambda: later)

    def chunk(self, rollout: Rollout, request: ChunkRequest, report: Report) -> Chunk:
        return self.begin(rollout, request, report).finished()


class Alone(Fake):
    """A method that has whole chunks only."""

    begin = None  # type: ignore[assignment]

    def chunk(self, rollout: Rollout, request: ChunkRequest, report: Report) -> Chunk:
        return Fake.begin(self, rollout, request, report).finished()


class Keeper:
    """Notes what was kept and reported, in order."""

    def __init__(self) -> None:
        spec = RolloutSpec(
            method="helios", model="m", model_digest="d", height=HEIGHT, width=WIDTH, fps=16, seed=3
        )
        self.rollout = Rollout(spec, None)
        self.told: list[str] = []

    def keep(self, chunk: Chunk) -> Rollout:
        assert (chunk.frames == chunk.request.index + 1).all()  # never the stand-in
        self.told.append(f"kept {chunk.request.index}")
        self.rollout = self.rollout.appended(chunk)
        return self.rollout

    def progress(self, index: int, label: str, share: float) -> None:
        del share
        self.told.append(f"{label} {index}")

    def run(self, generator: Fake) -> Iterator[Rollout]:
        return chunks_ahead(
            generator,
            self.rollout,
            COUNT,
            lambda rollout: ChunkRequest(len(rollout.chunks)),
            self.keep,
            self.progress,
        )


def alternating() -> list[str]:
    return [text for n in range(COUNT) for text in (f"denoise {n}", f"kept {n}")]


@pytest.mark.parametrize("fake", [Fake(at_once=True), Alone()])
def test_a_chunk_that_is_there_is_kept_before_the_next_begins(fake: Fake) -> None:
    keeper = Keeper()
    counts = [len(rollout.chunks) for rollout in keeper.run(fake)]
    assert counts == [1, 2, 3, 4]
    assert keeper.told == alternating()


def test_frames_that_come_late_are_kept_after_the_next_was_sampled() -> None:
    keeper, fake = Keeper(), Fake()
    found = list(keeper.run(fake))
    assert [len(rollout.chunks) for rollout in found] == [1, 2, 3, 4]
    assert keeper.told[:3] == ["denoise 0", "denoise 1", "kept 0"]
    assert fake.waited == [0, 1, 2, 3]
    plain = Keeper()
    last = list(plain.run(Alone()))[-1]
    assert found[-1].digest() == last.digest()
    for ours, wanted in zip(found[-1].chunks, last.chunks, strict=True):
        np.testing.assert_array_equal(ours.frames, wanted.frames)
        assert ours.timings == {"sample": 1.0, "decode": 0.5}


def test_frames_that_are_seen_at_a_report_are_kept_there() -> None:
    keeper = Keeper()
    list(keeper.run(Fake(early=(0, 1, 2))))
    assert keeper.told[:3] == ["denoise 0", "kept 0", "denoise 1"]
    assert keeper.told[-1] == "kept 3"


def test_an_interruption_loses_the_chunk_in_flight_alone() -> None:
    keeper = Keeper()
    with pytest.raises(KeyboardInterrupt):
        list(keeper.run(Fake(fails=2)))
    assert [text for text in keeper.told if text.startswith("kept")] == ["kept 0", "kept 1"]


@pytest.mark.parametrize("last", [False, True])
def test_an_interruption_while_frames_are_awaited_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, last: bool
) -> None:
    """Of the second chunk while the third is there, or of the last one."""
    keeper, fake, stopped = Keeper(), Fake(), COUNT - 1 if last else 1
    wait = Later.wait

    def interrupted(later: Later) -> tuple[np.ndarray, float]:
        first = later.number not in later.waited
        found = wait(later)
        if first and later.number == stopped:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(Later, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(keeper.run(fake))
    kept = [text for text in keeper.told if text.startswith("kept")]
    assert kept == [f"kept {n}" for n in range(min(stopped + 2, COUNT))]


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_stops_the_keeping_of_a_chunk(error: type[BaseException], stored: bool) -> None:
    """Interrupted before it is stored it is stored after all; a callback may fail after that. The
    chunk after it is kept wherever it can be."""
    keeper, stops = Keeper(), [error]

    def keep(chunk: Chunk) -> Rollout:
        if stored:
            keeper.keep(chunk)  # refuses a chunk that is not the next one
        if stops and chunk.request.index == 1:
            raise stops.pop()
        return keeper.rollout if stored else keeper.keep(chunk)

    run = chunks_ahead(
        Fake(),
        keeper.rollout,
        COUNT,
        lambda rollout: ChunkRequest(len(rollout.chunks)),
        keep,
        keeper.progress,
    )
    with pytest.raises(error):
        list(run)
    found = [chunk.request.index for chunk in keeper.rollout.chunks]
    assert found == ([0] if error is ValueError and not stored else [0, 1, 2])


def test_a_disk_that_is_full_is_told_once() -> None:
    keeper = Keeper()

    def full(chunk: Chunk) -> Rollout:
        keeper.told.append(f"tried {chunk.request.index}")
        raise OSError("no space")

    run = chunks_ahead(
        Fake(early=(0,)),
        keeper.rollout,
        COUNT,
        lambda rollout: ChunkRequest(len(rollout.chunks)),
        full,
        keeper.progress,
    )
    with pytest.raises(OSError, match="no space"):
        list(run)
    assert keeper.told == ["denoise 0", "tried 0"]


def test_who_stops_asking_has_what_was_given() -> None:
    keeper = Keeper()
    steps = keeper.run(Fake())
    assert len(next(steps).chunks) == 1
    steps.close()
    assert [text for text in keeper.told if text.startswith("kept")] == ["kept 0"]
