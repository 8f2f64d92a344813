"""Law 2: the same material gives the denoiser the same tensors in training and at inference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flythrough.conditioning.condition_noise import draw_condition_noise
from flythrough.conditioning.prompts import with_trigger
from flythrough.conditioning.warped_history import WarpHistorySettings
from flythrough.generators import warp_as_history
from flythrough.generators.base import SamplerSettings
from flythrough.generators.helios import StageConditioning
from flythrough.generators.keyframes import KeyframeMemory
from flythrough.generators.warp import WarpClip
from flythrough.generators.warp_as_history import WarpAsHistoryGenerator, WarpAsHistorySettings
from flythrough.geometry.types import Geometry, ScaleKind
from flythrough.models.catalog import find_model
from flythrough.models.history_tokens import History
from flythrough.models.loading import LoadedModel, load_model
from flythrough.rollout.chunk import Chunk, ChunkRequest
from flythrough.rollout.rollout import Rollout, Start
from flythrough.rollout.spec import RolloutSpec
from flythrough.sampling.dmd_schedule import PyramidConfig
from flythrough.scene.settings import WarpSettings
from flythrough.training.camera_recipe import training_history
from flythrough.training.clip_sampling import Clip as TrainingWindow
from flythrough.training.denoiser import DenoiserSettings, DenoiserTask
from flythrough.training.latents import EncodedClips
from flythrough.training.lora.geometry import PlayedClip
from flythrough.training.lora.items import encode_item, render_item
from flythrough.training.refill import Refill, WorldVideos, render_warps

CPU = torch.device("cpu")
HEIGHT, WIDTH, FRAMES, LENGTH = 64, 128, 66, 64
CAPTION = "a lake between hills"
WARPS = WarpSettings()
HISTORIES = [
    WarpHistorySettings(),
    WarpHistorySettings(mode="patch_mid", threshold=0.6),
    WarpHistorySettings(prev_sizes=(8, 2, 1), align=False, select=False),
]


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> LoadedModel:
    return load_model(find_model(str(tiny_model)), CPU, torch.float32)


@pytest.fixture(scope="module")
def clips() -> WorldVideos:
    """One clip with two chunks, in 8-bit colours as a rollout keeps them, of a wavy wall with a
    step, before a camera that goes forward and to the left."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH] / HEIGHT
    times = np.arange(FRAMES)[:, None, None]
    waves = [np.sin(9 * rows + 0.1 * times), np.cos(7 * columns - 0.2 * times)]
    colours = np.stack([*waves, waves[0] * waves[1]], axis=-1) * 110 + 128
    rgb = torch.from_numpy(colours.round().astype(np.uint8)).permute(3, 0, 1, 2)[None]
    depth = torch.from_numpy(3 + 0.3 * np.sin(5 * columns) - 1.5 * (columns > 1.2)).float()
    poses = torch.eye(4, dtype=torch.float64).repeat(FRAMES, 1, 1)
    poses[:, 2, 3] = torch.linspace(0, 0.4, FRAMES)
    poses[:, 0, 3] = torch.linspace(0, -0.3, FRAMES)
    matrix = torch.tensor([[90.0, 0, WIDTH / 2], [0, 90.0, HEIGHT / 2], [0, 0, 1]])
    return WorldVideos(
        rgb=rgb / 255,
        depth=depth.expand(1, FRAMES, HEIGHT, WIDTH),
        valid=torch.ones(1, FRAMES, HEIGHT, WIDTH, dtype=torch.bool),
        world_from_camera=poses[None],
        intrinsics=matrix.double().expand(1, FRAMES, 3, 3),
        captions=(with_trigger(CAPTION),),
    )


@pytest.fixture(scope="module")
def encoded(model: LoadedModel, clips: WorldVideos) -> EncodedClips:
    return Refill(lambda _step, _rank: clips, model.codec, model.prompts, LENGTH, WARPS)(0, 0)


def request(clips: WorldVideos, index: int) -> ChunkRequest:
    part = slice(33 * index, 33 * index + 33)
    poses, matrices = (x[0, part].numpy() for x in (clips.world_from_camera, clips.intrinsics))
    return ChunkRequest(index, CAPTION, poses, matrices)


