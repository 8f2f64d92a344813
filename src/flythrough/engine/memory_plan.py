"""Where the weights of a model lie during a run, and what that takes: known before loading.

Each network is run on shapes alone (``models.accounting``), so the figures follow size, method and
model. What libraries take beside tensors is added as constants that were measured on an H200.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import get_args

import torch

from flythrough.conditioning.history import native_history
from flythrough.conditioning.warped_history import (
    WarpBand,
    WarpHistorySettings,
    warped_history,
)
from flythrough.engine.files import is_monocular, is_network, is_streaming
from flythrough.engine.options import check_memory
from flythrough.engine.presets import FAST_CODEC
from flythrough.engine.stored_settings import warp_settings
from flythrough.engine.words import MemoryChoice
from flythrough.errors import InputError
from flythrough.models.accounting import Need
from flythrough.models.adapter_origin import adapter_origin
from flythrough.models.catalog import ModelFolder
from flythrough.models.history_tokens import History
from flythrough.models.loading import Placement
from flythrough.models.monocular_files import find_monocular
from flythrough.models.needs import ModelNeeds, PartNeed, depth_need, streaming_need
from flythrough.models.ttt3r_folder import find_streaming
from flythrough.rollout.chunk import CHUNK_FRAMES, LATENT_FRAMES
from flythrough.rollout.spec import Method, RolloutSpec
from flythrough.rollout.window import Window
from flythrough.scene.raster import pass_bytes

PLACEMENTS: tuple[Placement, ...] = get_args(Placement)

_GIB = 2**30
_SLACK = 1.03
_LIBRARY_BYTES = {"cuda": 64 << 20, "cpu": 600 << 20}
"""Beside tensors: workspaces of the matrix library; on the CPU the Python process and libraries."""
_HOST_PROCESS_BYTES = 4 << 30
"""Host memory of a process that drives a GPU, weights apart."""


@dataclass(frozen=True)
class Phase:
    """A part of a chunk's work: the most bytes on the device while it runs, its operations."""

    name: str
    device_bytes: int
    flops: float


@dataclass(frozen=True)
class MemoryPlan:
    """What a run takes with one placement.

    ``host_bytes``: the process and the weights that wait in host memory; 0 on a CPU, whose memory
    is the host's. ``disk_bytes`` hold frames until the video is done. ``calls``: how often a chunk
    runs the denoiser.
    """

    placement: Placement
    phases: tuple[Phase, ...]
    host_bytes: int
    disk_bytes: int
    calls: int

    @property
    def device_bytes(self) -> int:
        return max(phase.device_bytes for phase in self.phases)

    def fits(self, free: int, host_free: int) -> bool:
        """Whether the plan fits; allocators need a little more than the sum of tensors."""
        return self.device_bytes * _SLACK <= free and self.host_bytes <= host_free

    @property
    def flops(self) -> float:
        """Operations of one chunk."""
        return sum(phase.flops for phase in self.phases)


@dataclass(frozen=True)
class RunNeeds:
    """What the parts of a run take, whatever the placement."""

    weights: dict[str, PartNeed]
    text: Need
    encode: Need
    warp: Need
    denoise: Need
    decode: Need
    frames: int
    size: tuple[int, int]
    device: str
    calls: int

    def plan(self, placement: Placement) -> MemoryPlan:
        """The figures of one placement."""
        zero = PartNeed(0, 0)
        net, text = self.weights["transformer"], self.weights["text_encoder"]
        codec, geometry = self.weights["vae"], self.weights.get("geometry", zero)
        always = geometry.whole + _LIBRARY_BYTES[self.device]
        host = _HOST_PROCESS_BYTES
        if placement == "resident":
            always += net.whole + text.whole + codec.whole
            own = dict.fromkeys(("text", "codec", "net"), 0)
        elif placement == "drop-text":
            always += net.whole + codec.whole
            host += text.whole
            streamed = text.whole if self.device == "cpu" else text.streamed
            own = {"text": streamed, "codec": 0, "net": 0}
        else:
            host += net.whole + text.whole + codec.whole
            own = {"text": text.streamed, "codec": codec.whole, "net": net.streamed}
        phases = (
            _phase("read the prompt", always + own["text"], self.text),
            _phase("render the warp", always, self.warp),
            _phase("encode", always + own["codec"], self.encode),
            _phase("denoise", always + own["net"], self.denoise),
            _phase("decode", always + own["codec"], self.decode),
        )
        disk = self.frames * self.size[0] * self.size[1] * 3
        host = 0 if self.device == "cpu" else host
        return MemoryPlan(placement, phases, host, disk, self.calls)


@dataclass(frozen=True)
class RunParts:
    """What a run has beside the networks of its model folder.

    Attributes:
        adapters: files or folders of adapters, all counted in every stage.
        codec: takes the place of the folder's own.
        pixel_limit: bounds the pictures that the geometry network sees, ``views`` at a time.
        window: how method worldwarp cuts chunks; None: as the model has it.
    """

    adapters: tuple[Path, ...] = ()
    codec: Path | None = None
    pixel_limit: int | None = None
    views: int = 1
    window: Window | None = None


def default_parts(folder: ModelFolder, method: Method, band: WarpBand = "short") -> RunParts:
    """The shipped camera adapter, where a camera leads and it was trained for the band."""
    file = folder.camera_adapter(band) if method == "warp-as-history" else None
    if file is None or not adapter_origin(file).suits(band):
        return RunParts()
    return RunParts((file,))


