"""How generators put the parts together: what is asked of the network, and when."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flythrough import seeds
from flythrough.engine.build import Session, build_rollout, build_session, build_spec
from flythrough.engine.plan import Leg, Plan
from flythrough.engine.request import GenerateRequest, check
from flythrough.engine.run import scene_scale
from flythrough.generators import helios
from flythrough.generators.given_warp import GivenWarp
from flythrough.generators.side_thread import with_work_beside
from flythrough.models.helios import HeliosTransformer
from flythrough.rollout.chunk import Chunk, ChunkRequest
from flythrough.rollout.rollout import Rollout
from flythrough.sampling.noise import block_noise, reference_block_noise

Started = tuple[Session, Rollout, Plan]


@pytest.fixture(scope="module")
def begin(tiny_model: Path, photo: Path) -> Callable[..., Started]:
    def call(**changes: Any) -> Started:
        values: dict[str, Any] = {"image": photo, "camera": "forward 0.3", "prompt": "a lake"}
        checked = check(GenerateRequest(model=str(tiny_model), frames=66, **values | changes))
        spec = build_spec(checked)
        session = build_session(spec, checked.model, "cpu", lambda _text: None)
        rollout = build_rollout(spec, checked, session, lambda _text: None)
        leg = Leg(0, 66, spec.prompt, checked.trajectory)
        return session, rollout, Plan((leg,), *scene_scale(session, rollout))

    return call


class Watch:
    """Counts calls of the transformer and notes tokens, noise size and whether LoRA is active."""

    def __init__(self, transformer: HeliosTransformer, patch: pytest.MonkeyPatch) -> None:
        self.packed = 0
        self.calls: list[tuple[int, int, bool]] = []
        pack, forward = transformer.pack_history, transformer.forward
        layer: Any = transformer.blocks[0].attn1.to_q

        def packing(*args: Any, **kwargs: Any) -> Any:
            self.packed += 1
            return pack(*args, **kwargs)

        def running(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            active = hasattr(layer, "disable_adapters") and not layer.disable_adapters
            tokens = kwargs["history"].tokens.shape[1]
            self.calls.append((x.shape[-1], tokens, active))
            return forward(x, *args, **kwargs)

        patch.setattr(transformer, "pack_history", packing)
        patch.setattr(transformer, "forward", running)


def test_history_is_embedded_once_a_stage_and_the_adapter_serves_the_first(
    begin: Callable[..., Started], monkeypatch: pytest.MonkeyPatch
) -> None:
    session, rollout, plan = begin()
    watch = Watch(session.model.transformer, monkeypatch)
    chunk = session.generator.chunk(rollout, plan.request(rollout))
    assert watch.packed == 2  # the stages without warp share one history
    widths = [width for width, _, _ in watch.calls]
    assert widths == [4] * 4 + [8] * 4 + [16] * 4  # the first chunk takes twice the steps
    assert [active for _, _, active in watch.calls] == [True] * 4 + [False] * 8
    assert watch.calls[0][1] > watch.calls[4][1] == watch.calls[8][1]
    watch.calls.clear()
    after = rollout.appended(chunk)
    session.generator.chunk(after, plan.request(after))
    assert len(watch.calls) == 6


@pytest.mark.parametrize("camera", ["static", None])
def test_steps_count_in_both_methods(
    begin: Callable[..., Started], monkeypatch: pytest.MonkeyPatch, camera: str | None
) -> None:
    session, rollout, plan = begin(camera=camera, steps=(1, 2, 1))
    watch = Watch(session.model.transformer, monkeypatch)
    session.generator.chunk(rollout, plan.request(rollout))
    assert [width for width, _, _ in watch.calls] == [4] * 2 + [8] * 4 + [16] * 2


def test_the_mid_band_shortens_the_stages_with_the_warp_alone(
    begin: Callable[..., Started], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = []
    for band in ("short", "patch-mid"):
        session, rollout, plan = begin(warp_band=band, select=False)
        watch = Watch(session.model.transformer, monkeypatch)
        session.generator.chunk(rollout, plan.request(rollout))
        tokens.append([count for _, count, _ in watch.calls])
    short, mid = tokens
    warp = 9 * 4 * 8  # tokens of 9 latents of 8x16 in the short band
    assert short[0] - short[-1] == warp
    assert mid[0] - mid[-1] == 5 * 2 * 4  # five pairs more than the one that the past has
    assert mid[4:] == short[4:]


def test_without_adapter_the_warp_still_leads(
    begin: Callable[..., Started], monkeypatch: pytest.MonkeyPatch
) -> None:
    session, rollout, plan = begin(lora="off")
    watch = Watch(session.model.transformer, monkeypatch)
    session.generator.chunk(rollout, plan.request(rollout))
    assert not any(active for _, _, active in watch.calls)
    assert watch.calls[0][1] > watch.calls[-1][1]


def test_chunk_is_a_function_of_its_arguments(begin: Callable[..., Started]) -> None:
    session, rollout, plan = begin()
    first = session.generator.chunk(rollout, plan.request(rollout))
    one = rollout.appended(first)
    second = session.generator.chunk(one, plan.request(one))
    fresh = begin()[0]
    again = fresh.generator.chunk(one, plan.request(one))
    assert again.digest() == second.digest()
    np.testing.assert_array_equal(again.frames, second.frames)
    assert session.generator.chunk(rollout, plan.request(rollout)).digest() == first.digest()


def test_progress_runs_from_nothing_to_the_end(begin: Callable[..., Started]) -> None:
    session, rollout, plan = begin(camera=None)
    seen: list[tuple[str, float]] = []
    session.generator.chunk(
        rollout, plan.request(rollout), lambda label, share: seen.append((label, share))
    )
    shares = [share for _, share in seen]
    assert shares == sorted(shares)
    assert shares[-1] <= 1
    assert {label for label, _ in seen} == {"denoise", "decode"}


def test_text_start_is_anchored_to_its_own_first_frame(begin: Callable[..., Started]) -> None:
    session, rollout, plan = begin(image=None, camera=None)
    generator: Any = session.generator
    assert (generator.prefix(rollout) == 0).all()
    assert generator.past(rollout).shape[2] == 0
    chunk = generator.chunk(rollout, plan.request(rollout))
    after = rollout.appended(chunk)
    np.testing.assert_array_equal(generator.prefix(after)[0, :, 0], chunk.latents[:, 0])
    assert generator.past(after).shape[2] == 9


def test_memory_shows_the_photo_first_and_then_what_was_made(
    begin: Callable[..., Started],
) -> None:
    session, rollout, plan = begin()
    memory = session.memory
    assert memory is not None
    assert rollout.start is not None
    warp = memory.warp(rollout, plan.request(rollout))
    assert warp.rgb.shape == (33, 3, 64, 128)
    photo = torch.from_numpy(np.array(rollout.start.image)).permute(2, 0, 1) / 255
    torch.testing.assert_close(warp.rgb[0], photo)
    assert (warp.visible[0] == 1).all()
    white = Chunk(
        request=plan.request(rollout),
        latents=np.zeros((16, 9, 8, 16), np.float32),
        frames=np.full((33, 64, 128, 3), 255, np.uint8),
    )
    after = rollout.appended(white)
    beyond = Plan((*plan.legs, Leg(1, 33, "", plan.legs[0].trajectory)), *scene_scale(*begin()[:2]))
    later = memory.warp(after, beyond.request(after))
    assert later.rgb.shape == (33, 3, 64, 128)
    assert 0 < float(later.visible.mean()) <= 1
    memory.photo_only = True
    alone = memory.warp(after, beyond.request(after))
    assert float(alone.visible.mean()) <= float(later.visible.mean())


def test_given_warp_is_cut_by_chunk(begin: Callable[..., Started]) -> None:
    rollout = begin()[1]
    levels = np.arange(66, dtype=np.uint8)[:, None, None, None]
    frames = np.broadcast_to(levels, (66, 8, 8, 3))
    source = GivenWarp(frames, frames[..., 0], torch.device("cpu"))
    clip = source.warp(rollout, ChunkRequest(1))
    assert clip.rgb.shape == (33, 3, 8, 8)
    torch.testing.assert_close(clip.visible[0], torch.full((8, 8), 33 / 255))


@pytest.mark.parametrize("reference", [False, True])
def test_reference_takes_the_published_block_noise(
    begin: Callable[..., Started], monkeypatch: pytest.MonkeyPatch, reference: bool
) -> None:
    session, rollout, plan = begin(image=None, camera=None)
    generator: Any = session.generator
    generator.settings = replace(generator.settings, reference=reference)
    sample, drawn = helios.sample_pyramid, []

    def watched(denoise: Any, noise: Any, block: Any, *args: Any, **kwargs: Any) -> torch.Tensor:

        def seen(stage: int, shape: torch.Size) -> torch.Tensor:
            drawn.append((stage, block(stage, shape)))
            return drawn[-1][1]

        return sample(denoise, noise, seen, *args, **kwargs)

    monkeypatch.setattr(helios, "sample_pyramid", watched)
    chunk = generator.chunk(rollout, plan.request(rollout))
    assert np.isfinite(chunk.latents).all()
    assert [stage for stage, _ in drawn] == [1, 2]
    for stage, values in drawn:
        source = seeds.generator(rollout.spec.seed, 0, "block-noise", stage)
        published, ours = (
            draw(values.shape, source.clone_state(), generator.pyramid.gamma)
            for draw in (reference_block_noise, block_noise)
        )
        assert torch.equal(values, published) is reference
        assert torch.equal(values, ours) is not reference


def test_a_model_folder_sets_the_keyframe_memory(
    tiny_model: Path, photo: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    chosen = {
        "older_keyframes": 2,
        "estimation": "joint",
        "background": "tint",
        "keyframes": "joint",
    }
    name = folder / "flythrough.json"
    values = json.loads(name.read_text()) if name.exists() else {"format": 1, "name": "tiny"}
    values.setdefault("defaults", {})["warp"] = chosen
    name.write_text(json.dumps(values))
    checked = check(
        GenerateRequest(image=photo, camera="forward 0.3", model=str(folder), frames=66)
    )
    spec = build_spec(checked)
    session = build_session(spec, checked.model, "cpu", lambda _text: None)
    assert session.memory is not None
    for key, value in chosen.items():
        assert spec.settings[f"warp.{key}"] == value
        assert getattr(session.memory.settings, key) == value


def test_a_prompt_stays_the_same_object(begin: Callable[..., Started]) -> None:
    # The fast path knows a prompt again by identity; comparing values makes the host wait.
    session, rollout, plan = begin()
    given: list[torch.Tensor] = []
    generator: Any = session.generator
    denoise = generator.helios.denoise

    def watched(x: Any, timestep: Any, stage: Any, history: Any) -> torch.Tensor:
        given.append(stage.embedding)
        return denoise(x, timestep, stage, history)

    generator.helios.denoise = watched
    for _ in range(2):
        rollout = rollout.appended(generator.chunk(rollout, plan.request(rollout)))
    assert len({id(embedding) for embedding in given}) == 2  # with the adapter's trigger, without


def test_a_prompt_in_the_networks_dtype_is_made_once(begin: Callable[..., Started]) -> None:
    generator: Any = begin()[0].generator
    given = torch.rand(1, 2, 3, dtype=torch.float64)
    made = generator.helios._as_network(given)
    assert made.dtype == generator.model.transformer.dtype
    for _ in range(20):  # what is used stays, whatever else comes
        generator.helios._as_network(torch.rand(1, 2, 3, dtype=torch.float64))
        assert generator.helios._as_network(given) is made


def test_work_beside_a_launch() -> None:
    seen: list[tuple[str, bool]] = []

    def launch() -> torch.Tensor:
        seen.append((threading.current_thread().name, torch.is_inference_mode_enabled()))
        return torch.ones(2)

    def fail() -> None:
        raise ValueError("beside")

    device, here = torch.device("cpu"), threading.current_thread().name
    with torch.inference_mode():
        assert with_work_beside(launch, lambda: None, device).tolist() == [1, 1]
    assert with_work_beside(launch, lambda: None, device).tolist() == [1, 1]
    assert [mode for _, mode in seen] == [True, False]
    assert seen[0][0] == seen[1][0] != here  # always the same thread, never this one
    with pytest.raises(ValueError, match="beside"):
        with_work_beside(launch, fail, device)
    assert len(seen) == 3  # it was waited for

    def broken() -> torch.Tensor:
        raise KeyError("launch")

    with pytest.raises(KeyError, match="launch"):
        with_work_beside(broken, lambda: None, device)
    with pytest.raises(ValueError, match="beside"):
        with_work_beside(broken, fail, device)
    assert with_work_beside(launch, lambda: None, device).tolist() == [1, 1]
