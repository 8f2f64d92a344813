"""Tiny rollouts for the laws: everything that a rollout can vary in, and how to build one."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from hypothesis import strategies as st

from flythrough.rollout.chunk import Chunk, ChunkRequest
from flythrough.rollout.rollout import Rollout, Start
from flythrough.rollout.spec import RolloutSpec

LATENT_FACTOR = 8

words = st.text(max_size=12)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**60), 2**60),
    st.floats(allow_nan=False, allow_infinity=False),
    words,
)
settings_values = st.dictionaries(words, st.one_of(scalars, st.lists(scalars, max_size=3)))


@st.composite
def specs(draw: st.DrawFn) -> RolloutSpec:
    method = draw(st.sampled_from(["helios", "warp-as-history", "worldwarp"]))
    settings = draw(settings_values)
    if method == "worldwarp":
        settings |= {"chunk_frames": 9, "overlap": draw(st.sampled_from([1, 5]))}
    return RolloutSpec(
        method=method,
        model=draw(words),
        model_digest=draw(words),
        height=LATENT_FACTOR * draw(st.integers(1, 2)),
        width=LATENT_FACTOR * draw(st.integers(1, 2)),
        fps=draw(st.floats(0.5, 120)),
        seed=draw(st.integers(0, 2**63 - 1)),
        prompt=draw(words),
        negative_prompt=draw(words),
        geometry=draw(words),
        lora=draw(words),
        settings=settings,
        start_image=draw(st.none() | words),
    )


def start_of(spec: RolloutSpec, seed: int, video: bool) -> Start:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (*spec.size, 3), dtype=np.uint8)
    clip = rng.integers(0, 256, (3, *spec.size, 3), dtype=np.uint8) if video else None
    return Start(image, rng.normal(size=(3, 3)), clip)


def chunk_of(
    spec: RolloutSpec, index: int, seed: int, prompt: str = "", cameras: bool = True
) -> Chunk:
    """A chunk of noise; equal arguments give equal chunks."""
    rng = np.random.default_rng([seed, index])
    height, width = spec.size
    window = spec.window
    count = window.shown(index)
    return Chunk(
        request=ChunkRequest(
            index=index,
            prompt=prompt,
            world_from_camera=rng.normal(size=(count, 4, 4)) if cameras else None,
            intrinsics=rng.normal(size=(count, 3, 3)) if cameras else None,
            warp_digest=None if cameras else f"{seed:x}",
            window=window,
        ),
        latents=rng.standard_normal(
            (16, window.latents, height // LATENT_FACTOR, width // LATENT_FACTOR), dtype=np.float32
        ),
        frames=rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8),
        timings={"sample": float(rng.random()), "decode": 0.25},
    )


@st.composite
def rollouts(draw: st.DrawFn, min_chunks: int = 0, max_chunks: int = 3) -> Rollout:
    spec = draw(specs())
    kind = draw(st.sampled_from(["prompt", "photo", "video"]))
    seed = draw(st.integers(0, 1000))
    start = None if kind == "prompt" else start_of(spec, seed, kind == "video")
    count = draw(st.integers(min_chunks, max_chunks))
    chunks = tuple(
        chunk_of(spec, index, seed, draw(words), draw(st.booleans())) for index in range(count)
    )
    return Rollout(spec, start, chunks)


def same(first: Rollout, second: Rollout) -> bool:
    """Equality of every stored value, not only of digests."""
    if first.spec != second.spec or len(first.chunks) != len(second.chunks):
        return False
    if (first.start is None) != (second.start is None):
        return False
    pairs: list[tuple[object, object]] = []
    if first.start is not None and second.start is not None:
        pairs += [
            (getattr(first.start, n), getattr(second.start, n)) for n in field_names(first.start)
        ]
    for one, other in zip(first.chunks, second.chunks, strict=True):
        pairs += [(getattr(one, name), getattr(other, name)) for name in ("latents", "frames")]
        pairs += [(dict(one.timings), dict(other.timings))]
        pairs += [
            (getattr(one.request, n), getattr(other.request, n)) for n in field_names(one.request)
        ]
    return all(_equal(one, other) for one, other in pairs)


def field_names(value: Any) -> tuple[str, ...]:
    """Names of the fields of a frozen value."""
    return tuple(field.name for field in fields(value))


def _equal(one: object, other: object) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return type(one) is type(other) and one == other
