"""How WorldWarp composes a chunk: what is kept, what waits, what the network is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flythrough.conditioning.noise_field import FieldSettings
from flythrough.engine.build import Session, build_rollout, build_session, build_spec
from flythrough.engine.plan import Leg, Plan
from flythrough.engine.request import GenerateRequest, check
from flythrough.engine.run import scene_scale
from flythrough.generators.warp import WarpClip
from flythrough.generators.worldwarp import WorldWarpGenerator
from flythrough.rollout.chunk import Chunk
from flythrough.rollout.rollout import Rollout

Started = tuple[WorldWarpGenerator, Rollout, Plan]


@pytest.fixture(scope="module")
def begin(tiny_st_diff: Path, photo: Path) -> Callable[..., Started]:
    sessions: dict[tuple[Any, ...], Session] = {}

    def call(**changes: Any) -> Started:
        values: dict[str, Any] = {"image": photo, "camera": "forward 0.3", "geometry": "flat"}
        given = values | changes
        checked = check(GenerateRequest(model=str(tiny_st_diff), frames=17, **given))
        spec = build_spec(checked)
        key = (spec.settings, spec.negative_prompt)
        if key not in sessions:
            sessions[key] = build_session(spec, checked.model, "cpu", lambda _text: None)
        session = sessions[key]
        rollout = build_rollout(spec, checked, session, lambda _text: None)
        leg = Leg(0, 17, spec.prompt, checked.trajectory)
        assert isinstance(session.generator, WorldWarpGenerator)
        plan = Plan((leg,), *scene_scale(session, rollout), window=spec.window)
        return session.generator, rollout, plan

    return call


def made(generator: WorldWarpGenerator, rollout: Rollout, plan: Plan, count: int) -> Rollout:
    for _ in range(count):
        rollout = rollout.appended(generator.chunk(rollout, plan.request(rollout)))
    return rollout


def test_the_past_is_kept_bit_for_bit(begin: Callable[..., Started]) -> None:
    generator, rollout, plan = begin()
    assert rollout.spec.window.frames == 9
    assert plan.chunks == 3
    rollout = made(generator, rollout, plan, 2)
    assert rollout.start is not None
    codec = generator.model.codec

    def encoded(frames: np.ndarray) -> np.ndarray:
        video = torch.from_numpy(np.array(frames)).float().permute(3, 0, 1, 2)[None] / 255
        return codec.encode(video)[0].numpy()

    first, second = rollout.chunks
    assert np.array_equal(first.latents[:, :1], encoded(rollout.start.image[None]))
    assert np.array_equal(second.latents[:, :2], encoded(first.frames[-5:]))
    assert first.frames.shape[0] == 9
    assert second.frames.shape[0] == 4
    decoded = codec.decode(torch.from_numpy(np.array(second.latents))[None])[0, :, -4:]
    pixels = (decoded * 255).round().byte().permute(1, 2, 3, 0).numpy()
    assert np.array_equal(pixels, second.frames)


def test_history_reaches_over_several_chunks(begin: Callable[..., Started]) -> None:
    generator, rollout, plan = begin()
    rollout = made(generator, rollout, plan, 3)
    frames = np.stack(list(rollout.frames()))
    assert len(frames) == 17
    assert np.array_equal(generator.history(rollout), frames[-5:])  # chunks add only 4
    assert np.array_equal(generator.history(rollout.kept(1)), frames[4:9])


def test_a_chunk_is_a_function_of_seed_and_place(begin: Callable[..., Started]) -> None:
    generator, rollout, plan = begin(seed=5)
    whole = made(generator, rollout, plan, 2)
    replayed = made(generator, whole.rewind(1), plan, 1)
    assert replayed.digest() == whole.digest()
    other = replace(rollout, spec=replace(rollout.spec, seed=6))
    assert made(generator, other, plan, 1).chunks[0].digest() != whole.chunks[0].digest()


def test_a_camera_that_stands_still_leaves_nothing_to_invent(begin: Callable[..., Started]) -> None:
    generator, rollout, plan = begin(camera="static")
    with torch.inference_mode():
        request = plan.request(rollout)
        hint = generator.hint(rollout, generator.source.warp(rollout, request))
        assert hint.context == 1
        assert float(hint.valid.float().mean()) >= 0.97
        assert rollout.start is not None
        shown = generator.model.codec.decode(hint.latents)
        photo = generator.model.codec.decode(hint.latents[:, :, :1])
        assert shown.shape[2] == 9
        assert photo.shape[2] == 1


def test_what_is_not_seen_starts_from_pure_noise(
    begin: Callable[..., Started], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator, rollout, plan = begin(strength=0.3, guidance=1.0)
    half = torch.zeros(9, 64, 96)
    half[..., 48:] = 1.0
    clip = WarpClip(rgb=torch.full((9, 3, 64, 96), 0.5), visible=half)
    monkeypatch.setattr(generator.source, "warp", lambda *_: clip)
    asked: list[torch.Tensor] = []
    forward = generator.model.transformer.forward

    def watched(latents: Any, timesteps: Any, text: Any) -> Any:
        asked.append(timesteps)
        return forward(latents, timesteps, text)

    monkeypatch.setattr(generator.model.transformer, "forward", watched)
    generator.chunk(rollout, plan.request(rollout))
    assert len(asked) == 3  # one call a step without guidance
    first = asked[0][0]
    assert (first[0] == 0).all()
    assert (first[1:, :, :3] == 1000).all()
    # 70 % of 3 steps are left out, which is 2 whole ones; erosion reaches no further token
    waiting = float(first[1, 0, -1])
    assert (first[1:, :, 4:] == waiting).all()
    assert 0 < waiting < 1000
    assert float(asked[2][0, 1, 0, 0]) == waiting


def test_guidance_and_prompt_reach_the_network(begin: Callable[..., Started]) -> None:
    generator, rollout, plan = begin(prompt="a lake", negative_prompt="fog")
    calls: list[Any] = []
    handle = generator.model.transformer.register_forward_hook(lambda *_: calls.append(1))
    guided = generator.chunk(rollout, plan.request(rollout))
    handle.remove()
    assert len(calls) == 6
    plainer = replace(rollout, spec=replace(rollout.spec, negative_prompt=""))
    assert generator.chunk(plainer, plan.request(plainer)).digest() != guided.digest()


def test_reference_keeps_the_published_border(begin: Callable[..., Started]) -> None:
    generator, rollout, plan = begin(camera="static")
    published = replace(
        generator.settings, noise_field=FieldSettings(strength=0.8, erosion=15, reference=True)
    )
    other = WorldWarpGenerator(generator.model, published, generator.source)
    with torch.inference_mode():
        request = plan.request(rollout)
        hint = other.hint(rollout, other.source.warp(rollout, request))
        assert not hint.valid[..., 0, :].any()
        assert not hint.valid[..., 0].any()
        chunk: Chunk = other.chunk(rollout, request)
    assert other.settings.reference
    assert np.isfinite(chunk.latents).all()
