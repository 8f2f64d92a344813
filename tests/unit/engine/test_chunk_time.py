"""How the work that generators report lies in a chunk's time."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from flythrough.engine.chunk_time import ChunkTime


@pytest.mark.parametrize("steps", [(2, 2, 2), (20,), (1, 1, 1), (5, 0, 3)])
@pytest.mark.parametrize("index", [0, 1, 7])
def test_time_runs_with_the_work(steps: tuple[int, ...], index: int) -> None:
    time = ChunkTime(steps, doubled=True)
    parts = [time.part(index, share) for share in np.linspace(0, 1, 101)]
    assert parts[0] == 0
    assert parts[-1] == 1
    assert all(after > before for before, after in pairwise(parts))


def test_the_last_stage_of_a_pyramid_takes_most_of_the_time() -> None:
    time = ChunkTime((2, 2, 2))
    first, last = (time.part(1, b) - time.part(1, a) for a, b in ((0.15, 0.4), (0.65, 0.9)))
    assert last > 2 * first


def test_twice_the_steps_make_the_first_chunk_longer() -> None:
    assert ChunkTime((2, 2, 2)).first == 1
    assert 1.3 < ChunkTime((2, 2, 2), doubled=True).first < 2
