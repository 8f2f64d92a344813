"""Facts about this machine and a model, gathered without loading the model."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from flythrough.engine.options import check_device, check_memory, check_size
from flythrough.engine.words import MemoryChoice, Precision
from flythrough.engine.worldwarp_options import check_denoiser, no_captioner
from flythrough.errors import InputError
from flythrough.models.captioner_folder import find_captioner
from flythrough.models.catalog import ModelFolder, disk_bytes, find_model
from flythrough.rollout.spec import Method
from flythrough.rollout.window import STANDARD, Window

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
    """All findings."""

    rows: tuple[Row, ...]

    @property
    def good(self) -> bool:
        return all(row.good for row in self.rows)


@dataclass(frozen=True)
class Intent:
    """The run that memory and time are foretold for; None is the model's own size and the method
    that it is for with a camera."""

    model: str = "nano"
    size: tuple[int, int] | None = None
    frames: int = 66
    method: Method | None = None
    device: str = "auto"
    memory: MemoryChoice = "auto"
    caption: str | None = None
    precision: Precision = "full"


def examine(intent: Intent) -> Report:
    """Look at packages, devices, disk and the model folder, and foretell a run.

    Raises:
        WeightsError: there is no such model, its folder is incomplete or a configuration is wrong.
        InputError: an option that is out of range or has no effect.
    """
    check_device(intent.device)
    check_memory(intent.memory, intent.device)
    if not 1 <= intent.frames <= 100_000:
        raise InputError(f"--frames {intent.frames} is out of range; give 1 to 100000.")
    folder = find_model(intent.model)
    size = intent.size or (folder.defaults.height, folder.defaults.width)
    method = intent.method or ("warp-as-history" if folder.is_helios else "worldwarp")
    check_denoiser(method, folder)
    check_size(size, pyramid=method != "worldwarp")
    if intent.caption is not None and method != "worldwarp":
        raise no_captioner(intent.caption, method)
    rows = [_package(name) for name in _PACKAGES]
    rows += [_devices(), _model(folder), *_foretold(intent, method, folder, size)]
    return Report(tuple(rows))


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


def _foretold(
    intent: Intent, method: Method, folder: ModelFolder, size: tuple[int, int]
) -> list[Row]:
    from flythrough.engine.acceleration import check_eight_bits
    from flythrough.engine.build import pick_device
    from flythrough.engine.memory_plan import MemoryPlan
    from flythrough.engine.placement import available_host_bytes, choose_placement, free_bytes
    from flythrough.engine.run_needs import default_parts, own_window, run_needs

    device = pick_device(intent.device)
    kind = "cuda" if device.type == "cuda" else "cpu"
    parts = replace(default_parts(folder, method), eight_bits=intent.precision != "full")
    if intent.caption is not None:
        parts = replace(parts, captioner=find_captioner(intent.caption))
    needs = run_needs(folder, size, method, intent.frames, kind, parts=parts)
    free, host_free = free_bytes(device), available_host_bytes()
    where = f"GPU {device}" if kind == "cuda" else "host memory"

    def row(plan: MemoryPlan) -> Row:
        words = f"{plan.device_bytes / _GIB:.1f} GiB of {where}"
        if plan.host_bytes:
            words += f" and {plan.host_bytes / _GIB:.1f} GiB of host memory"
        peak = max(plan.phases, key=lambda phase: phase.device_bytes)
        fits = plan.fits(free, host_free)
        words += f" (most to {peak.name}){'' if fits else ': does not fit'}"
        if method == "helios" and plan.beside_bytes:
            words += f"; {plan.beside_bytes / _GIB:.1f} GiB if chunks are decoded beside denoising"
        phases = {phase.name: phase.device_bytes for phase in plan.phases}
        data = {"device_bytes": plan.device_bytes, "host_bytes": plan.host_bytes, "fits": fits}
        data["beside_bytes"] = plan.beside_bytes
        return Row(f"--memory {plan.placement}", words, data={**data, "phases": phases})

    rows = [
        Row("run", f"{intent.frames} frames of {size[0]}x{size[1]}, {method}, on {device}"),
        *(row(needs.plan(placement)) for placement in needs.placements),
    ]
    if intent.precision != "full":
        try:
            check_eight_bits(intent.precision, device)
        except InputError as error:
            rows.append(Row("precision", str(error), good=False))
        else:
            if kind != "cuda":
                words = f"{intent.precision} is imitated on {device}: slower than full precision"
                rows.append(Row("precision", words))
    try:
        plan = choose_placement(needs, intent.memory, free, host_free, where)
    except InputError as error:
        return [*rows, Row("memory", str(error), good=False)]
    rows.append(Row("memory", f"{free / _GIB:.1f} GiB free: --memory {plan.placement} fits"))
    rows.append(_disk(plan.disk_bytes))
    window = own_window(folder) if method == "worldwarp" else STANDARD
    weights = needs.weights["transformer"].whole
    rows.append(_duration(plan, intent.frames, window, device, weights))
    return rows


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


def bus_rate(device: Any) -> float:
    """Bytes a second from page-locked host memory to a GPU; takes a moment."""
    import torch

    size = 1 << 28
    source = torch.empty(size, dtype=torch.uint8, pin_memory=True)
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        source.to(device)
        torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return size / best


def matrix_rate(device: Any) -> float:
    """Floating-point operations a second in matrix products, bfloat16 on a GPU, float32 on a CPU;
    takes a moment."""
    import torch

    on_gpu = device.type == "cuda"
    side = 8192 if on_gpu else 1024
    a = torch.randn(side, side, device=device).to(torch.bfloat16 if on_gpu else torch.float32)

    def timed(repeats: int) -> float:
        started = time.perf_counter()
        for _ in range(repeats):
            a @ a
        if on_gpu:
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    timed(3)
    best = min(timed(10 if on_gpu else 2) / (10 if on_gpu else 2) for _ in range(3))
    return 2.0 * side**3 / best
