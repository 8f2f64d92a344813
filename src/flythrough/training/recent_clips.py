"""A store of recent clips whose content is a function of the step.

Rendering and encoding cost more than a step, so every refill serves many steps. What the store
holds at a step follows from the step alone: the last refills up to it, each in a place of its own.
A run that starts in the middle makes those again and so draws the clips of an unbroken one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic

from flythrough.errors import InputError
from flythrough.training.latents import Clips, LatentStore, Storable

_WARM_UP = 10_000_000


class RecentClips(Generic[Clips]):
    """The newest clips of a source at every step.

    Args:
        refill: (number, rank) -> freshly encoded clips, always as many, a function of both numbers;
            refill ``n`` enters at step ``n * every``.
        make: builds a batch from its tensors by name.
        capacity: clips kept, rounded to whole refills.
        every: steps between refills.
        least: clips that must be there from the first step on; what is missing comes from refills
            of numbers that no step reaches.

    Raises:
        InputError: a count below 1; from :meth:`at`, a refill that is not as long as the others.
    """

    def __init__(
        self,
        refill: Callable[[int, int], Clips],
        make: Callable[..., Clips],
        *,
        capacity: int,
        every: int,
        least: int,
    ) -> None:
        if min(capacity, every, least) < 1:
            raise InputError(
                f"a store of {capacity} clips refilled every {every} steps for batches of {least} "
                "cannot work; give counts of at least 1"
            )
        self._refill, self._make = refill, make
        self._capacity, self._every, self._least = capacity, every, least
        self._rank = 0
        self._each = 0
        self._made = 0
        self._store = LatentStore(0, make)

    def at(self, step: int, rank: int) -> LatentStore[Clips]:
        """The store as it is at ``step`` of process ``rank``; what it lacks is made now."""
        newest = step // self._every
        ready: dict[int, Clips] = {}
        if self._each == 0:
            ready[newest] = self._refill(newest, rank)
            self._each = _count(ready[newest])
        ahead = -(-self._least // self._each) - 1
        slots = max(ahead + 1, self._capacity // self._each)
        wanted = ahead + newest + 1
        if wanted < self._made or rank != self._rank or self._store.capacity == 0:
            self._store = LatentStore(slots * self._each, self._make)
            self._made, self._rank = 0, rank
        for turn in range(max(self._made, wanted - slots), wanted):
            number = turn - ahead if turn >= ahead else _WARM_UP + 1 + turn
            clips = ready[number] if number in ready else self._refill(number, rank)
            if _count(clips) != self._each:
                raise InputError(
                    f"Refill {number} has {_count(clips)} clips where others have {self._each}, so "
                    "a resumed run would not repeat this one; give refills of one length."
                )
            self._store.add(clips, turn % slots * self._each)
        self._made = wanted
        return self._store


def _count(clips: Storable) -> int:
    return len(next(iter(clips.fields().values())))
