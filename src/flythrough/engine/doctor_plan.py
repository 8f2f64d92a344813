"""What ``flythrough doctor`` foretells of a run: memory of each device, disk and time, from shapes
alone."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from flythrough.engine.device_rates import bus_rate, matrix_rate
from flythrough.engine.hardware import ONE_DEVICE, Hardware
from flythrough.engine.intent import Intent, Row
from flythrough.engine.request_notes import size_notes
from flythrough.engine.words import Precision
from flythrough.errors import InputError
from flythrough.models.captioner_folder import find_captioner
from flythrough.models.catalog import ModelFolder
from flythrough.rollout.spec import Method
from flythrough.rollout.window import STANDARD, Window

if TYPE_CHECKING:
    import torch

    from flythrough.engine.memory_plan import MemoryPlan, RunNeeds
    from flythrough.engine.placement import Room
    from flythrough.engine.run_needs import RunParts

_GIB = 2**30
_EFFICIENCY = {"cuda": 0.8, "cpu": 0.5}
"""Share of the matrix rate that a chunk reaches: measured with 14B weights on an H200, and with
nano on two cores."""
_SHARED = {True: {"full": 0.8, "eight": 0.73}, False: {"full": 0.7, "eight": 0.45}}
"""Of that each of several GPUs reaches, by whether calls are recorded, on four H200."""
_FASTER = {"fp8": 1.45, "fp8-all": 1.5}
_FASTER_ST_DIFF = {"fp8": 1.1, "fp8-all": 1.25}
"""How many times as fast an H200 denoises in 8 bits."""


def on_card(
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
    needs = run_needs(
        folder, size, method, intent.frames, "cuda", geometry=intent.geometry, parts=parts
    )
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
        check_stays(plan, hardware, free, where, needs)
    except InputError as error:
        return [*rows, Row("memory", str(error), good=False)]
    words = f"--memory {plan.placement} fits, {plan.host_bytes / _GIB:.1f} GiB of host memory"
    if plan.placement == "offload":
        words += "; streaming layers is slow, so see what --precision fp8 takes"
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

    parts = default_parts(folder, method, geometry=intent.geometry, lora=intent.lora)
    parts = replace(parts, eight_bits=intent.precision != "full")
    if intent.caption is not None:
        parts = replace(parts, captioner=find_captioner(intent.caption))
    return parts


def foretold(
    intent: Intent, method: Method, folder: ModelFolder, size: tuple[int, int]
) -> list[Row]:
    """Memory, disk and time of the run on this machine."""
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
    every = run_needs(
        folder, size, method, intent.frames, kind, geometry=intent.geometry, parts=parts
    )
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
        check_stays(plan, hardware, free, where, needs)
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
    faster = _faster(intent, method, bool(every.graph_bytes)) if kind == "cuda" else 1.0
    whole = every.plan(plan.placement)  # parts on other devices take their time as well
    return [*rows, _duration(whole, intent, window, device, weights, faster)]


def _faster(intent: Intent, method: Method, records: bool) -> float:
    """How many times as fast as one GPU in full precision denoises; processes on a CPU share its
    cores, and imitate 8 bits."""
    factors = _FASTER_ST_DIFF if method == "worldwarp" else _FASTER
    faster, gpus = factors.get(intent.precision, 1.0), intent.hardware.gpus
    shared = _SHARED[records]["full" if intent.precision == "full" else "eight"]
    return faster * (gpus * shared if gpus > 1 else 1.0)


def _recorded(intent: Intent, needs: RunNeeds, room: Room) -> tuple[RunNeeds, list[Row]]:
    """``needs`` with those of recorded calls where calls are recorded, and what there is to say."""
    from flythrough.engine.placement import recording_for

    found = recording_for(needs, intent.hardware, intent.compute, intent.memory, room)
    data = {"records": found.records, "device_bytes": found.needs.graph_bytes}
    if found.records:
        part = f"{found.needs.graph_bytes / _GIB:.1f} GiB of what each GPU needs"
        words = f"calls of the denoiser are recorded, which is {part}"
        return found.needs, [Row("graphs", words, data=data)]
    return found.needs, [Row("graphs", found.why_not, data=data)] if found.why_not else []


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


def _duration(
    plan: MemoryPlan,
    intent: Intent,
    window: Window,
    device: torch.device,
    weights: int,
    faster: float,
) -> Row:
    """From the device's own speed at matrix products, tried for a moment; it denoises ``faster``
    times as fast with all that the run asks for."""
    rate = matrix_rate(device)
    denoising = sum(phase.flops for phase in plan.phases if phase.name == "denoise")
    work = plan.flops - denoising + denoising / faster
    seconds = work / (rate * _EFFICIENCY["cuda" if device.type == "cuda" else "cpu"])
    if plan.placement == "offload":
        seconds = max(seconds, plan.calls * weights / bus_rate(device))
    total = seconds * window.chunks(intent.frames)
    words = (
        f"about {total:.0f} s for {intent.frames} frames, {seconds:.1f} s a chunk of "
        f"{window.frames} ({plan.flops / 1e12:.3g} T operations, {rate / 1e12:.3g} T a second), "
        "loading apart"
    )
    if faster > 1:
        words += f"; denoising counts as {faster:.2g} times as fast as on one GPU in full precision"
    return Row("time", words, data={"seconds": total, "flops": plan.flops})
