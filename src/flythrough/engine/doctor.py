"""Facts about this machine and a model, gathered without loading the model."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from flythrough.models.catalog import ModelFolder, disk_bytes, find_model

_PACKAGES = ("torch", "diffusers", "transformers", "peft", "av", "safetensors")
_GIB = 2**30


@dataclass(frozen=True)
class Row:
    """One finding: what was looked at, what was found, whether it is good enough."""

    name: str
    found: str
    good: bool = True


@dataclass(frozen=True)
class Report:
    """All findings."""

    rows: tuple[Row, ...]

    @property
    def good(self) -> bool:
        return all(row.good for row in self.rows)


def examine(model: str) -> Report:
    """Look at packages, devices, memory, disk and the model folder.

    Raises:
        WeightsError: there is no such model, or its folder is incomplete.
    """
    folder = find_model(model)
    rows = [_package(name) for name in _PACKAGES]
    rows += [_devices(), _memory(folder), _disk(), _model(folder)]
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
    return Row("devices", ", ".join(names))


def _memory(folder: ModelFolder) -> Row:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    needed = needed_bytes(folder)
    found = f"{total / _GIB:.1f} GiB, the model needs about {needed / _GIB:.1f} GiB"
    return Row("memory", found, good=total > needed)


def needed_bytes(folder: ModelFolder) -> int:
    """Host memory on the CPU: weights as float32 (stored as 16 bit) and 1 GiB of activations."""
    return 2 * sum(file.stat().st_size for file in folder.weight_files()) + _GIB


def _disk() -> Row:
    free = shutil.disk_usage(Path.cwd()).free
    return Row("disk", f"{free / _GIB:.1f} GiB free here", good=free > _GIB // 4)


def _model(folder: ModelFolder) -> Row:
    parts = [p.name for p in sorted(folder.path.iterdir()) if p.is_dir()]
    size = disk_bytes(folder.path) / 2**20
    return Row("model", f"{folder.name}: {size:.0f} MiB ({', '.join(parts)})")
