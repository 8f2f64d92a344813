"""The clips of each renderer: one chunk, there and back, long."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from flythrough.errors import InputError
from flythrough.evaluation.benchmark import Clips
from flythrough.evaluation.renderers.source import RENDERERS, Rendered, renderer
from flythrough.evaluation.truth import Case


def _case(source: str, scene: str, seed: int, path: str, chunks: int = 1) -> Case:
    return Case(seed, scene, path, source, chunks)


_CHUNK = (
    _case("miniworld", "four-rooms", 14, "orbit left 12deg"),
    _case("miniworld", "sidewalk", 12, "forward 0.15"),
    _case("miniworld", "objects", 13, "truck right 0.2"),
    _case("pybullet", "table", 11, "orbit left 12deg"),
    _case("pybullet", "yard", 12, "forward 0.2"),
    _case("pybullet", "shelves", 13, "truck right 0.2"),
    _case("mujoco", "blocks", 11, "orbit left 12deg"),
    _case("mujoco", "clutter", 12, "forward 0.25"),
    _case("mujoco", "pillars", 13, "crane up 0.12"),
    _case("vizdoom", "basic", 12, "orbit left 12deg"),
    _case("vizdoom", "my-way-home", 12, "forward 0.2"),
    _case("vizdoom", "my-way-home", 13, "pan right 20deg"),
)
_LOOP = (
    _case("miniworld", "four-rooms", 14, "pan left 40deg; pan right 40deg", 2),
    _case("pybullet", "yard", 14, "pan right 40deg; pan left 40deg", 2),
    _case("mujoco", "clutter", 14, "pan left 40deg; pan right 40deg", 2),
    _case("vizdoom", "my-way-home", 15, "pan left 45deg; pan right 45deg", 2),
)
_LONG = (
    _case("miniworld", "sidewalk", 16, "forward 0.5"),
    _case("pybullet", "shelves", 16, "orbit right 25deg"),
    _case("mujoco", "blocks", 16, "forward 0.4"),
    _case("vizdoom", "basic", 17, "forward 0.4"),
)


def renderer_clips(names: Sequence[str] | None) -> Clips:
    """The clips of these renderers; of all four for None.

    Raises:
        InputError: an unknown name, none at all, or a package that is not installed.
    """
    chosen = tuple(RENDERERS) if names is None else tuple(dict.fromkeys(names))
    if not chosen:
        raise InputError(f"No renderer was named; choose among {', '.join(RENDERERS)}.")
    for name in chosen:
        renderer(name)

    def of(cases: tuple[Case, ...]) -> tuple[Case, ...]:
        return tuple(case for case in cases if case.source in chosen)

    titles = ", ".join(RENDERERS[name].title for name in RENDERERS if name in chosen)
    return Clips(
        name="renderers",
        title=f"Other renderers: {titles}",
        chunk=of(_CHUNK),
        loop=of(_LOOP),
        long=of(_LONG),
        source=_source,
    )


def _source(case: Case) -> Rendered:
    return _made(case.source)


@cache
def _made(name: str) -> Rendered:
    return Rendered(name)
