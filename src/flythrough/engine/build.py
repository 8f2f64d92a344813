"""A checked request becomes a rollout to start from and a generator that continues it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from flythrough.cameras.intrinsics import refitted
from flythrough.conditioning.prompts import with_trigger
from flythrough.conditioning.warped_history import WarpHistorySettings
from flythrough.engine.acceleration import (
    MakeFast,
    accelerated,
    accelerated_st_diff,
    announce_plain_codec,
    check_eight_bits,
    codec_dtype,
)
from flythrough.engine.attached import attach_adapters, detach_adapters
from flythrough.engine.files import absolute, check_sources, named_files
from flythrough.engine.geometry_source import build_estimator, estimates_anything
from flythrough.engine.hardware import ONE_DEVICE, Hardware, away, geometry_device
from flythrough.engine.photo_geometry import estimate_photo
from flythrough.engine.placement import Placed, placement_for
from flythrough.engine.presets import FAST_CODEC
from flythrough.engine.request import CheckedRequest
from flythrough.engine.stored_settings import check_settings, warp_settings
from flythrough.engine.team import LeadingDenoiser, drop_weights, team_of
from flythrough.engine.warp_video import WarpVideo
from flythrough.engine.words import EIGHT_BITS, CodecPrecision, Compute, MemoryChoice
from flythrough.engine.worldwarp_options import worldwarp_settings
from flythrough.engine.worldwarp_sampler import build_captioner, worldwarp_sampler
from flythrough.errors import InputError, RolloutError
from flythrough.generators.base import Generator, SamplerSettings
from flythrough.generators.given_warp import GivenWarp
from flythrough.generators.helios import HeliosGenerator
from flythrough.generators.keyframes import KeyframeMemory
from flythrough.generators.warp import WarpSource
from flythrough.generators.warp_as_history import (
    WarpAsHistoryGenerator,
    WarpAsHistorySettings,
)
from flythrough.generators.worldwarp import WorldWarpGenerator
from flythrough.models.catalog import BUNDLED, ModelFolder
from flythrough.models.fast.denoiser import FastDenoiser
from flythrough.models.loading import (
    LoadedModel,
    LoadedStDiff,
    load_model,
    load_st_diff_model,
    stream_denoiser,
)
from flythrough.models.text import clean_prompt
from flythrough.rollout.rollout import Rollout, Start
from flythrough.rollout.spec import RolloutSpec
from flythrough.sampling.guidance import Guidance
from flythrough.sampling.pyramid import AfterStep
from flythrough.scene.splat_render import renderer

Notify = Callable[[str], None]

_ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""torch's settings of its allocator, by the new name and the old one."""


@dataclass(frozen=True, eq=False)
class Session:
    """A generator and what it needs to turn trajectories into requests."""

    generator: Generator
    model: LoadedModel | LoadedStDiff
    source: WarpSource | None = None

    @property
    def memory(self) -> KeyframeMemory | None:
        """The scene memory, when warps are rendered from one."""
        return self.source if isinstance(self.source, KeyframeMemory) else None


def pick_device(name: str) -> torch.device:
    """``auto`` is the first GPU if there is one."""
    chosen = any(variable in os.environ for variable in _ALLOCATOR)
    used = torch.cuda.is_initialized()  # then it would hold for other processes of --gpus alone
    if name != "cpu" and sys.platform == "linux" and not chosen and not used:
        # Read when a GPU is first used. Blocks that grow leave no gaps, which took 4 of 22 GiB.
        os.environ[_ALLOCATOR[0]] = "expandable_segments:True"
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"The device {name!r} is not available here; use cpu or auto.") from error
    return device


