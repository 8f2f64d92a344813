"""Where the weights of a model lie during a run: as asked for, or the first placement that fits."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import torch

from flythrough.engine.hardware import ONE_DEVICE, Hardware, may_record
from flythrough.engine.memory_plan import SLACK, MemoryPlan, RunNeeds
from flythrough.engine.options import check_memory
from flythrough.engine.run_needs import captioner_of, parts_of, run_needs
from flythrough.engine.words import EIGHT_BITS, Compute, MemoryChoice
from flythrough.errors import InputError
from flythrough.models.catalog import ModelFolder
from flythrough.models.loading import Placement
from flythrough.models.parts import weights_of
from flythrough.rollout.chunk import CHUNK_FRAMES
from flythrough.rollout.spec import RolloutSpec

_GIB = 2**30


class Placed(NamedTuple):
    """Where weights lie, whether a chunk may be decoded beside the denoising of the next, and
    whether calls of the denoiser are recorded."""

    placement: Placement
    beside: bool = False
    records: bool = False


def placement_for(
    spec: RolloutSpec,
    folder: ModelFolder,
    device: torch.device,
    asked: MemoryChoice,
    notify: Callable[[str], None],
    hardware: Hardware = ONE_DEVICE,
    codec_dtype: torch.dtype | None = None,
    compute: Compute = "auto",
) -> Placed:
    """The placement to load with; says so when it is not what everybody expects.

    ``codec_dtype``: what the codec will compute in; None: what it does where nothing is asked for.
    ``compute``: the denoiser's path.

    Raises:
        InputError: the choice cannot fit, none can, or it has no effect on the device; what
            ``hardware`` puts on other devices does not fit there.
    """
    check_memory(asked, device.type)
    here = str(device)
    if device.type != "cuda" and hardware == ONE_DEVICE:
        files = list(folder.weight_files())
        if (words := captioner_of(spec)) is not None:
            files += weights_of(words.path, "model").files
        roomy = 3 * sum(file.stat().st_size for file in files) + 2 * _GIB
        usual = folder.defaults.height * folder.defaults.width
        modest = spec.height * spec.width <= usual and roomy < available_host_bytes()
        if asked == "auto" and modest:
            return Placed("resident")
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
        parts=replace(
            parts_of(spec, folder), codec_dtype=codec_dtype, eight_bits=compute in EIGHT_BITS
        ),
    )
    room = Room(device, available_host_bytes(), cache(free_bytes))
    recording = recording_for(needs, hardware, compute, asked, room)
    needs = recording.needs
    apart = check_other_devices(needs, hardware, room.free)
    if device.type != "cuda":
        here = "the host"
    needs = needs.without(apart)
    free = room.free(device)
    plan = choose_placement(needs, asked, free, room.host_free, here)
    check_stays(plan, hardware, free, here, needs)
    if recording.why_not:
        notify(f"{recording.why_not}.")
    if asked == "auto" and plan.placement != "resident":
        whole = needs.plan("resident").device_bytes
        notify(
            f"all weights would need {whole / _GIB:.1f} GiB on {here}: --memory {plan.placement} "
            f"is used ({plan.device_bytes / _GIB:.1f} GiB there)."
        )
    return Placed(plan.placement, plan.fits_beside(free), recording.records)


def choose_placement(
    needs: RunNeeds, asked: MemoryChoice, free: int, host_free: int, where: str
) -> MemoryPlan:
    """The placement asked for, or the first that fits: into ``free`` bytes of ``where`` and, for
    weights that wait there, into ``host_free`` bytes of host memory.

    Raises:
        InputError: it does not fit, or none does.
    """
    if asked not in ("auto", *needs.placements):
        raise InputError(
            f"--memory {asked} streams layers in full precision; drop it or --precision."
        )
    plans = [needs.plan(p) for p in needs.placements if asked in ("auto", p)]
    for plan in plans:
        if plan.fits(free, host_free):
            return plan
    least = min(plans, key=lambda plan: plan.device_bytes)
    height, width = needs.size
    run = f"A run at {height}x{width} with --memory {least.placement} needs"
    if least.fits(free, least.host_bytes):
        other = "drop --precision" if needs.copied_bytes else "use a larger GPU"
        raise InputError(
            f"{run} {least.host_bytes / _GIB:.1f} GiB of host memory, but "
            f"{host_free / _GIB:.1f} GiB are free; close other programs or {other}."
        )
    remedy = "--memory auto" if asked in ("resident", "drop-text") else "a smaller --size"
    wanted = int(least.device_bytes * SLACK)
    raise InputError(
        f"{run} {wanted / _GIB:.1f} GiB on {where} (with {SLACK - 1:.0%} for gaps), but "
        f"{free / _GIB:.1f} GiB are free; {_without_graphs(needs)}use {remedy} or another device."
    )


class Room(NamedTuple):
    """Memory of a run's own ``device``, of the host, and what is ``free`` on any device."""

    device: torch.device
    host_free: int
    free: Callable[[torch.device], int]


