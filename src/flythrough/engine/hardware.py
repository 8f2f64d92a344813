"""Which GPUs a run uses beside the one it is on: several for the denoiser, another for geometry or
codec. Imports torch only if something was asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from flythrough.engine.options import check_device
from flythrough.engine.words import Compute, MemoryChoice
from flythrough.errors import InputError
from flythrough.rollout.spec import Method

if TYPE_CHECKING:
    import torch

    from flythrough.models.loading import LoadedParts

_MOST = 64
Parts = TypeVar("Parts", bound="LoadedParts")


@dataclass(frozen=True)
class Hardware:
    """``gpus`` share every call of the denoiser, with calls recorded as CUDA ``graphs`` (None: if
    there is room); ``geometry`` and ``codec`` name the devices of those networks, None being the
    run's own."""

    gpus: int = 1
    geometry: str | None = None
    codec: str | None = None
    graphs: bool | None = None


ONE_DEVICE = Hardware()


def check_hardware(
    hardware: Hardware,
    device: str,
    memory: MemoryChoice,
    compute: Compute,
    method: Method,
    *,
    renders: bool,
    otherwise: str | None = "",
) -> None:
    """--gpus, --graphs, --geometry-device and --codec-device; ``renders``: whether a scene is
    rendered here; ``otherwise``: what else helps where GPUs are lacking, None: they are not
    counted.

    Raises:
        InputError: too few GPUs, or an option without effect.
    """
    if hardware.graphs is not None:
        _check_graphs(hardware, device, compute)
    if hardware.gpus != 1:
        _check_gpus(hardware.gpus, device, memory, compute, method)
        if otherwise is not None and device != "cpu":
            _check_count(hardware.gpus, otherwise)
    for option, name in (("geometry", hardware.geometry), ("codec", hardware.codec)):
        if name is None:
            continue
        if name == "auto":
            raise InputError(f"--{option}-device auto says nothing; name one, like cuda:1.")
        check_device(name)
        if option == "geometry" and not renders:
            raise InputError(
                f"--geometry-device {name} has no effect here, because no scene is rendered; drop "
                "it or lead with --camera."
            )
        if option == "codec" and memory == "offload":
            raise InputError(
                f"--codec-device {name} cannot be used with --memory offload, where the codec "
                "waits in host memory; drop one of them."
            )
        if _whole(name) == _whole(device):
            raise InputError(
                f"--{option}-device {name} has no effect, because the run is on that device; name "
                "another one or drop it."
            )


def _check_gpus(
    gpus: int, device: str, memory: MemoryChoice, compute: Compute, method: Method
) -> None:
    if not 1 <= gpus <= _MOST:
        raise InputError(f"--gpus {gpus} is out of range; give 1 to {_MOST}.")
    if method == "worldwarp":
        raise InputError(
            f"--gpus {gpus} has no effect with method worldwarp, whose denoiser runs on one GPU; "
            "drop it."
        )
    if compute == "plain":
        raise InputError(
            f"--gpus {gpus} needs the denoiser's fast path; drop it or leave out --no-fast."
        )
    if memory == "offload":
        raise InputError(
            f"--gpus {gpus} needs the denoiser's weights on every GPU; drop it or leave out "
            "--memory offload."
        )
    # Processes on the CPU are slow, and the way to try it.
    if device not in ("auto", "cpu", "cuda", "cuda:0"):
        raise InputError(
            f"--gpus {gpus} takes the GPUs from cuda:0 on, so --device {device} does not fit; drop "
            "one of them, or choose GPUs with CUDA_VISIBLE_DEVICES."
        )


def _check_count(gpus: int, otherwise: str) -> None:
    """Whether this machine has so many; ``otherwise`` ends the remedy if not."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus > count:
        remedy = f"use --gpus {count}" if count > 1 else "drop it"
        raise InputError(
            f"--gpus {gpus} needs {gpus} CUDA GPUs, but there are {count}; {remedy}{otherwise}."
        )


def _check_graphs(hardware: Hardware, device: str, compute: Compute) -> None:
    word = "--graphs" if hardware.graphs else "--no-graphs"
    if hardware.gpus == 1:
        raise InputError(
            f"{word} has no effect on one GPU, whose calls are not recorded because they outlast "
            "their launching; drop it or add --gpus."
        )
    if device == "cpu":
        raise InputError(f"{word} has no effect on a CPU, where no calls are recorded; drop it.")
    if compute == "compiled":
        raise InputError(
            f"{word} has no effect with --compile, because calls that torch compiles are not "
            "recorded; drop one of them."
        )


def may_record(hardware: Hardware, kind: str, compute: Compute) -> bool:
    """Whether the calls that devices of a ``kind`` (cuda, cpu, mps) share are recorded, given
    room."""
    if hardware.graphs is not None:
        return hardware.graphs
    return hardware.gpus > 1 and kind == "cuda" and compute != "compiled"


def _whole(name: str) -> str:
    """``auto`` and ``cuda`` are the first GPU, where there is one."""
    if name == "auto":
        import torch

        name = "cuda" if torch.cuda.is_available() else "cpu"
    return "cuda:0" if name == "cuda" else name


def geometry_device(hardware: Hardware, device: torch.device) -> torch.device:
    """Where geometry is estimated and the scene rendered."""
    import torch

    return device if hardware.geometry is None else torch.device(hardware.geometry)


def away(model: Parts, hardware: Hardware) -> Parts:
    """``model`` with its codec on the device that was named for it."""
    if hardware.codec is None:
        return model
    import torch

    from flythrough.models.placing import ElsewhereCodec

    there = torch.device(hardware.codec)
    return replace(model, codec=ElsewhereCodec(model.codec, there, model.device))
