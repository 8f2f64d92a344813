"""Facts about this machine and a model, gathered without loading the model."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from flythrough.engine.camera_options import check_adapter
from flythrough.engine.doctor_plan import foretold, on_card
from flythrough.engine.files import check_lora
from flythrough.engine.geometry_source import check_geometry, estimates_anything
from flythrough.engine.hardware import check_hardware
from flythrough.engine.intent import Intent, Report, Row
from flythrough.engine.options import check_device, check_memory, check_size, check_words
from flythrough.engine.worldwarp_options import check_denoiser, no_captioner
from flythrough.errors import InputError
from flythrough.models.catalog import ModelFolder, disk_bytes
from flythrough.models.foreseen import absent_depth, found_or_foreseen, planned_monocular
from flythrough.models.hub import foreseen_fetch
from flythrough.models.published import ENTRIES, Entry
from flythrough.rollout.spec import Method

_PACKAGES = ("torch", "diffusers", "transformers", "peft", "av", "safetensors")
_GIB = 2**30


def examine(intent: Intent) -> Report:
    """Look at packages, devices, disk and the model folder, and foretell a run; of a published
    model that is not here, from what is known of it.

    Raises:
        WeightsError: there is no such model, its folder is incomplete or a configuration is wrong.
        InputError: an option that is out of range or has no effect.
    """
    check_words(
        model=intent.model, geometry=intent.geometry, lora=intent.lora, device=intent.device
    )
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
        lacking = _camera(intent, folder, method)
        absent = tuple(
            one.name for one in (entry, absent_depth(intent.geometry)) if one is not None
        )
        if intent.card is not None:
            return Report((*lacking, *on_card(intent, method, folder, size)), absent)
        rows = [_package(name) for name in _PACKAGES]
        rows += [_devices(), _model(folder) if entry is None else _fetch(entry)]
        rows += [*lacking, *foretold(intent, method, folder, size)]
    return Report(tuple(rows), absent)


def _check_card(intent: Intent) -> None:
    assert intent.card is not None
    if not 1 <= intent.card <= 1000:
        raise InputError(
            f"--card {intent.card:g} is out of range; give a GPU's memory in GB, 1 to 1000."
        )
    hardware, given = intent.hardware, intent.device if intent.device != "auto" else None
    named = {"device": given, "geometry-device": hardware.geometry, "codec-device": hardware.codec}
    for option, name in named.items():
        if name is not None:
            raise InputError(
                f"--card {intent.card:g} plans for GPUs that need not be here, so --{option} "
                f"{name} cannot be named beside it; drop one of them."
            )


def _checked_method(intent: Intent, folder: ModelFolder) -> Method:
    """The method of the run, with the options that depend on it checked."""
    method = intent.method or ("warp-as-history" if folder.is_helios else "worldwarp")
    check_denoiser(method, folder)
    if intent.caption is not None and method != "worldwarp":
        raise no_captioner(intent.caption, method)
    _check_camera_options(intent, method, folder)
    check_hardware(
        intent.hardware,
        intent.device,
        intent.memory,
        intent.compute,
        method,
        renders=method != "helios",
        otherwise=None if intent.card else " or plan for GPUs that are not here with --card",
    )
    return method


def _check_camera_options(intent: Intent, method: Method, folder: ModelFolder) -> None:
    """--geometry and --lora: as ``generate`` checks them, but that a published network need not be
    here."""
    geometry, lora = intent.geometry, intent.lora
    idle = {
        f"--geometry {geometry}": method == "helios" and geometry != "default",
        f"--lora {lora}": (method == "helios" and lora == "off")
        or (method == "worldwarp" and lora != "default"),
    }
    for option, given in idle.items():
        if given:
            raise InputError(f"{option} has no effect with method {method}; drop it.")
    if geometry != "default" and absent_depth(geometry) is None:
        check_geometry(geometry, folder, None)
        if not estimates_anything(geometry):
            from flythrough.geometry.estimators.select import check_geometry_choice

            check_geometry_choice(geometry)
    check_lora(lora)
    if method == "warp-as-history":
        check_adapter(lora, folder, "short")


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


def _fetch_depth(entry: Entry, folder: ModelFolder) -> Row:
    """A depth network that is not here: at most four bytes a number, beside a model to fetch."""
    from flythrough.models.expected import expected_tensors

    most = 4 * expected_tensors("depth", planned_monocular(entry.name).config)[1].parameters
    found = foreseen_fetch(entry, most)
    most, free = found.lacking, found.free
    if folder.stored_as is not None:
        free = max(0, free - foreseen_fetch(ENTRIES[folder.name]).lacking)
    words = (
        f"{entry.name} (licence {entry.licence}) is not on this machine: figures are foretold from "
        f"the published sizes; `flythrough models pull {entry.name}` fetches {most / 1e9:.1f} GB "
        f"at most, for which {free / 1e9:.1f} GB are left"
    )
    fits = most <= free
    if not fits:
        words += "; make room or choose another disk with --to"
    return Row("geometry", words, fits, {"fetch_bytes": most, "free_bytes": free, "fits": fits})


def _camera(intent: Intent, folder: ModelFolder, method: Method) -> list[Row]:
    """What a camera needs and is not here: counted where its name says what it is."""
    rows = []
    if (absent := absent_depth(intent.geometry)) is not None:
        if intent.card is None:
            rows.append(_fetch_depth(absent, folder))
        else:
            words = f"{absent.name} (licence {absent.licence}), by its published sizes"
            rows.append(Row("geometry", words))
    if method == "helios":
        return rows
    lacking = []
    if folder.geometry is None and intent.geometry == "default":
        lacking.append("geometry network (name one with --geometry, such as depth-anything)")
    no_adapter = folder.camera_lora is None and intent.lora == "default"
    if method == "warp-as-history" and no_adapter:
        lacking.append(
            "camera adapter (--lora FILE, such as that of warp-as-history-lora, which is not for "
            "commercial use)"
        )
    if lacking:
        words = f"{folder.name} ships no {' and no '.join(lacking)}"
        rows.append(Row("camera", f"{words}: not counted; see `flythrough models list`"))
    return rows
