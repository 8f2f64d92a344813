"""What the parts of a run take, known before anything is loaded.

Each network is run on shapes alone (``models.accounting``), so the figures follow size, method and
model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from flythrough.conditioning.history import native_history
from flythrough.conditioning.warped_history import (
    WarpBand,
    WarpHistorySettings,
    warped_history,
)
from flythrough.engine.files import is_monocular, is_network
from flythrough.engine.geometry_source import estimates_anything, streaming_folder
from flythrough.engine.memory_plan import RunNeeds
from flythrough.engine.presets import FAST_CODEC
from flythrough.engine.stored_settings import warp_settings
from flythrough.models.accounting import Need
from flythrough.models.adapter_origin import adapter_origin
from flythrough.models.captioner_folder import CaptionerFolder, find_captioner
from flythrough.models.captioner_needs import captioner_need
from flythrough.models.catalog import ModelFolder
from flythrough.models.foreseen import planned_monocular
from flythrough.models.history_tokens import History
from flythrough.models.needs import ModelNeeds, PartNeed, depth_need, streaming_need
from flythrough.models.ttt3r_folder import find_streaming
from flythrough.rollout.chunk import CHUNK_FRAMES, LATENT_FRAMES
from flythrough.rollout.spec import Method, RolloutSpec
from flythrough.rollout.window import Window
from flythrough.scene.raster import pass_bytes
from flythrough.scene.settings import WarpSettings
from flythrough.scene.splat_fit import fit_bytes


@dataclass(frozen=True)
class RunParts:
    """What a run has beside the networks of its model folder.

    Attributes:
        adapters: files or folders of adapters, all counted in every stage.
        codec: takes the place of the folder's own.
        pixel_limit: bounds the pictures that the geometry network sees, ``views`` at a time.
        sources: keyframes that a Gaussian scene is fitted to at once; 0: meshes.
        window: how method worldwarp cuts chunks; None: as the model has it.
        codec_dtype: what the codec computes in; None: float16 on a GPU, else float32.
        captioner: words the prompts of method worldwarp.
        eight_bits: the denoiser's large weights are 8-bit.
        card_bytes: memory of the GPU that is meant; None: of the one that is here.
    """

    adapters: tuple[Path, ...] = ()
    codec: Path | None = None
    pixel_limit: int | None = None
    views: int = 1
    sources: int = 0
    window: Window | None = None
    codec_dtype: torch.dtype | None = None
    captioner: CaptionerFolder | None = None
    eight_bits: bool = False
    card_bytes: int | None = None


def default_parts(
    folder: ModelFolder,
    method: Method,
    band: WarpBand = "short",
    *,
    geometry: str = "default",
    lora: str = "default",
) -> RunParts:
    """What a run with no other options has: where a camera leads, the scene memory that the model
    asks for, over ``geometry``; and the adapter that ``lora`` names."""
    adapters = _adapters(lora, folder, method, band)
    if method == "helios":
        return RunParts(adapters)
    views, sources = _seen(WarpSettings(**folder.defaults.warp), geometry)
    return RunParts(adapters, views=views, sources=sources)


def _adapters(lora: str, folder: ModelFolder, method: Method, band: WarpBand) -> tuple[Path, ...]:
    """The adapter of ``--lora``; by default the shipped one where a camera leads, if it was trained
    for the band."""
    if lora == "off":
        return ()
    if lora != "default":
        return (Path(lora),)
    file = folder.camera_adapter(band) if method == "warp-as-history" else None
    return () if file is None or not adapter_origin(file).suits(band) else (file,)


def _seen(warp: WarpSettings, geometry: str) -> tuple[int, int]:
    """How many of photo, newest and older keyframes geometry sees jointly, and to how many
    Gaussians are fitted: all, or the photo alone where nothing else can be estimated."""
    every = warp.older_keyframes + 2
    views = every if warp.estimation == "joint" else 1
    if warp.memory != "gaussian":
        return views, 0
    return views, every if estimates_anything(geometry) else 1


def parts_of(spec: RolloutSpec, folder: ModelFolder) -> RunParts:
    """What a rollout names: adapters, codec, size and number of pictures for geometry."""
    settings = spec.settings
    adapters = _adapters(spec.lora, folder, spec.method, settings.get("warp_band", "short"))
    if settings.get("style_lora") is not None:
        adapters += (Path(settings["style_lora"]),)
    views, sources = 1, 0
    if spec.method != "helios":
        views, sources = _seen(warp_settings(spec), spec.geometry)
    return RunParts(
        adapters=adapters,
        codec=folder.fast_codec if settings.get("codec") == FAST_CODEC else None,
        pixel_limit=settings.get("geometry_pixel_limit"),
        views=views,
        sources=sources,
        window=spec.window if spec.method == "worldwarp" else None,
        captioner=captioner_of(spec),
    )


def captioner_of(spec: RolloutSpec) -> CaptionerFolder | None:
    """What words the prompts of a rollout's chunks, if anything does.

    Raises:
        WeightsError: it is not on this machine.
    """
    name = spec.settings.get("captioner")
    return None if name is None else find_captioner(str(name))


def run_needs(
    folder: ModelFolder,
    size: tuple[int, int],
    method: Method,
    frames: int,
    device: str,
    *,
    steps: tuple[int, ...] | None = None,
    guidance: float | None = None,
    geometry: str = "default",
    band: WarpBand = "short",
    parts: RunParts | None = None,
) -> RunNeeds:
    """Measure a run of ``frames`` frames of ``size`` (height, width) on a ``device`` kind, with the
    warp in the history ``band``.
    ``parts``: what comes beside the folder's own networks; None is what a run without options has.

    Raises:
        WeightsError: a configuration in the folder describes no network that can be used.
    """
    defaults = folder.defaults
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    parts = default_parts(folder, method, band) if parts is None else parts
    if method == "worldwarp":
        return _worldwarp_needs(
            folder,
            size,
            frames,
            device,
            steps,
            guidance,
            geometry,
            parts,
        )
    needs = ModelNeeds(
        folder.path,
        device,
        dtype,
        codec=parts.codec,
        codec_dtype=_codec_dtype(parts, device),
        adapters=parts.adapters,
        eight_bits=parts.eight_bits,
        stored_as=folder.stored_as,
        card_bytes=parts.card_bytes,
    )
    counts = steps or defaults.steps
    scale = defaults.guidance_scale if guidance is None else guidance
    factor = needs.codec.spatial
    latent = size[0] // factor, size[1] // factor
    led = method == "warp-as-history"
    passes = 1 if scale == 1.0 else 2
    peak, flops = 0, 0.0
    for stage, count in enumerate(counts):
        warped = band if led and stage < defaults.warp_stages else None
        make = partial(_history, needs.codec.latent_channels, band=warped)
        need = needs.denoise(latent, 2 ** (len(counts) - 1 - stage), make)
        peak = max(peak, need.peak_bytes)
        flops += need.flops * count * passes
    weights, warp = _scene_needs(folder, needs, size, device, geometry if led else None, parts)
    return RunNeeds(
        weights=weights,
        text=needs.text(defaults.max_sequence_length),
        encode=needs.encode(size),
        warp=warp,
        denoise=Need(peak, flops),
        decode=needs.decode(size),
        frames=-(-frames // CHUNK_FRAMES) * CHUNK_FRAMES,
        size=size,
        device=device,
        calls=sum(counts) * passes,
        copied_bytes=_copied_bytes(needs, device),
        eight_bits=parts.eight_bits,
    )


def _codec_dtype(parts: RunParts, device: str) -> torch.dtype:
    usual = torch.float16 if device == "cuda" else torch.float32
    return parts.codec_dtype or usual


def _copied_bytes(needs: ModelNeeds, device: str) -> int:
    """What waits in host memory while layers are made 8-bit on their way to a GPU."""
    return needs.copied_bytes() if needs.eight_bits and device == "cuda" else 0


def own_window(folder: ModelFolder) -> Window:
    """How method worldwarp cuts chunks where nothing else is asked for."""
    usual = folder.defaults.worldwarp
    return Window(usual.chunk_frames, usual.overlap)


def _worldwarp_needs(
    folder: ModelFolder,
    size: tuple[int, int],
    frames: int,
    device: str,
    steps: tuple[int, ...] | None,
    guidance: float | None,
    geometry: str,
    parts: RunParts,
) -> RunNeeds:
    usual, window = folder.defaults.worldwarp, parts.window or own_window(folder)
    assert folder.st_diff is not None
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    wide = _codec_dtype(parts, device)
    needs = ModelNeeds(
        folder.path,
        device,
        dtype,
        folder.st_diff.name,
        codec_dtype=wide,
        eight_bits=parts.eight_bits,
        stored_as=folder.stored_as,
        card_bytes=parts.card_bytes,
    )
    factor, length = needs.codec.spatial, folder.defaults.max_sequence_length
    latent = size[0] // factor, size[1] // factor
    scale = usual.guidance_scale if guidance is None else guidance
    calls = (steps or (usual.steps,))[0] * (1 if scale == 1.0 else 2)
    once = needs.denoise_tokens(latent, window.latents, length)
    weights, warp = _scene_needs(folder, needs, size, device, geometry, parts)
    caption = Need(0, 0.0)
    if parts.captioner is not None:
        weights["captioner"], caption = captioner_need(parts.captioner, dtype)
    return RunNeeds(
        weights=weights,
        text=needs.text(length),
        encode=needs.encode(size, window.frames),
        warp=warp,
        denoise=Need(once.peak_bytes, once.flops * calls),
        decode=needs.decode(size, window.frames),
        frames=window.first(window.chunks(frames)),
        size=size,
        device=device,
        calls=calls,
        caption=caption,
        copied_bytes=_copied_bytes(needs, device),
        eight_bits=parts.eight_bits,
    )


def _scene_needs(
    folder: ModelFolder,
    needs: ModelNeeds,
    size: tuple[int, int],
    device: str,
    geometry: str | None,
    parts: RunParts,
) -> tuple[dict[str, PartNeed], Need]:
    """Weights of all parts, and rendering; ``geometry`` None: no camera leads."""
    weights, nothing = needs.weights(), Need(0, 0.0)
    if geometry is None or not is_network(geometry):
        weights.pop("geometry", None)
    if geometry is None:
        return weights, nothing
    warp = Need(pass_bytes(device, size), 0.0)
    if parts.sources:
        warp = Need(max(warp.peak_bytes, fit_bytes(size, parts.sources)), 0.0)
    look = Need(0, 0.0)
    if is_monocular(geometry):
        weights["geometry"], look = depth_need(planned_monocular(geometry), size)
    elif (streaming := streaming_folder(geometry, folder)) is not None:
        weights["geometry"], look = streaming_need(find_streaming(streaming), size)
    elif "geometry" in weights:
        look = needs.geometry(size, parts.views, parts.pixel_limit)
    return weights, Need(max(warp.peak_bytes, look.peak_bytes), look.flops)


def _history(channels: int, latent: tuple[int, int], *, band: WarpBand | None) -> History:
    """A history of full length on shapes alone, nothing left out."""
    past = torch.zeros(1, channels, 19, *latent)
    prefix = torch.zeros(1, channels, 1, *latent)
    if band is None:
        return native_history(past, prefix)
    warp = torch.zeros(1, channels, LATENT_FRAMES, *latent)
    seen = torch.ones(1, LATENT_FRAMES, *latent)
    settings = WarpHistorySettings(select=False, mode=band)
    return warped_history(prefix, past, warp, seen, settings=settings)[0]
