"""Chunk after chunk, each kept as soon as its frames are there, perhaps while the next is denoised.

Where a method needs the frames of one chunk for the next, or a device decodes at once, this is the
plain loop: a chunk is kept before the next begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

from flythrough.generators.base import Generator
from flythrough.generators.unfinished import Unfinished, begin
from flythrough.rollout.chunk import Chunk, ChunkRequest
from flythrough.rollout.rollout import Rollout


class _Newest:
    """The chunk whose frames are on the way, until it is kept."""

    def __init__(self, chunk: Unfinished, keep: Callable[[Chunk], Rollout]) -> None:
        self._chunk, self._keep = chunk, keep
        self._kept: Rollout | None = None
        self.failed = False

    def kept(self) -> Rollout:
        """The rollout with the chunk; waits for its frames."""
        if self._kept is None:
            try:
                self._kept = self._keep(self._chunk.finished())
            except Exception:  # a full disk stays full; who was interrupted may try again
                self.failed = True
                raise
        return self._kept

    def ready(self) -> bool:
        return self._kept is not None or self._chunk.ready()


def chunks_ahead(
    generator: Generator,
    rollout: Rollout,
    count: int,
    request: Callable[[Rollout], ChunkRequest],
    keep: Callable[[Chunk], Rollout],
    progress: Callable[[int, str, float], None],
) -> Iterator[Rollout]:
    """Yields the rollout after each chunk, until it has ``count``.

    Args:
        request: of the chunk after a rollout, whose newest frames may be missing.
        keep: stores a finished chunk and returns the rollout with it.
        progress: called with the chunk index, a label and the finished share.

    A chunk is kept at the first report of the next one that finds its frames, at the latest before
    the one after is begun. If the next one fails or is interrupted, it is kept before that is
    raised. If keeping it is interrupted, it and the next one are kept before that is raised. A
    caller that stops asking loses the chunk that was begun.
    """
    newest: _Newest | None = None
    ahead = rollout
    while len(ahead.chunks) < count:
        index, before = len(ahead.chunks), newest

        def report(
            label: str, share: float, index: int = index, before: _Newest | None = before
        ) -> None:
            if before is not None and before.ready():
                before.kept()
            progress(index, label, share)

        try:
            begun = begin(generator, ahead, request(ahead), report)
        except BaseException:
            if before is not None:
                _keep_rest(before)
            raise
        newest = _Newest(begun, keep)
        if before is not None:
            rollout = _kept(before, newest)
            yield rollout
        ahead = rollout.appended(begun.sampled)
        if newest.ready():
            ahead = rollout = _kept(newest)
            newest = None
            yield rollout
    if newest is not None:
        yield _kept(newest)


def _kept(first: _Newest, *later: _Newest) -> Rollout:
    """The rollout with ``first``; if that goes wrong, what can still be kept is, oldest first."""
    try:
        return first.kept()
    except BaseException:
        _keep_rest(first, *later)
        raise


def _keep_rest(*chunks: _Newest) -> None:
    for chunk in chunks:
        if not chunk.failed:
            with suppress(Exception):  # what went wrong first is what is told
                chunk.kept()
