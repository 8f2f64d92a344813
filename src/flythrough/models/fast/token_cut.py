"""Who computes which tokens when several GPUs share one call of the denoiser."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenCut:
    """A sequence of ``past`` history tokens and ``now`` noisy ones, cut for ``ranks`` processes.

    Every rank gets ``share`` tokens, the last ones fewer where the total is no multiple, and of
    either part its share to within one token, because noisy tokens cost more: they read the prompt.
    Laid side by side in the order of ranks, all tokens that exist come first, so that keys of every
    rank can be read as one sequence without a mask.
    """

    past: int
    now: int
    ranks: int

    @property
    def total(self) -> int:
        return self.past + self.now

    @property
    def share(self) -> int:
        """Tokens a rank sends, those that only fill up included."""
        return max(1, -(-self.total // self.ranks))

    @property
    def rows(self) -> int:
        """Tokens a rank computes: one more where a rank would be left without a noisy token, so
        that no product is ever empty."""
        lacks = any(self.tail(rank) == 0 for rank in range(self.ranks))
        return self.share + int(lacks)

    def _begin(self, rank: int) -> tuple[int, int]:
        """First history and first noisy token of a rank."""
        before = min(self.total, rank * self.share)
        noisy = self.now * before // max(1, self.total)
        return before - noisy, noisy

    def history(self, rank: int) -> range:
        """History tokens of a rank, in the joined sequence."""
        return range(self._begin(rank)[0], self._begin(rank + 1)[0])

    def noisy(self, rank: int) -> range:
        """Noisy tokens of a rank, in the joined sequence."""
        begin, end = self._begin(rank)[1], self._begin(rank + 1)[1]
        return range(self.past + begin, self.past + end)

    def tail(self, rank: int) -> int:
        """Tokens of a rank's share behind its history: noisy ones and fillers."""
        return self.share - len(self.history(rank))

    @property
    def longest_tail(self) -> int:
        """The largest number of noisy tokens of a rank, fillers included."""
        return self.rows - min(len(self.history(rank)) for rank in range(self.ranks))

    def own(self, rank: int, device: torch.device) -> Tensor:
        """Positions [rows] in the joined sequence of what a rank computes; fillers repeat the last
        token."""
        found = [*self.history(rank), *self.noisy(rank)]
        found += [self.total - 1] * (self.rows - len(found))
        return torch.tensor(found, device=device)

    def order(self, device: torch.device) -> Tensor:
        """Position in the joined sequence of each token as gathered from all ranks, [total]."""
        found = [i for rank in range(self.ranks) for i in (*self.history(rank), *self.noisy(rank))]
        return torch.tensor(found, device=device)