class Recording(NamedTuple):
    """Whether a run ``records`` calls of its denoiser, what it needs then, and what keeps a run
    that may from doing so."""

    needs: RunNeeds
    records: bool
    why_not: str = ""


def recording_for(
    needs: RunNeeds, hardware: Hardware, compute: Compute, asked: MemoryChoice, room: Room
) -> Recording:
    """Calls are recorded if that was asked for, or if they may be and there is room on every GPU
    that gives up nothing else: neither where weights would lie nor decoding beside denoising."""
    if not may_record(hardware, room.device.type, compute):
        return Recording(needs, records=False)
    # One call's temporaries, which recordings share.
    more = replace(needs, graph_bytes=needs.denoise.peak_bytes)
    if hardware.graphs or _gives_up_nothing(needs, more, hardware, asked, room):
        return Recording(more, records=True)
    words = "too little memory is free to record the denoiser's calls, so they are launched"
    for placement in _staying(needs, "auto"):
        if placement != asked and _gives_up_nothing(needs, more, hardware, placement, room):
            words += f"; --memory {placement} would make room"
            break
    return Recording(needs, records=False, why_not=words)


def _gives_up_nothing(
    needs: RunNeeds, more: RunNeeds, hardware: Hardware, asked: MemoryChoice, room: Room
) -> bool:
    """Whether what takes ``more`` is placed as what takes ``needs``, and decodes beside denoising
    if that does."""
    apart, free = named_devices(hardware), room.free(room.device)
    for placement in _staying(needs, asked):
        plan, larger = (one.without(apart).plan(placement) for one in (needs, more))
        if plan.fits(free, room.host_free):
            own = larger.fits(free, room.host_free)
            beside = larger.fits_beside(free) or not plan.fits_beside(free)
            others = (share.wanted <= room.free(share.device) for share in shares(more, hardware))
            return own and beside and all(others)
    return False  # nor is there room for the run


def _staying(needs: RunNeeds, asked: MemoryChoice) -> list[Placement]:
    """The placements that leave the denoiser on its GPU."""
    return [p for p in needs.placements if p != "offload" and asked in ("auto", p)]


def check_stays(
    plan: MemoryPlan, hardware: Hardware, free: int, where: str, needs: RunNeeds
) -> None:
    """The denoiser's weights lie on the run's own device, where others take part.

    Raises:
        InputError: they would have to come layer by layer.
    """
    if plan.placement == "offload" and hardware != ONE_DEVICE:
        raise InputError(
            f"The denoiser does not fit into the {free / _GIB:.1f} GiB that are free "
            f"on {where}, and --gpus and --codec-device need it there; "
            f"{_without_graphs(needs)}use a smaller --size, --precision fp8 or another GPU."
        )


def _without_graphs(needs: RunNeeds) -> str:
    """The first remedy of a run that was asked to record calls."""
    return "drop --graphs, " if needs.graph_bytes else ""


class Share(NamedTuple):
    """The ``parts`` of a run that are on another ``device`` than its own, and what they need
    there."""

    device: torch.device
    parts: list[str]
    wanted: int


def shares(needs: RunNeeds, hardware: Hardware) -> list[Share]:
    """What ``hardware`` puts on other devices than the run's own."""
    parts: dict[torch.device, list[str]] = {}
    if needs.device == "cuda":
        for number in range(1, hardware.gpus):
            parts[torch.device("cuda", number)] = ["denoiser"]
    for part, name in named_devices(hardware).items():
        parts.setdefault(torch.device("cuda:0" if name == "cuda" else name), []).append(part)
    return [
        Share(device, held, int(needs.alone(held, _kind(device)) * SLACK))
        for device, held in parts.items()
    ]


def _kind(device: torch.device) -> str:
    return "cuda" if device.type == "cuda" else "cpu"


def named_devices(hardware: Hardware) -> dict[str, str]:
    """The parts ("geometry", "codec") whose device was named, and its name."""
    named = {"geometry": hardware.geometry, "codec": hardware.codec}
    return {part: name for part, name in named.items() if name is not None}


def check_other_devices(
    needs: RunNeeds, hardware: Hardware, free: Callable[[torch.device], int]
) -> list[str]:
    """The parts ("geometry", "codec") that are not on the run's own device.

    Raises:
        InputError: a device has too little memory for what ``hardware`` puts there.
    """
    for device, held, wanted in shares(needs, hardware):
        there = free(device)
        if wanted > there:
            raise InputError(
                f"{' and '.join(held)} of this run need {wanted / _GIB:.1f} GiB on {device}, but "
                f"{there / _GIB:.1f} GiB are free there; "
                f"{_without_graphs(needs)}use another device or a smaller --size."
            )
    return list(named_devices(hardware))


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