def parts_of(spec: RolloutSpec, folder: ModelFolder) -> RunParts:
    """What a rollout names: adapters, codec, size and number of pictures for geometry."""
    settings = spec.settings
    adapters: tuple[Path, ...] = ()
    if spec.lora == "default":
        adapters = default_parts(folder, spec.method, settings.get("warp_band", "short")).adapters
    elif spec.lora != "off":
        adapters = (Path(spec.lora),)
    if settings.get("style_lora") is not None:
        adapters += (Path(settings["style_lora"]),)
    views = 1
    if spec.method == "warp-as-history":
        warp = warp_settings(spec)
        views = warp.older_keyframes + 2 if warp.estimation == "joint" else 1
    return RunParts(
        adapters=adapters,
        codec=folder.fast_codec if settings.get("codec") == FAST_CODEC else None,
        pixel_limit=settings.get("geometry_pixel_limit"),
        views=views,
        window=spec.window if spec.method == "worldwarp" else None,
    )


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
    needs = ModelNeeds(folder.path, device, dtype, codec=parts.codec, adapters=parts.adapters)
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
    weights, warp = _scene_needs(needs, size, device, geometry if led else None, parts)
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
    )


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
    needs = ModelNeeds(folder.path, device, dtype, folder.st_diff.name)
    factor, length = needs.codec.spatial, folder.defaults.max_sequence_length
    latent = size[0] // factor, size[1] // factor
    scale = usual.guidance_scale if guidance is None else guidance
    calls = (steps or (usual.steps,))[0] * (1 if scale == 1.0 else 2)
    once = needs.denoise_tokens(latent, window.latents, length)
    weights, warp = _scene_needs(needs, size, device, geometry, parts)
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
    )


def _scene_needs(
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
    look = Need(0, 0.0)
    if is_monocular(geometry):
        weights["geometry"], look = depth_need(find_monocular(geometry), size)
    elif is_streaming(geometry):
        weights["geometry"], look = streaming_need(find_streaming(geometry), size)
    elif "geometry" in weights:
        look = needs.geometry(size, parts.views, parts.pixel_limit)
    return weights, Need(max(warp.peak_bytes, look.peak_bytes), look.flops)


def placement_for(
    spec: RolloutSpec,
    folder: ModelFolder,
    device: torch.device,
    asked: MemoryChoice,
    notify: Callable[[str], None],
) -> Placement:
    """The placement to load with; says so when it is not what everybody expects.

    Raises:
        InputError: the choice cannot fit, none can, or it has no effect on the device.
    """
    check_memory(asked, device.type)
    here = str(device)
    if device.type != "cuda":
        roomy = 3 * sum(file.stat().st_size for file in folder.weight_files()) + 2 * _GIB
        usual = folder.defaults.height * folder.defaults.width
        modest = spec.height * spec.width <= usual and roomy < available_host_bytes()
        if asked == "auto" and modest:
            return "resident"
        here = "the host"
    needs = run_needs(
        folder,
        (spec.height, spec.width),
        spec.method,
        CHUNK_FRAMES,
        "cuda" if device.type == "cuda" else "cpu",
        steps=tuple(spec.settings["steps"]),
        guidance=float(spec.settings["guidance"]),
        geometry=spec.geometry,
        band=spec.settings.get("warp_band", "short"),
        parts=parts_of(spec, folder),
    )
    plan = choose_placement(needs, asked, free_bytes(device), available_host_bytes(), here)
    if asked == "auto" and plan.placement != "resident":
        whole = needs.plan("resident").device_bytes
        notify(
            f"all weights would need {whole / _GIB:.1f} GiB on {here}: --memory {plan.placement} "
            f"is used ({plan.device_bytes / _GIB:.1f} GiB there)."
        )
    return plan.placement


def choose_placement(
    needs: RunNeeds, asked: MemoryChoice, free: int, host_free: int, where: str
) -> MemoryPlan:
    """The placement asked for, or the first that fits: into ``free`` bytes of ``where`` and, for
    weights that wait there, into ``host_free`` bytes of host memory.

    Raises:
        InputError: it does not fit, or none does.
    """
    options = PLACEMENTS if needs.device == "cuda" else PLACEMENTS[:2]
    plans = [needs.plan(p) for p in options if asked in ("auto", p)]
    for plan in plans:
        if plan.fits(free, host_free):
            return plan
    least = min(plans, key=lambda plan: plan.device_bytes)
    height, width = needs.size
    run = f"A run at {height}x{width} with --memory {least.placement} needs"
    if least.fits(free, least.host_bytes):
        raise InputError(
            f"{run} {least.host_bytes / _GIB:.1f} GiB of host memory, but "
            f"{host_free / _GIB:.1f} GiB are free; close other programs or use a larger GPU."
        )
    remedy = "--memory auto" if asked in ("resident", "drop-text") else "a smaller --size"
    raise InputError(
        f"{run} {least.device_bytes / _GIB:.1f} GiB on {where}, but {free / _GIB:.1f} GiB are "
        f"free; use {remedy} or another --device."
    )


def free_bytes(device: torch.device) -> int:
    """Free memory of a device; of the host for the CPU."""
    if device.type == "cuda":
        gc.collect()  # hooks of streamed layers form cycles
        torch.cuda.empty_cache()
        return int(torch.cuda.mem_get_info(device)[0])
    return available_host_bytes()


def available_host_bytes() -> int:
    """Host memory that can be had without swapping."""
    try:
        with open("/proc/meminfo") as opened:
            values = dict(line.split(":", 1) for line in opened)
        return int(values["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _phase(name: str, weights: int, need: Need) -> Phase:
    return Phase(name, weights + need.peak_bytes, need.flops)


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
