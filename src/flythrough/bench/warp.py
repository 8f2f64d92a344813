"""``flythrough bench warp``: what a chunk's conditioning costs, part by part and as a whole.

Geometry, meshes, rendering, background, choice of keyframes and tokens, encoding, and how often the
host waits for the device on the way; then the time from a camera command to the new frames with the
realtime preset.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from flythrough.bench.clock import host_waits, median_seconds, peaks, reset_peak, seconds
from flythrough.bench.random_model import add_random_adapter, random_denoiser, random_model
from flythrough.bench.rows import Figures
from flythrough.bench.suites import Bench
from flythrough.bench.warp_scene import SceneGeometry, random_pi3x, request, rollout
from flythrough.conditioning.visibility import visibility_to_latent
from flythrough.conditioning.warped_history import WarpHistorySettings, warped_history
from flythrough.engine.presets import PRESETS
from flythrough.generators.base import SamplerSettings
from flythrough.generators.keyframes import KeyframeMemory
from flythrough.generators.warp_as_history import WarpAsHistoryGenerator, WarpAsHistorySettings
from flythrough.geometry.align import depth_scale
from flythrough.models.fast.denoiser import FastDenoiser
from flythrough.models.fast.settings import FastSettings
from flythrough.models.helios import HeliosTransformer
from flythrough.models.loading import LoadedModel
from flythrough.models.pi3x import Pi3X
from flythrough.rollout.chunk import CHUNK_FRAMES, Chunk, ChunkRequest
from flythrough.rollout.rollout import Rollout
from flythrough.scene.atlas import background_atlas
from flythrough.scene.keyframe_choice import most_added
from flythrough.scene.mesh_memory import MeshMemory, over_atlas
from flythrough.scene.rendered import RenderedView
from flythrough.scene.settings import WarpSettings
from flythrough.scene.surface import Keyframe, mesh_of

FULL = WarpSettings()
LIVE = WarpSettings(samples_per_axis=PRESETS["realtime"].samples_per_axis)
_POOL = 16


@dataclass(frozen=True, eq=False)
class Material:
    """Keyframes [K] of the scene and the cameras of a chunk that goes on from the newest."""

    keyframes: tuple[Keyframe, ...]
    cameras: Tensor
    intrinsics: Tensor

    def drawn(self) -> tuple[Keyframe, ...]:
        """As many as a later chunk draws: the photo, one between, the newest."""
        return (self.keyframes[0], self.keyframes[-2], self.keyframes[-1])


def material(bench: Bench, count: int = 3) -> Material:
    """``count`` keyframes half a chunk apart, on the device."""
    size, device = bench.size, bench.device
    asked = request(size, 0)
    assert asked.world_from_camera is not None
    assert asked.intrinsics is not None
    poses = torch.from_numpy(asked.world_from_camera.copy()).float().to(device)
    matrices = torch.from_numpy(asked.intrinsics.copy()).float().to(device)
    torch.manual_seed(6)
    keyframes = []
    for number in range(count):
        image = torch.rand(3, size.height, size.width, device=device)
        found = SceneGeometry(None).estimate(image[None], intrinsics=matrices[:1])
        at = min(number, CHUNK_FRAMES - 1)
        keyframes.append(Keyframe(image, found.placed(poses[at : at + 1])))
    return Material(tuple(keyframes), poses, matrices)


def timed(bench: Bench, name: str, work: Callable[[], Any], **more: Any) -> Figures | None:
    """A row: milliseconds of ``work``, and what the host waited for."""

    def measured() -> Figures:
        reset_peak(bench.device)
        with torch.inference_mode():
            median, _, first = median_seconds(work, bench.device, bench.runs, 2)
            waits, places = host_waits(work, bench.device)
        return {
            "ms": round(1000 * median, 2),
            "first_ms": round(1000 * first, 1),
            "host_waits": waits,
            "waits_at": places,
            **more,
            **peaks(bench.device),
        }

    return bench.rows.measure(name, measured)


def parts(bench: Bench, net: Pi3X) -> None:
    """A row for each part that works on the scene."""
    size, given = (bench.size.height, bench.size.width), material(bench)
    estimator, photo = SceneGeometry(net).inner, given.keyframes[0]
    assert estimator is not None
    timed(
        bench,
        "geometry",
        lambda: estimator.estimate(photo.image[None], intrinsics=given.intrinsics[:1]),
    )
    timed(bench, "mesh", lambda: mesh_of(Keyframe(photo.image, photo.geometry), FULL).has_cells)

    def render(keyframes: Sequence[Keyframe], settings: WarpSettings) -> RenderedView:
        memory = MeshMemory(tuple(keyframes))
        return memory.render(given.cameras, given.intrinsics, size, settings)

    for name, keyframes, settings in (
        ("render, first chunk", given.keyframes[:1], FULL),
        ("render, later chunk", given.drawn(), FULL),
        ("render, later chunk, realtime", given.drawn(), LIVE),
    ):
        with torch.inference_mode():
            share = float(render(keyframes, settings).visible.mean())
        timed(
            bench,
            name,
            lambda k=keyframes, s=settings: render(k, s),  # type: ignore[misc]
            frames=CHUNK_FRAMES,
            seen=round(share, 4),
        )
    with torch.inference_mode():
        view = render(given.drawn(), FULL)
    timed(
        bench,
        "background",
        lambda: over_atlas(
            view,
            background_atlas(given.drawn()),
            given.cameras,
            given.intrinsics,
            seen=False,
        ),
    )
    many = material(bench, _POOL).keyframes
    one = (given.cameras[-1:], given.intrinsics[-1:], size)
    whole = (given.cameras, given.intrinsics, size)

    def chosen() -> object:
        most_added(many[1:-1], (many[0], many[-1]), 1, *whole)
        most_added(many[1:-1], many[:1], 1, *one)
        geometry = many[-1].geometry
        depth, valid = geometry.depth[0], geometry.valid[0]
        return depth_scale(view.depth[-1], view.visible[-1] > 0.5, depth, valid).facts

    timed(bench, f"choice among {_POOL} keyframes, and scale", chosen)


def tokens(bench: Bench, model: LoadedModel) -> None:
    """Rows: which tokens are seen, how they are packed, and encoding the warp."""
    size, device = bench.size, bench.device
    latent = (size.height // 8, size.width // 8)
    visible = torch.zeros(CHUNK_FRAMES, size.height, size.width, device=device)
    visible[..., : round(0.86 * size.width)] = 1
    prefix, past, warp = (torch.randn(1, 16, n, *latent, device=device) for n in (1, 19, 9))
    settings = WarpHistorySettings()

    def history(rgb: Tensor = warp) -> Any:
        seen = visibility_to_latent(visible[None], latent)
        return warped_history(prefix, past, rgb, seen, settings=settings)[0]

    net = model.transformer
    timed(bench, "token choice", lambda: net.choose_tokens(history()))
    with torch.inference_mode():
        ready = replace(history(), chosen=net.choose_tokens(history()))
    timed(bench, "band packing", lambda: net.pack_history(ready))
    video = torch.rand(1, 3, CHUNK_FRAMES, size.height, size.width, device=device)
    timed(bench, "encode", lambda: model.codec.encode(video), codec=type(model.codec).__name__)


def whole(bench: Bench, name: str, model: LoadedModel, net: Pi3X, *, live: bool) -> None:
    """Rows: the warp of a later chunk from its newest frame on, and its whole conditioning; the
    published conditioning takes 3.1 s."""
    count = bench.runs + 3
    made = rollout(bench.size, count)
    limit = PRESETS["realtime"].pixel_limit if live else None

    def measured(step: Callable[[WarpAsHistoryGenerator, int], object]) -> Figures:
        estimator = SceneGeometry(net, limit)
        memory = KeyframeMemory(estimator, LIVE if live else FULL, bench.device)
        generator = _generator(bench, model, memory, live=live)
        found: list[float] = []
        reset_peak(bench.device)
        with torch.inference_mode():
            for done in range(1, count):
                found.append(seconds(lambda n=done: step(generator, n), bench.device))  # type: ignore[misc]
            waits, places = host_waits(lambda: step(generator, count), bench.device)
        return {
            "ms": round(1000 * statistics.median(found[2:]), 2),
            "first_ms": round(1000 * found[0], 1),
            "runs_ms": [round(1000 * value, 2) for value in found],
            "host_waits": waits,
            "waits_at": places,
            **peaks(bench.device),
        }

    def warp(generator: WarpAsHistoryGenerator, done: int) -> object:
        return generator.source.warp(made.rewind(count - done), request(bench.size, done))

    def condition(generator: WarpAsHistoryGenerator, done: int) -> object:
        before, asked = made.rewind(count - done), request(bench.size, done)
        stage = generator.warped(before, asked, generator.source.warp(before, asked))
        return model.transformer.pack_history(stage.history)

    bench.rows.measure(f"warp of a later chunk{name}", lambda: measured(warp))
    bench.rows.measure(f"conditioning of a later chunk{name}", lambda: measured(condition))


def latency(
    bench: Bench,
    denoiser: HeliosTransformer,
    net: Pi3X,
    suffix: str = "",
    settings: FastSettings | None = None,
) -> None:
    """A row: from a camera command to the new frames, with the realtime preset; all 33 of a chunk
    come at once."""
    model = replace(
        random_model(denoiser, bench.size, bench.device, fast_codec=True),
        fast=FastDenoiser(denoiser, settings),
    )
    memory = KeyframeMemory(SceneGeometry(net, PRESETS["realtime"].pixel_limit), LIVE, bench.device)
    generator = _generator(bench, model, memory, live=True)

    def measured() -> Figures:
        at, taken = rollout(bench.size, 0), []
        reset_peak(bench.device)
        for index in range(bench.chunks + 2):
            made: list[Chunk] = []
            asked = request(bench.size, index)

            def one(at: Rollout = at, asked: ChunkRequest = asked) -> None:
                made.append(generator.chunk(at, asked))  # noqa: B023 - run at once

            taken.append(seconds(one, bench.device))
            at = at.appended(made[0])
        timings = [chunk.timings for chunk in at.chunks[2:]]
        split = {f"{k}_s": round(statistics.median(t[k] for t in timings), 4) for k in timings[0]}
        median = statistics.median(taken[2:])
        return {
            "new_frame_s": round(median, 4),
            "fps": round(CHUNK_FRAMES / median, 2),
            "runs_s": [round(value, 4) for value in taken],
            **split,
            **peaks(bench.device),
        }

    bench.rows.measure(f"camera command to new frames, realtime{suffix}", measured)


def _generator(
    bench: Bench, model: LoadedModel, memory: KeyframeMemory, *, live: bool
) -> WarpAsHistoryGenerator:
    preset = PRESETS["realtime"]
    history = WarpHistorySettings()
    if live:
        history = WarpHistorySettings(threshold=preset.visible_threshold, mode="patch_mid")
    sampler = SamplerSettings(
        steps=preset.steps if live else (2, 2, 2),
        amplify_first_chunk=False,
        max_sequence_length=bench.size.text_tokens,
    )
    settings = WarpAsHistorySettings(history=history)
    return WarpAsHistoryGenerator(model, sampler, settings, memory)


def conditioning(bench: Bench) -> None:
    """All rows but the last; one layer of the denoiser is enough for them."""
    net = random_pi3x(bench.size, bench.device)
    one = {**bench.size.transformer, "num_layers": 1}
    shallow = random_denoiser(one, bench.device, bench.dtype)
    add_random_adapter(shallow)
    parts(bench, net)
    for name, live in (("", False), (", realtime", True)):
        model = random_model(shallow, bench.size, bench.device, fast_codec=live)
        model = replace(model, fast=FastDenoiser(shallow))
        if not live:
            tokens(bench, model)
        whole(bench, name, model, net, live=live)


def warp(bench: Bench) -> None:
    """All rows."""
    conditioning(bench)
    denoiser = bench.denoiser()
    add_random_adapter(denoiser)
    latency(bench, denoiser, random_pi3x(bench.size, bench.device))