def rollout_of(clips: WorldVideos, encoded: EncodedClips, chunks: int) -> Rollout:
    """The clip's first ``chunks`` chunks as if they had been generated."""
    spec = RolloutSpec(
        method="warp-as-history",
        model="tiny",
        model_digest="0",
        height=HEIGHT,
        width=WIDTH,
        fps=16.0,
        seed=7,
        prompt=CAPTION,
    )
    video = (clips.rgb[0] * 255).round().byte().permute(1, 2, 3, 0).numpy()
    rollout = Rollout(spec, Start(video[0], clips.intrinsics[0, 0].numpy()))
    for index in range(chunks):
        frames = video[33 * index : 33 * index + 33]
        latents = encoded.chunks[0, index].numpy()
        rollout = rollout.appended(Chunk(request(clips, index), latents, frames))
    return rollout


def inference(
    model: LoadedModel,
    clips: WorldVideos,
    encoded: EncodedClips,
    chunk: int,
    history: WarpHistorySettings,
    *,
    noise: bool = True,
    warp: WarpClip | None = None,
) -> StageConditioning:
    """What the generator gives the denoiser for ``chunk``, whose warp is that of training."""
    settings = WarpAsHistorySettings(history=history)
    settings = settings if noise else replace(settings, noise=None)
    memory = KeyframeMemory(Exact(clips), WARPS, CPU)
    generator = WarpAsHistoryGenerator(
        model, SamplerSettings(max_sequence_length=LENGTH), settings, memory
    )
    part = slice(33 * chunk, 33 * chunk + 33)
    if warp is None:
        rgb, visible = render_warps(clips, 0, WARPS)
        warp = WarpClip(rgb.transpose(0, 1)[part], visible[part])
    with torch.inference_mode():
        return generator.warped(rollout_of(clips, encoded, chunk), request(clips, chunk), warp)


