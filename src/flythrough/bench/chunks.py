"""Whole chunks through the generators: conditioning, sampling, decoding, frames to the host."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from flythrough.bench.clock import peaks, reset_peak, seconds
from flythrough.bench.sizes import Size
from flythrough.conditioning.warped_history import WarpHistorySettings
from flythrough.engine.ahead import chunks_ahead
from flythrough.engine.presets import PRESETS
from flythrough.generators.base import Generator, SamplerSettings
from flythrough.generators.given_warp import GivenWarp
from flythrough.generators.helios import HeliosGenerator
from flythrough.generators.warp_as_history import WarpAsHistoryGenerator, WarpAsHistorySettings
from flythrough.models.loading import LoadedModel
from flythrough.rollout.chunk import CHUNK_FRAMES, Chunk, ChunkRequest
from flythrough.rollout.rollout import Rollout, Start
from flythrough.rollout.spec import RolloutSpec


@dataclass(frozen=True)
class ChunkWork:
    """What is made.

    Attributes:
        steps: for each stage; the first chunk takes no more than others.
        share: visible share of a given warp; None: no camera.
        realtime: the warp in the mid band, as the realtime preset has it.
        chunks: counted ones, after one to warm up.
        beside: a chunk is decoded while the next is denoised, where the device can.
    """

    steps: tuple[int, ...] = (2, 2, 2)
    share: float | None = None
    realtime: bool = False
    chunks: int = 3
    beside: bool = False


def make_chunks(model: LoadedModel, size: Size, work: ChunkWork) -> tuple[dict[str, Any], Rollout]:
    """Figures of the row, and the rollout: seconds of every chunk, their median as frames a
    second, and medians of the parts that the generator reports."""
    rollout, generator = _start(replace(model, decodes_beside=work.beside), size, work)
    reset_peak(model.device)
    if work.beside:
        return _made_beside(rollout, generator, model, work)
    taken: list[float] = []
    for index in range(work.chunks + 1):
        made: list[Chunk] = []
        request = ChunkRequest(index=index, prompt="random")

        def one(at: Rollout = rollout, asked: ChunkRequest = request) -> None:
            made.append(generator.chunk(at, asked))  # noqa: B023 - run at once

        taken.append(seconds(one, model.device))
        rollout = rollout.appended(made[0])
    return _figures(rollout, statistics.median(taken[1:]), taken, model), rollout


def _made_beside(
    rollout: Rollout, generator: Generator, model: LoadedModel, work: ChunkWork
) -> tuple[dict[str, Any], Rollout]:
    """As the engine makes them: the time of a chunk is that from the first chunk's last frame to
    the last one's, by their number."""
    marks = [time.perf_counter()]

    def keep(chunk: Chunk) -> Rollout:
        nonlocal rollout
        marks.append(time.perf_counter())
        rollout = rollout.appended(chunk)
        return rollout

    def request(at: Rollout) -> ChunkRequest:
        return ChunkRequest(index=len(at.chunks), prompt="random")

    for _ in chunks_ahead(
        generator, rollout, work.chunks + 1, request, keep, lambda *_progress: None
    ):
        pass
    mean = (marks[-1] - marks[1]) / work.chunks
    taken = [after - before for before, after in pairwise(marks)]
    return _figures(rollout, mean, taken, model), rollout


def _figures(
    rollout: Rollout, chunk: float, taken: list[float], model: LoadedModel
) -> dict[str, Any]:
    timings = [made.timings for made in rollout.chunks[1:]]
    parts = {f"{name}_s": statistics.median(t[name] for t in timings) for name in timings[0]}
    return {
        "fps": round(CHUNK_FRAMES / chunk, 3),
        "chunk_s": round(chunk, 4),
        "first_s": round(taken[0], 4),
        "runs_s": [round(value, 4) for value in taken[1:]],
        **{name: round(value, 4) for name, value in parts.items()},
        **peaks(model.device),
    }


def _start(model: LoadedModel, size: Size, work: ChunkWork) -> tuple[Rollout, Generator]:
    spec = RolloutSpec(
        method="helios" if work.share is None else "warp-as-history",
        model="random",
        model_digest="random",
        height=size.height,
        width=size.width,
        fps=24.0,
        seed=7,
        prompt="random",
    )
    sampler = SamplerSettings(
        steps=work.steps, amplify_first_chunk=False, max_sequence_length=size.text_tokens
    )
    if work.share is None:
        return Rollout(spec, None), HeliosGenerator(model, sampler)
    source = np.random.default_rng(5)
    image = source.integers(0, 256, (size.height, size.width, 3), np.uint8)
    frames = CHUNK_FRAMES * (work.chunks + 1)
    warp = source.integers(0, 256, (frames, size.height, size.width, 3), np.uint8)
    mask = np.zeros((frames, size.height, size.width), np.uint8)
    mask[..., : 16 * round(work.share * size.width / 16)] = 255
    preset = PRESETS["realtime"]
    history = WarpHistorySettings()
    if work.realtime:
        history = WarpHistorySettings(threshold=preset.visible_threshold, mode="patch_mid")
    settings = WarpAsHistorySettings(history=history)
    given = GivenWarp(warp, mask, model.device)
    intrinsics = np.array([[size.width, 0, size.width / 2], [0, size.width, size.height / 2]])
    start = Start(image, np.vstack([intrinsics, [0, 0, 1]]))
    return Rollout(spec, start), WarpAsHistoryGenerator(model, sampler, settings, given)


def compilations() -> int:
    """Graphs that torch has compiled in this process."""
    counters = torch._dynamo.utils.counters
    return int(counters["stats"]["unique_graphs"])
