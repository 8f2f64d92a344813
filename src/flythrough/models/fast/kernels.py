"""Which implementation runs between the products."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch

from flythrough.errors import InputError
from flythrough.models.fast.elementwise import Elementwise, TorchElementwise
from flythrough.models.fast.settings import Kernels


def has_triton() -> bool:
    """Whether Triton can be imported."""
    return find_spec("triton") is not None


def choose_kernels(asked: Kernels, device: torch.device) -> Elementwise:
    """The kernels of a setting on a device.

    Raises:
        InputError: Triton is wanted and not installed.
    """
    if asked == "auto":
        nvidia = device.type == "cuda" and torch.version.cuda is not None
        asked = "triton" if nvidia and has_triton() else "torch"
    if asked == "triton" and not has_triton():
        raise InputError(
            "kernels 'triton' need the package triton, which is not installed; install it or use "
            "'torch'"
        )
    return _made(asked)


@cache
def _made(name: Kernels) -> Elementwise:
    if name != "triton":
        return TorchElementwise(compiled=name == "compiled")
    from flythrough.models.fast.triton_kernels import TritonElementwise

    return TritonElementwise()
