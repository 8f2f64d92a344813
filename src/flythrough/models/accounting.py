"""Bytes and operations that a computation will need, found by running it on the meta device.

Nothing is allocated: every tensor operation is carried out on shapes alone, while the storages that
would be alive are added up. Attention counts as a fused kernel (no table of scores), as it runs on
GPUs and CPUs.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry

_LAYERS = 2
"""That are run of a stack whose layers are alike, and one more."""


@dataclass(frozen=True)
class Need:
    """Greatest bytes of temporary tensors alive at one time (weights apart, results included), and
    floating-point operations of products, convolutions and attention (a multiply-add is two)."""

    peak_bytes: int
    flops: float


def weight_bytes(module: nn.Module) -> int:
    """Bytes of parameters and buffers, shared ones counted once."""
    seen = {id(t): t for t in _tensors(module)}
    return sum(_bytes(t) for t in seen.values())


def needed_by(
    run: Callable[[], object], modules: Iterable[nn.Module], *, gradients: bool = False
) -> Need:
    """What ``run`` needs beside the weights of ``modules``; all its tensors are on meta.

    With ``gradients`` what is kept for the way back counts too, and ``run`` may go it.
    """
    ledger = _Ledger(t for module in modules for t in _tensors(module))
    # Under inference mode composite operations are not taken apart and their parts go unseen.
    with torch.set_grad_enabled(gradients), torch.device("meta"), ledger, _FusedAttention(ledger):
        run()
    return Need(ledger.peak, ledger.flops)


def needed_by_layers(run: Callable[[], object], net: nn.Module) -> Need:
    """:func:`needed_by` of a ``run`` through ``net``. Where its ``blocks`` have the same parameters
    two and three of them are run, and the others cost what the third did: between two blocks the
    same is alive wherever they stand."""
    blocks = net.blocks
    assert isinstance(blocks, nn.ModuleList)
    kinds = {tuple((n, p.shape, p.dtype) for n, p in b.named_parameters()) for b in blocks}
    if len(blocks) <= _LAYERS + 1 or len(kinds) > 1:  # adapters of some layers alone
        return needed_by(run, [net])
    try:
        found = []
        for count in (_LAYERS, _LAYERS + 1):
            net.blocks = blocks[:count]
            found.append(needed_by(run, [net]))
    finally:
        net.blocks = blocks
    few, more = found
    return Need(more.peak_bytes, few.flops + (len(blocks) - _LAYERS) * (more.flops - few.flops))


class _Ledger(TorchDispatchMode):
    """Follows the storages that operations create, until they die."""

    def __init__(self, owned: Iterable[Tensor]) -> None:
        super().__init__()
        self.live, self.peak, self.flops = 0, 0, 0.0
        self._owned = {t.untyped_storage()._cdata: t for t in owned}
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func._overloadpacket is torch.ops.aten.convolution:
            layout = _kernels_layout(args[0])
            if layout is not None:  # kept by kernels, but not on meta
                result = result.contiguous(memory_format=layout)
            else:
                # Libraries reorder the axes of input and result, each into a copy (seen with
                # cuDNN).
                work = 2 * _bytes(result) + _bytes(args[0])
                self.peak = max(self.peak, self.live + work)
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.flops += count(*args, **kwargs, out_val=result)
        for value in tree_iter(result):
            if isinstance(value, Tensor):
                self._enter(value)
        self.peak = max(self.peak, self.live)
        return result

    def _enter(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._owned or key in self._known:
            return

        def gone(_: object) -> None:
            self.live -= size
            self._known.pop(key, None)

        self._known[key] = weakref.ref(storage, gone)
        self.live += size


class _FusedAttention(TorchFunctionMode):
    """Attention without its table of scores."""

    def __init__(self, ledger: _Ledger) -> None:
        super().__init__()
        self.ledger = ledger

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        named = kwargs or {}
        given = [*args, *(named[name] for name in ("query", "key", "value")[len(args) :])]
        query, key, value = given[:3]
        scores = query.shape[:-1].numel() * key.shape[-2]
        self.ledger.flops += 2.0 * scores * (key.shape[-1] + value.shape[-1])
        result: Tensor = _Attention.apply(query, key, value)
        return result


class _Attention(torch.autograd.Function):
    """Shapes of a fused kernel: it keeps its inputs and its result for the way back."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        result = query.new_empty((*query.shape[:-1], value.shape[-1]))
        ctx.save_for_backward(query, key, value, result)
        return result

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(kept) for kept in ctx.saved_tensors[:3])


def _kernels_layout(given: Tensor) -> torch.memory_format | None:
    """Channels last, if that is how ``given`` lies in storage and in half precision: convolution
    kernels read it as it is and write their result alike. None: they reorder it."""
    layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(given.ndim)
    if layout is None or given.dtype not in (torch.float16, torch.bfloat16):
        return None
    return layout if given.is_contiguous(memory_format=layout) else None


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _tensors(module: nn.Module) -> Iterable[Tensor]:
    yield from module.parameters()
    yield from module.buffers()