def camera_task(model: LoadedModel, history: WarpHistorySettings) -> DenoiserTask:
    def nothing(*_: object) -> EncodedClips:
        raise AssertionError("no clips are made here")

    return DenoiserTask(
        "lora",
        model.transformer,
        model.prompts.text_encoder,
        nothing,
        PyramidConfig.from_dict(model.scheduler),
        DenoiserSettings(batch=1, drop_caption=0.0, latent_size=(9, HEIGHT // 8, WIDTH // 8)),
        nn.ModuleDict(),
        export=lambda _folder: None,
        camera=history,
    )


class Exact:
    """An estimator that knows the clip's depth."""

    def __init__(self, clips: WorldVideos) -> None:
        self.clips = clips

    def estimate(self, images: Tensor, *, intrinsics: Tensor | None = None) -> Geometry:
        del intrinsics
        depth = self.clips.depth[0, : len(images)].float()
        return Geometry(
            depth=depth,
            confidence=torch.ones_like(depth),
            valid=torch.ones_like(depth, dtype=torch.bool),
            intrinsics=self.clips.intrinsics[0, : len(images)].float(),
            world_from_camera=torch.eye(4).repeat(len(images), 1, 1),
            scale=ScaleKind.METRIC,
        )


def same_numbers(
    patch: pytest.MonkeyPatch, order: tuple[str, str], encoded: EncodedClips
) -> torch.Generator:
    """Let inference draw its two conditions' noise from one stream, in the order of training."""
    source = torch.Generator().manual_seed(3)
    shapes = {"prefix-noise": encoded.prefix.shape, "warp-noise": encoded.warps[:, 0].shape}
    marks = {}
    for purpose in order:
        marks[purpose] = source.clone_state()
        draw_condition_noise(shapes[purpose], source)

    def generator(_seed: int, *purpose: str | int) -> torch.Generator:
        return marks[str(purpose[-1])].clone_state()

    patch.setattr(warp_as_history, "seeds", SimpleNamespace(generator=generator))
    return torch.Generator().manual_seed(3)


def assert_same(given: History, other: History) -> None:
    assert given.threshold == other.threshold
    for name in ("short", "mid", "long"):
        ours, theirs = getattr(given, name), getattr(other, name)
        assert (ours is None) == (theirs is None)
        if ours is None:
            continue
        assert torch.equal(ours.latents, theirs.latents), name
        assert torch.equal(ours.indices, theirs.indices), name
        assert (ours.visible is None) == (theirs.visible is None)
        assert ours.visible is None or torch.equal(ours.visible, theirs.visible), name


@pytest.mark.parametrize("history", HISTORIES, ids=["short", "patch_mid", "ablation"])
@pytest.mark.parametrize("chunk", [0, 1])
def test_camera_training_sees_what_the_generator_sees(
    model: LoadedModel,
    clips: WorldVideos,
    encoded: EncodedClips,
    chunk: int,
    history: WarpHistorySettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = same_numbers(monkeypatch, ("prefix-noise", "warp-noise"), encoded)
    made = inference(model, clips, encoded, chunk, history)
    task = camera_task(model, history)
    with torch.no_grad():
        embedding = task._embedding(encoded, torch.Generator())
        trained = task.camera_conditioning(encoded, chunk, embedding, source)
    assert_same(made.history, trained.history)
    assert torch.equal(made.target, trained.target)
    assert torch.equal(made.embedding, trained.embedding)


@pytest.mark.parametrize("noise", [True, False])
@pytest.mark.parametrize("history", HISTORIES, ids=["short", "patch_mid", "ablation"])
def test_the_published_recipe_sees_what_the_generator_sees(
    model: LoadedModel,
    clips: WorldVideos,
    encoded: EncodedClips,
    history: WarpHistorySettings,
    noise: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = same_numbers(monkeypatch, ("warp-noise", "prefix-noise"), encoded)
    made = inference(model, clips, encoded, 0, history, noise=noise)
    assert encoded.warps is not None
    assert encoded.visible is not None
    past = encoded.steady, encoded.warps[:, 0], encoded.visible[:, 0]
    options = {} if noise else {"noise": None}
    trained, target = training_history(encoded.prefix, *past, source, settings=history, **options)
    assert_same(made.history, trained)
    assert torch.equal(made.target, target)


@pytest.mark.parametrize("chunk", [0, 1])
def test_an_item_of_one_clip_is_what_the_generator_sees(
    model: LoadedModel, clips: WorldVideos, encoded: EncodedClips, chunk: int
) -> None:
    """``train lora``: a later window has the real past, as far as it consists of whole chunks."""
    video = (clips.rgb[0] * 255).round().byte().permute(1, 2, 3, 0).numpy()
    known = Geometry(
        depth=clips.depth[0].contiguous(),
        confidence=torch.ones(FRAMES, HEIGHT, WIDTH),
        valid=clips.valid[0],
        intrinsics=clips.intrinsics[0].float(),
        world_from_camera=clips.world_from_camera[0].float(),
        scale=ScaleKind.METRIC,
    )
    window = TrainingWindow("forward", 33 * chunk, (31, 32) if chunk else ())
    item = render_item(PlayedClip(video, known), window, WARPS)
    latents = encode_item(model.codec, item, CPU)
    warp = WarpClip(item.warp, item.visible)
    conditions = latents.prefix, latents.past, latents.warp, latents.visible
    source = torch.Generator()
    for history in HISTORIES:
        made = inference(model, clips, encoded, chunk, history, noise=False, warp=warp)
        trained, target = training_history(*conditions, source, settings=history, noise=None)
        assert_same(made.history, trained)
        assert torch.equal(made.target, target)
    assert torch.equal(latents.target, encoded.chunks[:, chunk])
    if chunk == 0:
        assert encoded.warps is not None
        assert torch.equal(latents.warp, encoded.warps[:, 0])


def test_the_scene_is_rendered_alike(clips: WorldVideos, encoded: EncodedClips) -> None:
    """From equal depth, the generator's memory gives the warp that training encodes.

    In the first chunk: later the generator scales what was estimated to agree with what is known,
    which training, whose depth is exact, has no need of.
    """
    memory = KeyframeMemory(Exact(clips), WARPS, CPU)
    rgb, visible = render_warps(clips, 0, WARPS)
    made = memory.warp(rollout_of(clips, encoded, 0), request(clips, 0))
    assert torch.equal(made.visible, visible[:33])
    assert torch.equal(made.rgb, rgb.transpose(0, 1)[:33])
    assert 0.5 < float(visible[:33].mean()) < 1.0


def test_different_material_is_told_apart(
    model: LoadedModel, clips: WorldVideos, encoded: EncodedClips
) -> None:
    first, second = (
        inference(model, clips, encoded, chunk, WarpHistorySettings(), noise=False).history
        for chunk in (0, 1)
    )
    with pytest.raises(AssertionError):
        assert_same(first, second)