def pick_dtype(device: torch.device) -> torch.dtype:
    """What denoiser and text encoder run in."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def build_spec(checked: CheckedRequest) -> RolloutSpec:
    """The frozen specification of a new rollout."""
    request, defaults = checked.request, checked.model.defaults
    settings: dict[str, Any] = _sampling_settings(checked)
    if checked.method == "warp-as-history":
        settings["visible_threshold"] = defaults.visible_threshold
        settings["warp_stages"] = defaults.warp_stages
        settings |= {f"warp.{name}": value for name, value in defaults.warp.items()}
    settings |= checked.settings
    style = None if request.style_lora is None else str(request.style_lora.resolve())
    settings |= named_files(request.geometry, request.lora, style)
    if style is not None:
        settings |= {"style_lora": style, "style_scale": float(request.style_scale)}
    if request.lora_scale != 1.0:
        settings["lora_scale"] = float(request.lora_scale)
    return RolloutSpec(
        method=checked.method,
        model=BUNDLED if request.model == BUNDLED else str(checked.model.path.resolve()),
        model_digest=checked.model.digest(),
        height=checked.size[0],
        width=checked.size[1],
        fps=defaults.fps,
        seed=request.seed,
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        geometry=absolute(request.geometry),
        lora=absolute(request.lora),
        settings=settings,
        start_image=_source_digest(checked),
    )


def _sampling_settings(checked: CheckedRequest) -> dict[str, Any]:
    request, defaults = checked.request, checked.model.defaults
    if checked.method == "worldwarp":
        return worldwarp_settings(request, checked.model, checked.window)
    return {
        "steps": list(request.steps or defaults.steps),
        "amplify_first_chunk": defaults.amplify_first_chunk,
        "guidance": defaults.guidance_scale if request.guidance is None else request.guidance,
        "zero_star": defaults.zero_star,
        "zero_steps": defaults.zero_steps,
        "blend_chunks": request.blend_chunks,
        "condition_noise": defaults.condition_noise,
        "anchor": request.anchor,
        "seams": request.seams,
    }


def build_session(
    spec: RolloutSpec,
    folder: ModelFolder,
    device_name: str,
    notify: Notify,
    warp: WarpVideo | None = None,
    memory: MemoryChoice = "auto",
    loaded: LoadedModel | LoadedStDiff | None = None,
    compute: Compute = "auto",
    hardware: Hardware = ONE_DEVICE,
    codec_precision: CodecPrecision = "auto",
) -> Session:
    """Load the model of ``spec`` and compose its method, if it fits into memory.

    ``loaded`` is that model from an earlier session, on the same devices; its adapters are removed.

    Raises:
        WeightsError: the model changed since the rollout was started, or an adapter does not fit.
        RolloutError: a depth or adapter file changed since.
        InputError: no such device, too little memory, or a path that cannot be taken.
    """
    check_sources(spec, folder)
    check_settings(spec)
    device = pick_device(device_name)
    check_eight_bits(compute, device)  # before much is read
    dtype, wide = pick_dtype(device), codec_dtype(codec_precision, compute, device)
    placed, eight_bits = Placed("resident"), compute in EIGHT_BITS
    if loaded is None:
        drop_weights()
        placed = placement_for(spec, folder, device, memory, notify, hardware, wide, compute)
    placement = placed.placement
    if spec.method == "worldwarp":
        st_diff = loaded or away(
            load_st_diff_model(
                folder, device, dtype, placement, codec_dtype=wide, denoiser_waits=eight_bits
            ),
            hardware,
        )
        assert isinstance(st_diff, LoadedStDiff)
        announce_plain_codec(st_diff.codec, notify)
        if placement == "offload":
            stream_denoiser(st_diff)
        st_diff = accelerated_st_diff(st_diff, compute, notify)
        scene = build_memory(spec, folder, geometry_device(hardware, device), notify)
        planned = placement if loaded is None else None
        captioner = build_captioner(spec, device, dtype, planned, notify)
        made = WorldWarpGenerator(st_diff, worldwarp_sampler(spec, folder), scene, captioner)
        return Session(made, st_diff, scene)
    sampler = _sampler(spec, folder)
    if loaded is None:
        own = folder.fast_codec if spec.settings.get("codec") == FAST_CODEC else None
        model = load_model(
            folder,
            device,
            dtype,
            placement,
            codec=own,
            codec_dtype=wide,
            denoiser_waits=eight_bits,
        )
        announce_plain_codec(model.codec, notify)
        model = away(replace(model, decodes_beside=placed.beside, records=placed.records), hardware)
    else:
        assert isinstance(loaded, LoadedModel)
        detach_adapters(loaded.transformer)
        model = loaded
    lora = attach_adapters(spec, folder, model.transformer, notify)
    if placement == "offload":
        stream_denoiser(model)
    make: MakeFast = FastDenoiser
    if hardware.gpus > 1:
        team = team_of(hardware.gpus, device)
        team.load(spec, folder, compute, model.records)
        make = partial(LeadingDenoiser, team)
    model = accelerated(model, compute, notify, make)
    if spec.method == "helios":
        return Session(HeliosGenerator(model, sampler), model)
    settings = WarpAsHistorySettings(
        history=_warp_history(spec),
        stages=int(spec.settings["warp_stages"]),
        lora=lora,
        trigger=folder.defaults.prompt_trigger,
    )
    source: WarpSource
    if warp is not None:
        source = GivenWarp(warp.frames, warp.mask, device)
    else:
        source = build_memory(spec, folder, geometry_device(hardware, device), notify)
    return Session(WarpAsHistoryGenerator(model, sampler, settings, source), model, source)


def led_by(session: Session, frames: np.ndarray, mask: np.ndarray, first_chunk: int = 0) -> Session:
    """A session whose chunks from ``first_chunk`` on follow a pre-rendered warp.

    Args:
        frames, mask: uint8 [T,H,W,3] and [T,H,W] as in :class:`GivenWarp`.
    """
    assert isinstance(session.generator, WarpAsHistoryGenerator)
    source = GivenWarp(frames, mask, session.model.device, first_chunk)
    return Session(session.generator.with_source(source), session.model, source)


@contextmanager
def stepping(session: Session, after_step: AfterStep | None) -> Iterator[None]:
    """Within the block ``after_step`` sees every step's latents and says which to go on with."""
    if after_step is None:
        yield
        return
    made_by = session.generator
    steps = made_by.helios if isinstance(made_by, WarpAsHistoryGenerator) else made_by
    assert isinstance(steps, HeliosGenerator)
    steps.after_step = after_step
    try:
        yield
    finally:
        steps.after_step = None


