"""Random worlds: a pure function from a seed (and a kind) to a scene."""

from __future__ import annotations

from collections.abc import Callable

from flythrough.errors import InputError
from flythrough.seeds import fold
from flythrough.worlds import galleries, lands, rooms, streets
from flythrough.worlds.world import World

_MAKERS: dict[str, Callable[[int], World]] = {
    "room": rooms.room,
    "street": streets.street,
    "gallery": galleries.gallery,
    "terrain": lands.terrain,
    "yard": lands.yard,
    "table": rooms.table,
}
KINDS = tuple(_MAKERS)


def random_world(seed: int, kind: str | None = None) -> World:
    """The world of ``seed``; its kind is drawn from the seed unless given.

    The scene stands in metres before ``World.world_from_camera``, a level view at eye height that
    is inside nothing and sees a median depth of 2 to 15 m. Raises InputError for an unknown kind.
    """
    if kind is None:
        kind = KINDS[fold(seed, "kind") % len(KINDS)]
    if kind not in _MAKERS:
        raise InputError(
            f"the kind of world is {kind!r}, but it must be one of {', '.join(KINDS)}; choose one."
        )
    return _MAKERS[kind](seed)
