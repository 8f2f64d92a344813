"""Facts about this machine and a model, gathered without loading the model."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flythrough.engine.device_rates import bus_rate, matrix_rate
from flythrough.engine.hardware import ONE_DEVICE, Hardware, check_count, check_hardware, may_record
from flythrough.engine.options import check_device, check_memory, check_size
from flythrough.engine.request_notes import size_notes
from flythrough.engine.words import Compute, MemoryChoice, Precision
from flythrough.engine.worldwarp_options import check_denoiser, no_captioner
from flythrough.errors import InputError
from flythrough.models.captioner_folder import find_captioner
from flythrough.models.catalog import ModelFolder, disk_bytes
from flythrough.models.foreseen import found_or_foreseen
from flythrough.models.hub import foreseen_fetch
from flythrough.models.published import ENTRIES, Entry
from flythrough.rollout.spec import Method
from flythrough.rollout.window import STANDARD, Window

if TYPE_CHECKING:
    import torch

    from flythrough.engine.memory_plan import MemoryPlan, RunNeeds
    from flythrough.engine.placement import Room
    from flythrough.engine.run_needs import RunParts

_PACKAGES = ("torch", "diffusers", "transformers", "peft", "av", "safetensors")
_GIB = 2**30
_EFFICIENCY = {"cuda": 0.5, "cpu": 0.5}
"""Share of the matrix rate that a chunk reaches: measured with 14B weights on an H200, and with
nano on two cores."""


@dataclass(frozen=True)
class Row:
    """One finding: what was looked at, what was found, whether it is good enough; ``data`` holds
    the numbers behind the words."""

    name: str
    found: str
    good: bool = True
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """All findings, and the name of the model that ``models pull`` has to fetch before the run, if
    there is one."""

    rows: tuple[Row, ...]
    to_fetch: str | None = None

    @property
    def good(self) -> bool:
        return all(row.good for row in self.rows)


@dataclass(frozen=True)
class Intent:
    """The run that memory and time are foretold for; None is the model's own size and the method
    that it is for with a camera. ``card``: memory in GB (10^9 bytes) of each GPU of another machine
    that it is planned for."""

    model: str = "nano"
    size: tuple[int, int] | None = None
    frames: int = 66
    method: Method | None = None
    device: str = "auto"
    memory: MemoryChoice = "auto"
    caption: str | None = None
    precision: Precision = "full"
    hardware: Hardware = ONE_DEVICE
    card: float | None = None


def examine(intent: Intent) -> Report:
    """Look at packages, devices, disk and the model folder, and foretell a run; of a published
    model that is not here, from what is known of it.

    Raises:
        WeightsError: there is no such model, its folder is incomplete or a configuration is wrong.
        InputError: an option that is out of range or has no effect.
    """
    if intent.card is not None:
        _check_card(intent)
    check_device(intent.device)
    check_memory(intent.memory, "cuda" if intent.card is not None else intent.device)
    if not 1 <= intent.frames <= 100_000:
        raise InputError(f"--frames {intent.frames} is out of range; give 1 to 100000.")
    with found_or_foreseen(intent.model) as folder:
        entry = None if folder.stored_as is None else ENTRIES[folder.name]
        method = _checked_method(intent, folder)
        size = intent.size or (folder.defaults.height, folder.defaults.width)
        check_size(size, pyramid=method != "worldwarp")
        if intent.card is not None:
            return Report((*_camera(folder, method), *_on_card(intent, method, folder, size)))
        rows = [_package(name) for name in _PACKAGES]
        rows += [_devices(), _model(folder) if entry is None else _fetch(entry)]
        rows += [*_camera(folder, method), *_foretold(intent, method, folder, size)]
    return Report(tuple(rows), None if entry is None else entry.name)


def _check_card(intent: Intent) -> None:
    assert intent.card is not None
    if not 1 <= intent.card <= 1000:
        raise InputError(
            f"--card {intent.card:g} is out of range; give a GPU's memory in GB, 1 to 1000."
        )
    named = (intent.hardware.geometry, intent.hardware.codec)
    if intent.device != "auto" or any(name is not None for name in named):
        raise InputError(
            f"--card {intent.card:g} plans for GPUs that need not be here, so no device can be "
            "named beside it; drop one of them."
        )


def _checked_method(intent: Intent, folder: ModelFolder) -> Method:
    """The method of the run, with the options that depend on it checked."""
    method = intent.method or ("warp-as-history" if folder.is_helios else "worldwarp")
    check_denoiser(method, folder)
    if intent.caption is not None and method != "worldwarp":
        raise no_captioner(intent.caption, method)
    check_hardware(
        intent.hardware,
        intent.device,
        intent.memory,
        _compute(intent),
        method,
        renders=method != "helios",
        here=False,
    )
    if intent.hardware.gpus != 1 and intent.card is None and intent.device != "cpu":
        check_count(intent.hardware.gpus, " or plan for GPUs that are not here with --card")
    return method


def _compute(intent: Intent) -> Compute:
    return "auto" if intent.precision == "full" else intent.precision


def _package(name: str) -> Row:
    try:
        return Row(name, version(name))
    except PackageNotFoundError:
        return Row(name, "not installed; run pip install flythrough", good=False)


def _devices() -> Row:
    import torch

    if not torch.cuda.is_available():
        return Row("devices", f"cpu ({os.cpu_count()} cores), no GPU")
    names = [
        f"{torch.cuda.get_device_name(i)} {torch.cuda.mem_get_info(i)[1] / _GIB:.0f} GiB"
        for i in range(torch.cuda.device_count())
    ]
    return Row("devices", ", ".join(names) + _attention(torch.device("cuda")))


def _attention(device: Any) -> str:
    """What a Hopper GPU has or lacks for attention; nothing of others."""
    from flythrough.models.fast.attention import has_flash3, is_hopper

    if not is_hopper(device):
        return ""
    if has_flash3(device):
        return "; FlashAttention 3"
    return "; pip install 'flythrough[hopper]' brings FlashAttention 3, which is faster"


def _model(folder: ModelFolder) -> Row:
    parts = [p.name for p in sorted(folder.path.iterdir()) if p.is_dir()]
    size = disk_bytes(folder.path) / 2**20
    return Row("model", f"{folder.name}: {size:.0f} MiB ({', '.join(parts)})")


def _fetch(entry: Entry) -> Row:
    """A model that is not here: what fetching it takes, and whether the disk has room."""
    found = foreseen_fetch(entry)
    words = (
        f"{entry.name} is {'only in part' if found.begun else 'not'} on this machine: figures are "
        "foretold from the published sizes; "
        f"`flythrough models pull {entry.name}` fetches {found.lacking / 1e9:.1f} GB into "
        f"{found.place}, where {'' if found.fits else 'only '}{found.free / 1e9:.1f} GB are free"
    )
    if not found.fits:
        words += "; make room or choose another disk with --to"
    data = {"fetch_bytes": found.lacking, "fetch_to": str(found.place), "free_bytes": found.free}
    return Row("model", words, found.fits, {**data, "fits": found.fits})


def _camera(folder: ModelFolder, method: Method) -> list[Row]:
    """What a camera needs that the model does not ship, and that is not counted therefore."""
    if method == "helios":
        return []
    lacking = []
    if folder.geometry is None:
        lacking.append("geometry network (name one with --geometry, such as depth-anything)")
    if method == "warp-as-history" and folder.camera_lora is None:
        lacking.append(
            "camera adapter (--lora FILE, such as that of warp-as-history-lora, which is not for "
            "commercial use)"
        )
    if not lacking:
        return []
    words = f"{folder.name} ships no {' and no '.join(lacking)}"
    return [Row("camera", f"{words}: not counted; see `flythrough models list`")]


def _on_card(
    intent: Intent, method: Method, folder: ModelFolder, size: tuple[int, int]
) -> list[Row]:
    """Whether the run would fit GPUs of that memory, whatever is here; of the host it says what is
    needed alone, and of time nothing."""
    import torch

    from flythrough.engine.memory_plan import SLACK
    from flythrough.engine.placement import Room, check_stays, choose_placement
    from flythrough.engine.run_needs import run_needs

    assert intent.card is not None
    free, hardware = int(intent.card * 1e9), intent.hardware
    parts = replace(_parts(intent, method, folder), card_bytes=free)
    needs = run_needs(folder, size, method, intent.frames, "cuda", parts=parts)
    room = Room(torch.device("cuda", 0), 1 << 60, lambda _: free)
    needs, recorded = _recorded(intent, needs, room)
    where = f"a GPU of {intent.card:g} GB ({free / _GIB:.1f} GiB)"
    rows = [_run(intent, method, folder, size, where)]
    for plan in _plans(needs, hardware):
        rows.append(_placed(plan, plan.fits(free, plan.host_bytes), "it", method))
    if intent.precision != "full":
        least = "of compute capability 8.9 or more"
        if intent.precision == "fp8-all":
            least = "of Hopper's generation, and FlashAttention 3"
        rows.append(Row("precision", f"{intent.precision} needs a GPU {least}"))
    try:
        plan = choose_placement(needs, intent.memory, free, room.host_free, where)
        check_stays(plan, hardware, free, where)
    except InputError as error:
        return [*rows, Row("memory", str(error), good=False)]
    words = f"--memory {plan.placement} fits, {plan.host_bytes / _GIB:.1f} GiB of host memory"
    rows.append(Row("memory", words))
    rows += recorded
    if hardware.gpus > 1:
        wanted = int(needs.alone(["denoiser"], "cuda") * SLACK)
        rows.append(_needed(f"each of {hardware.gpus - 1} others", ["denoiser"], wanted, free))
    return rows


def _run(
    intent: Intent, method: Method, folder: ModelFolder, size: tuple[int, int], where: str
) -> Row:
    """The run that is foretold."""
    words = f"{intent.frames} frames of {size[0]}x{size[1]}, {method}, on {where}"
    return Row("run", "; ".join([words, *size_notes(size, folder)]))


def _plans(needs: RunNeeds, hardware: Hardware) -> list[MemoryPlan]:
    """The plans to choose from; layers are not streamed where other devices take part."""
    usable = (p for p in needs.placements if p != "offload" or hardware == ONE_DEVICE)
    return [needs.plan(placement) for placement in usable]


def _parts(intent: Intent, method: Method, folder: ModelFolder) -> RunParts:
    """What the run has beside the networks of its folder."""
    from flythrough.engine.run_needs import default_parts

    parts = replace(default_parts(folder, method), eight_bits=intent.precision != "full")
    if intent.caption is not None:
        parts = replace(parts, captioner=find_captioner(intent.caption))
    return parts


def _foretold(
    intent: Intent, method: Method, folder: ModelFolder, size: tuple[int, int]
) -> list[Row]:
    from flythrough.engine.build import pick_device
    from flythrough.engine.placement import (
        Room,
        available_host_bytes,
        check_stays,
        choose_placement,
        free_bytes,
        named_devices,
    )
    from flythrough.engine.run_needs import own_window, run_needs

    device, hardware = pick_device(intent.device), intent.hardware
    kind = "cuda" if device.type == "cuda" else "cpu"
    parts = _parts(intent, method, folder)
    every = run_needs(folder, size, method, intent.frames, kind, parts=parts)
    host_free = available_host_bytes()
    every, recorded = _recorded(intent, every, Room(device, host_free, free_bytes))
    needs = every.without(named_devices(hardware))
    free = free_bytes(device)
    where = f"GPU {device}" if kind == "cuda" else "host memory"
    rows = [_run(intent, method, folder, size, str(device))]
    for plan in _plans(needs, hardware):
        rows.append(_placed(plan, plan.fits(free, host_free), where, method))
    rows += _precision(intent.precision, device)
    try:
        plan = choose_placement(needs, intent.memory, free, host_free, where)
        check_stays(plan, hardware, free, where)
    except InputError as error:
        return [*rows, Row("memory", str(error), good=False), *_other_devices(every, hardware)]
    rows.append(Row("memory", f"{free / _GIB:.1f} GiB free: --memory {plan.placement} fits"))
    rows += recorded
    if hardware != ONE_DEVICE:
        rows.append(_own_device(device, plan, free))
    rows += _other_devices(every, hardware, plan.device_bytes)
    rows.append(_disk(plan.disk_bytes))
    window = own_window(folder) if method == "worldwarp" else STANDARD
    weights = needs.weights["transformer"].whole
    spent = _duration(plan, intent.frames, window, device, weights)
    if hardware.gpus > 1:
        shared = f"counted for one of the {hardware.gpus} that share the denoiser"
        spent = replace(spent, found=f"{spent.found}; {shared}")
    return [*rows, spent]


def _recorded(intent: Intent, needs: RunNeeds, room: Room) -> tuple[RunNeeds, list[Row]]:
    """``needs`` with those of recorded calls where calls are recorded, and what there is to say."""
    from flythrough.engine.placement import records_calls, with_graphs

    compute = _compute(intent)
    if records_calls(needs, intent.hardware, compute, intent.memory, room):
        needs = with_graphs(needs)
        more = f"{needs.graph_bytes / _GIB:.1f} GiB more on each GPU"
        return needs, [Row("graphs", f"calls of the denoiser are recorded: {more}")]
    if may_record(intent.hardware, room.device.type, compute):
        words = "too little memory to record calls of the denoiser, so they are launched"
        return needs, [Row("graphs", words)]
    return needs, []


def _placed(plan: MemoryPlan, fits: bool, where: str, method: Method) -> Row:
    """What one placement of the weights takes."""
    words = f"{plan.device_bytes / _GIB:.1f} GiB of {where}"
    if plan.host_bytes:
        words += f" and {plan.host_bytes / _GIB:.1f} GiB of host memory"
    peak = max(plan.phases, key=lambda phase: phase.device_bytes)
    words += f" (most to {peak.name}){'' if fits else ': does not fit'}"
    if method == "helios" and plan.beside_bytes:
        words += f"; {plan.beside_bytes / _GIB:.1f} GiB if chunks are decoded beside denoising"
    phases = {phase.name: phase.device_bytes for phase in plan.phases}
    data = {"device_bytes": plan.device_bytes, "host_bytes": plan.host_bytes, "fits": fits}
    data["beside_bytes"] = plan.beside_bytes
    return Row(f"--memory {plan.placement}", words, data={**data, "phases": phases})


def _precision(precision: Precision, device: torch.device) -> list[Row]:
    """Whether the device can do what was asked for, if that is not the usual."""
    from flythrough.engine.acceleration import check_eight_bits

    if precision == "full":
        return []
    try:
        check_eight_bits(precision, device)
    except InputError as error:
        return [Row("precision", str(error), good=False)]
    if device.type == "cuda":
        return []
    return [Row("precision", f"{precision} is imitated on {device}: slower than full precision")]


def _own_device(device: torch.device, plan: MemoryPlan, free: int) -> Row:
    """The run's own device among others; that it fits was found before."""
    name = "cuda:0" if str(device) == "cuda" else str(device)
    words = f"{plan.device_bytes / _GIB:.1f} GiB for the run itself, {free / _GIB:.1f} GiB free"
    data = {"device_bytes": plan.device_bytes, "free_bytes": free, "fits": True}
    return Row(name, words, data=data)