def _sampler(spec: RolloutSpec, folder: ModelFolder) -> SamplerSettings:
    values = spec.settings
    try:
        return SamplerSettings(
            steps=tuple(values["steps"]),
            amplify_first_chunk=bool(values["amplify_first_chunk"]),
            max_sequence_length=folder.defaults.max_sequence_length,
            guidance=Guidance(
                scale=float(values["guidance"]),
                zero_star=bool(values["zero_star"]),
                zero_steps=int(values["zero_steps"]),
            ),
            blend_chunks=int(values["blend_chunks"]),
            condition_noise=bool(values["condition_noise"]),
            anchor=values["anchor"],
            seams=values.get("seams", "independent"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RolloutError(
            f"The rollout's settings cannot be used ({type(error).__name__}: {error}); it was "
            "written by another version of Flythrough, so use that version or start a new one."
        ) from error


def _warp_history(spec: RolloutSpec) -> WarpHistorySettings:
    values = spec.settings
    return WarpHistorySettings(
        align=bool(values.get("align", True)),
        select=bool(values.get("select", True)),
        threshold=float(values["visible_threshold"]),
        mode=values.get("warp_band", "short"),
    )


def build_rollout(
    spec: RolloutSpec, checked: CheckedRequest, session: Session, notify: Notify
) -> Rollout:
    """The empty rollout: spec and what it starts from, with the focal length settled for all."""
    photo, video = checked.photo, checked.video
    if video is not None:
        start = Start(image=video.first, intrinsics=video.intrinsics, video=video.frames)
        return Rollout(spec=spec, start=start)
    if photo is None:
        return Rollout(spec=spec, start=None)
    own = _path_intrinsics(checked)
    if own is not None:
        notify("the focal length of the camera file is used for the photo too.")
    intrinsics = photo.intrinsics if own is None else own
    if own is None and session.memory is not None and not photo.focal_known:
        estimator, device = session.memory.estimator, session.memory.device
        geometry = estimate_photo(estimator, photo, device, notify)
        intrinsics = np.asarray(geometry.intrinsics[0].double().cpu().numpy())
    return Rollout(spec=spec, start=Start(image=photo.pixels, intrinsics=intrinsics))


def _path_intrinsics(checked: CheckedRequest) -> np.ndarray | None:
    """[3,3] of the path's first camera at the output size, where the path has cameras of its own:
    the photo is what that camera sees."""
    path = checked.trajectory
    if path is None or path.intrinsics is None or path.size is None:
        return None
    return refitted(path.intrinsics[:1], path.size, checked.size)[0]


def announce_cut_prompt(session: Session, prompt: str, notify: Notify) -> None:
    """Tell the user when the model cannot read all of ``prompt``."""
    text, made_by = prompt, session.generator
    if isinstance(made_by, WarpAsHistoryGenerator) and made_by.settings.lora:
        text = with_trigger(prompt, session.model.defaults.prompt_trigger)
    limit = session.model.defaults.max_sequence_length
    count = len(session.model.prompts.tokenizer(clean_prompt(text))["input_ids"])
    if count > limit:
        notify(f"the prompt has {count} tokens: the model reads only the first {limit}.")


def build_memory(
    spec: RolloutSpec, folder: ModelFolder, device: torch.device, notify: Notify
) -> KeyframeMemory:
    """The scene memory of rollouts with this specification; the user is told about licences and
    what is assumed.

    Raises:
        WeightsError: a geometry network that is not here.
        GeometryError: an unusable geometry.
    """
    settings = warp_settings(spec)
    if settings.memory == "gaussian" and renderer(device) == "torch":
        notify(
            "the Gaussian scene is fitted and drawn by PyTorch alone (gsplat needs CUDA and its "
            "package), which takes minutes a chunk."
        )
    limit = spec.settings.get("geometry_pixel_limit")
    estimator = build_estimator(
        spec.geometry, folder, device, settings.confidence, notify, pixel_limit=limit
    )
    if estimates_anything(spec.geometry):
        return KeyframeMemory(estimator, settings, device, notify=notify)
    notify(f"geometry {spec.geometry}: only the photo is kept as a keyframe, its depth is given.")
    return KeyframeMemory(estimator, settings, device, photo_only=True, notify=notify)


def _source_digest(checked: CheckedRequest) -> str | None:
    if checked.video is not None:
        return checked.video.digest
    return None if checked.photo is None else checked.photo.source_digest
