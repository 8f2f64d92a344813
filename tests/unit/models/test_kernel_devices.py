"""Triton launches on torch's current GPU: the kernels must go where their tensors lie, whichever
``--device cuda:N`` that is and whichever thread asks."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from flythrough.models.fast.activations import Activations

FAST = "flythrough.models.fast"


class Launches:
    """Stands in for Triton: notes of which tensor the device was current at each launch."""

    def __init__(self) -> None:
        self.open: list[Tensor] = []
        self.found: list[Tensor] = []

    @contextmanager
    def device_of(self, tensor: Tensor) -> Iterator[None]:
        self.open.append(tensor)
        yield
        self.open.pop()

    def jit(self, function: object = None, **_: object) -> object:
        return self.jit if function is None else self

    def __getitem__(self, grid: object) -> Callable[..., None]:
        return lambda *_args, **_more: self.found.append(self.open[-1])


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Iterator[Launches]:
    made = Launches()
    triton: Any = types.ModuleType("triton")
    triton.jit, triton.next_power_of_2, triton.cdiv = made.jit, int, lambda a, b: -(-a // b)
    triton.language = types.ModuleType("triton.language")
    names = [f"{FAST}.{name}" for name in ("triton_kernels", "leveled_triton", "wan_triton")]
    before = {name: sys.modules.pop(name, None) for name in names}
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "triton", triton)
        patch.setitem(sys.modules, "triton.language", triton.language)
        patch.setattr(torch.cuda, "device_of", made.device_of)
        yield made
    for name, module in before.items():  # what was imported over the stand-in is forgotten
        sys.modules.pop(name, None)
        if module is not None:
            sys.modules[name] = module


def test_kernels_run_where_their_tensors_lie(launches: Launches) -> None:
    x, row = torch.zeros(1, 4, 8), torch.zeros(1, 8)
    kernels = importlib.import_module(f"{FAST}.triton_kernels").TritonElementwise()
    kernels.residual_norm(x, None, None, row, row, 0, 1e-6, Activations(x, None, None))
    kernels.norm_rotate(x, row, 1e-6, None)
    kernels.quantise(x, gelu=False)
    leveled = importlib.import_module(f"{FAST}.leveled_triton").leveled_norm
    leveled(x, None, None, row, row, torch.zeros(4, dtype=torch.int64), 1e-6)
    update = torch.zeros(2, 1, 4, 4, 8)
    passes = importlib.import_module(f"{FAST}.wan_triton").TritonPasses()
    passes.join(update, None, None, None, None, target=update)
    places = [tensor.untyped_storage().data_ptr() for tensor in launches.found]
    first, second = (tensor.untyped_storage().data_ptr() for tensor in (x, update))
    assert places == [first] * 4 + [second] * 2
    assert not launches.open
