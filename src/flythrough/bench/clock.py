"""Time and memory of work on a device."""

from __future__ import annotations

import platform
import resource
import statistics
import time
import warnings
from collections import Counter
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

GIB = 2**30
_PACKAGES = ("flythrough", "torch", "triton", "diffusers", "transformers", "peft", "numpy")


def synchronise(device: torch.device) -> None:
    """Wait until the device has done everything asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    """One run of ``work``, until the device has finished it."""
    synchronise(device)
    started = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - started


def median_seconds(
    work: Callable[[], Any], device: torch.device, runs: int, warm_ups: int = 1
) -> tuple[float, list[float], float]:
    """(median, all runs, first warm-up) in seconds; the first warm-up holds all compiling."""
    first = seconds(work, device)
    for _ in range(warm_ups - 1):
        work()
    found = [seconds(work, device) for _ in range(runs)]
    return statistics.median(found), found, first


def host_waits(work: Callable[[], Any], device: torch.device) -> tuple[int, dict[str, int]]:
    """How often the host waits for a GPU during ``work``, and in which lines; (0, {}) elsewhere.

    torch counts: copies that are waited for, and tensors that the host reads.
    """
    if device.type != "cuda":
        work()
        return 0, {}
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            work()
    finally:
        torch.cuda.set_sync_debug_mode(before)
    places: Counter[str] = Counter()
    for warning in said:
        if "synchroniz" in str(warning.message):
            places["/".join(Path(warning.filename).parts[-2:]) + f":{warning.lineno}"] += 1
    return places.total(), dict(places.most_common())


def reset_peak(device: torch.device) -> None:
    """Begin a new peak of device memory."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)


def peaks(device: torch.device) -> dict[str, float]:
    """Peak memory in GiB: tensors on the device since ``reset_peak`` and what torch held for them,
    recordings included; of the process since its start."""
    found = {"host_peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
    if device.type == "cuda":
        found["device_peak_gib"] = torch.cuda.max_memory_allocated(device) / GIB
        found["device_reserved_gib"] = torch.cuda.max_memory_reserved(device) / GIB
    return {name: round(value, 2) for name, value in found.items()}


def machine(device: torch.device) -> dict[str, Any]:
    """Hardware and versions."""
    found: dict[str, Any] = {"python": platform.python_version(), "system": platform.platform()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    found["threads"] = torch.get_num_threads()
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "device": properties.name,
            "device_gib": round(properties.total_memory / GIB, 1),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    else:
        found["device"] = platform.processor() or platform.machine()
    return found