def _other_devices(needs: RunNeeds, hardware: Hardware, here: int = 0) -> list[Row]:
    """What lies on other devices than the run's own, and in processes that share a denoiser on the
    CPU, beside ``here`` bytes of the run itself."""
    from flythrough.engine.memory_plan import SLACK
    from flythrough.engine.placement import available_host_bytes, free_bytes, shares

    rows = []
    for device, parts, wanted in shares(needs, hardware):
        rows.append(_needed(str(device), parts, wanted, free_bytes(device)))
    if hardware.gpus > 1 and needs.device == "cpu":
        more = hardware.gpus - 1
        wanted = int(needs.alone(["denoiser"], "cpu") * SLACK) * more
        free = max(0, available_host_bytes() - int(here * SLACK))
        rows.append(_needed(f"{more} further on cpu", ["denoiser"], wanted, free))
    return rows


def _needed(name: str, parts: list[str], wanted: int, free: int) -> Row:
    fits = wanted <= free
    words = f"{wanted / _GIB:.1f} GiB for {' and '.join(parts)}, {free / _GIB:.1f} GiB free"
    data = {"device_bytes": wanted, "free_bytes": free, "fits": fits, "parts": parts}
    return Row(name, f"{words}{'' if fits else ': does not fit'}", fits, data)


def _disk(spool: int) -> Row:
    free = shutil.disk_usage(Path.cwd()).free
    needed = spool + _GIB // 4
    words = f"{free / _GIB:.1f} GiB free here, frames take {spool / _GIB:.1f} GiB until written"
    return Row("disk", words, good=free > needed)


def _duration(plan: Any, frames: int, window: Window, device: Any, weights: int) -> Row:
    """From the device's own speed at matrix products, tried for a moment."""
    rate = matrix_rate(device)
    seconds = plan.flops / (rate * _EFFICIENCY["cuda" if device.type == "cuda" else "cpu"])
    if plan.placement == "offload":
        seconds = max(seconds, plan.calls * weights / bus_rate(device))
    total = seconds * window.chunks(frames)
    words = (
        f"about {total:.0f} s for {frames} frames, {seconds:.1f} s a chunk of {window.frames} "
        f"({plan.flops / 1e12:.3g} T operations, {rate / 1e12:.3g} T a second), loading apart"
    )
    return Row("time", words, data={"seconds": total, "flops": plan.flops})
