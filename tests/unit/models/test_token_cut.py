"""Every token has one owner, existing tokens come first, and both parts are shared evenly."""

from __future__ import annotations

import pytest
import torch

from flythrough.models.fast.token_cut import TokenCut

CPU = torch.device("cpu")


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize(
    ("past", "now"),
    [(2400, 540), (2400, 8640), (0, 540), (2399, 541), (7, 1), (0, 1), (1, 2), (5, 3), (100, 2)],
)
def test_cut(past: int, now: int, ranks: int) -> None:
    cut = TokenCut(past, now, ranks)
    order = cut.order(CPU)
    assert sorted(order.tolist()) == list(range(past + now))
    begin = 0
    for rank in range(ranks):
        history, noisy = cut.history(rank), cut.noisy(rank)
        own = cut.own(rank, CPU)
        count = len(history) + len(noisy)
        assert own.tolist()[:count] == [*history, *noisy]
        assert len(own) == cut.rows
        assert cut.share <= cut.rows <= cut.share + 1
        assert order[begin : begin + count].tolist() == own.tolist()[:count]
        begin += count
        after = cut.total - begin
        assert count == cut.share or after == 0  # fillers lie at the very end
        assert 0 < cut.rows - len(history) <= cut.longest_tail
        if count == cut.share:
            assert abs(len(noisy) - now * cut.share / cut.total) < 1
