"""The fast twin of :class:`flythrough.models.helios.HeliosTransformer`, over the same weights.

Done once instead of again and again: keys and values of the prompt (a prompt), rotary tables and
history tokens (a stage), gates and gains of all blocks (a step). One tensor holds history and noisy
tokens; what lies between two products is one pass over it. The plain model stays as it is and is
the reference (``tests/parity/test_fast_denoiser.py``).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flythrough.errors import WeightsError
from flythrough.models.fast.activations import Activations
from flythrough.models.fast.attention import (
    attention,
    is_planned,
    is_rare,
    plan,
    preferred_backends,
    prompt_backend,
)
from flythrough.models.fast.block import FastBlock, Rows
from flythrough.models.fast.kernels import choose_kernels
from flythrough.models.fast.products import (
    BlockProducts,
    active_adapters,
    block_products,
    linear_layers,
)
from flythrough.models.fast.recordings import CudaGraphs, Recordings, Work
from flythrough.models.fast.settings import FastSettings
from flythrough.models.helios import HeliosTransformer, joined
from flythrough.models.history_tokens import ChosenTokens, History, Kernel, PackedHistory
from flythrough.models.rotary import Tables, grid_tables

_PROMPTS_KEPT = 2
_ADAPTER_STATES_KEPT = 2

TextKeys = list[tuple[Tensor, Tensor]]
"""Keys and values [B,L,heads,d] of the prompt, for every block."""


class Layout(NamedTuple):
    """Tables and mask of a stage, and what they were made from."""

    indices: Tensor
    history: PackedHistory | None
    grid: Kernel
    tables: Tables
    mask: Tensor | None


class _Prompt(NamedTuple):
    given: Tensor
    adapters: tuple[object, ...]
    keys: TextKeys
    number: int


class _Products(NamedTuple):
    blocks: list[BlockProducts]
    number: int


class Call(NamedTuple):
    """What a call reads beside its inputs. ``past`` history tokens lie before ``now`` noisy."""

    products: list[BlockProducts]
    text: TextKeys
    mask: Tensor | None
    past: int
    now: int


class _Key(NamedTuple):
    """What a recorded call depends on beside its inputs. Prompts and products count by numbers that
    are given once; an ``id`` may come back. ``rare`` as in :func:`is_rare`."""

    shape: torch.Size
    past: int
    table_batch: int
    rare: bool
    prompt: int
    products: int


class _Static(NamedTuple):
    """Parameters of all blocks, stacked: tables [layers,6,D], the prompt norm's [layers,D]."""

    table: Tensor
    gain: Tensor
    shift: Tensor


class FastDenoiser:
    """Call it as the transformer: same arguments, same result within rounding, no gradients.

    What it keeps between calls is found again by the identity of its arguments (prompts: else by
    their values), so tensors that were passed must not be changed in place; after base weights
    were, call :meth:`forget`.

    Raises:
        WeightsError: a configuration only the plain path can run (:func:`why_not`).
    """

    def __init__(
        self, transformer: HeliosTransformer, settings: FastSettings | None = None
    ) -> None:
        reason = why_not(transformer)
        if reason is not None:
            raise WeightsError(f"the fast path does not run this denoiser: {reason}; use the plain")
        self.net = transformer
        self._layers: list[Any] = list(transformer.blocks)  # HeliosTransformerBlock each
        self.settings = settings or FastSettings()
        self.attend = attention(self.settings.attention, transformer.device)
        self.attend_prompt = attention(prompt_backend(self.settings.attention), transformer.device)
        self._numbers = itertools.count()
        self._recordings: Recordings | None = None
        if self.settings.graphs and transformer.device.type == "cuda":
            self._recordings = Recordings(CudaGraphs(transformer.device))
        self.forget()

    def forget(self) -> None:
        """Drop everything kept between calls."""
        if self._recordings is not None:
            self._recordings.drop()
        self._layouts: list[Layout] = []
        self._prompts: list[_Prompt] = []
        self._products: dict[tuple[object, ...], _Products] = {}
        self._static: _Static | None = None
        self._at: tuple[int, ...] = ()
        self._planned: set[int] = set()

    @property
    def dtype(self) -> torch.dtype:
        return self.net.dtype

    @torch.no_grad()
    def __call__(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        *,
        indices_hidden_states: Tensor,
        history: History | PackedHistory | None = None,
    ) -> Tensor:
        """Velocity [B,C,T,h,w]; see :meth:`HeliosTransformer.forward`."""
        net = self.net
        self._check_place()
        net._check_divisible("noisy latents", hidden_states)
        batch = hidden_states.shape[0]
        noisy = net.patch_embedding(hidden_states)
        if isinstance(history, History):
            history = net.pack_history(history)
        grid = net._grid(hidden_states)
        layout = self._layout(indices_hidden_states, history, grid, noisy)
        past = layout.tables.cos.shape[1] - noisy.shape[1]
        if past and history is not None:
            tokens = history.tokens.to(noisy.dtype).expand(batch, -1, -1)
            x = torch.cat([tokens, noisy], dim=1)
        else:
            x = noisy.clone()
        embedding, *rows = net._rows(timestep.to(x.device).expand(batch))
        products = self._block_products(x.dtype)
        text = self._text_keys(encoder_hidden_states, x.dtype)
        call = Call(products.blocks, text.keys, layout.mask, past, noisy.shape[1])
        work = self._work(call)
        inputs = (x, embedding, *rows, *layout.tables)
        dropped = history is not None and history.dropped  # the next chunk has another number
        rare = is_rare(x.shape[1], dropped)
        with preferred_backends(x.device, rare):
            if self._recordings is None or layout.mask is not None or dropped:
                found = work(*inputs)
            else:
                table_batch = len(layout.tables.cos)
                key = _Key(x.shape, past, table_batch, rare, text.number, products.number)
                found = self._recordings.run(key, work, inputs)
            normed = self._whole(found, call)
        return net._unpatched(net.proj_out(normed), grid)

    def would_plan(self, chosen: ChosenTokens, latents: Kernel) -> bool:
        """Whether :meth:`plan_attention` has anything to do: attention was not planned for these
        tokens yet, and it is worth it."""
        tokens = chosen.total + self._noisy(latents)
        planned = is_planned(self.settings.attention, self.net.device, self.dtype)
        return planned and tokens not in self._planned and not is_rare(tokens, chosen.dropped)

    def plan_attention(self, chosen: ChosenTokens, latents: Kernel) -> None:
        """Have attention planned for noisy ``latents`` (t, h, w) behind a history of ``chosen``,
        unless it was or is not worth it. Call it when the device has much to do: planning takes
        the host tens of milliseconds and changes no result."""
        if not self.would_plan(chosen, latents):
            return
        noisy = self._noisy(latents)
        tokens = chosen.total + noisy
        self._planned.add(tokens)
        heads, width = self.net.config["num_attention_heads"], self.net.config["attention_head_dim"]
        like = torch.empty(1, heads, width, dtype=self.dtype, device=self.net.device)
        # All blocks but the last ask with every token, the last with the noisy ones.
        plan(like, (tokens, noisy), tokens)

    def _noisy(self, latents: Kernel) -> int:
        return math.prod(n // k for n, k in zip(latents, self.net._patch, strict=True))

    def pack_history(self, history: History) -> PackedHistory:
        """As the transformer's own, under "drop"."""
        return self.net.pack_history(history)

    def _work(self, call: Call) -> Work:
        """What turns tokens [B,past+now,D], the time embedding, the rows of history and noisy
        tokens and the rotary tables into normed noisy tokens [B,now,D]."""

        def work(x: Tensor, embedding: Tensor, past: Tensor, now: Tensor, *own: Tensor) -> Tensor:
            tables, ways = Tables(*own), (self.attend, self.attend_prompt)
            blocks = [
                FastBlock(block, made, keys, tables, call.mask, *ways)
                for block, made, keys in zip(self._layers, call.products, call.text, strict=True)
            ]
            return self._through(x, call.past, blocks, self._rows(past, now, embedding, len(x)))

        return work

    def _whole(self, found: Tensor, call: Call) -> Tensor:
        """All noisy tokens [B,now,D], from what :meth:`_work` gave."""
        del call
        return found

    def _through(self, x: Tensor, past: int, blocks: list[FastBlock], rows: list[Rows]) -> Tensor:
        """Tokens [B,N,D] behind the output norm."""
        kernels = choose_kernels(self.settings.kernels, x.device)
        readers = [
            p for b in blocks for p in (b.products.qkv, b.products.cross_q, b.products.ffn_in)
        ]
        plain, fp8 = any(p.needs_values for p in readers), any(p.fp8 for p in readers)
        out = Activations.empty(x, plain=plain, fp8=fp8)
        kernels.residual_norm(x, None, None, rows[0].gain1, rows[0].shift1, past, self._eps, out)
        for number, block in enumerate(blocks[:-1]):
            block(kernels, x, past, rows[number], rows[number + 1], out)
        tail, now = x[:, past:], rows[-2]
        ended = blocks[-1].last(kernels, x, past, now, out)
        last = Activations.empty(tail, plain=True, fp8=False)
        end = rows[-1]
        kernels.residual_norm(tail, ended, now.gate2, end.gain1, end.shift1, 0, self._eps, last)
        assert last.values is not None
        return last.values

    @property
    def _eps(self) -> float:
        return float(self.net.config["eps"])

    def _rows(self, past: Tensor, now: Tensor, embedding: Tensor, batch: int) -> list[Rows]:
        """Gates, gains and shifts of every block and, last, of the output norm."""
        if self._static is None:
            self._static = _Static(
                torch.stack([layer.scale_shift_table.detach()[0] for layer in self._layers]),
                torch.stack([layer.norm2.weight.detach() for layer in self._layers]),
                torch.stack([layer.norm2.bias.detach() for layer in self._layers]),
            )
        static = self._static
        both = torch.stack([past.float().expand(batch, -1, -1), now.float()], dim=1)
        added = (static.table.float()[:, None, None] + both).permute(3, 0, 1, 2, 4).contiguous()
        shift1, gain1, gate1, shift2, gain2, gate2 = added  # each [layers,B,2,D]
        gain1, gain2 = 1 + gain1, 1 + gain2
        count = len(self._layers)
        affine = (t.float()[:, None].expand(count, batch, -1) for t in static[1:])
        mixed = [
            torch.stack([row[:, :, 0], own], dim=2)
            for row, own in zip((gain2, shift2), affine, strict=True)
        ]
        rows = (gate1, gain1, shift1, gate2, gain2, shift2, *mixed)
        made = [Rows(*(row[number] for row in rows)) for number in range(count)]
        table = self.net.norm_out.scale_shift_table.detach().float()
        ends = (table + embedding.float()[:, None])[:, :, None].expand(-1, -1, 2, -1)
        shift, gain = ends[:, 0].contiguous(), (1 + ends[:, 1]).contiguous()
        return [*made, Rows(gain, gain, shift, gain, gain, shift, gain, shift)]

    def _layout(
        self,
        indices: Tensor,
        history: PackedHistory | None,
        grid: Kernel,
        noisy: Tensor,
    ) -> Layout:
        for known in self._layouts:
            if known.indices is indices and known.history is history and known.grid == grid:
                return known
        net = self.net
        own = grid_tables(indices.to(noisy.device), grid[1:], net._rope, net._theta)
        _, tables, mask = joined(history, noisy, own)
        made = Layout(indices, history, grid, Tables(*(t.contiguous() for t in tables)), mask)
        self._layouts = [made]
        return made

    def _block_products(self, dtype: torch.dtype) -> _Products:
        state = self._adapters()
        if state not in self._products:
            while len(self._products) >= _ADAPTER_STATES_KEPT:
                del self._products[next(iter(self._products))]
            place = self.settings.adapter
            made = [block_products(block, dtype, place) for block in self._layers]
            self._products[state] = _Products(made, next(self._numbers))
            self._at = self._places()
            self._drop_outdated()
        return self._products[state]

    def _drop_outdated(self) -> None:
        """Recordings of prompts and products that are not kept any more."""
        if self._recordings is None:
            return
        prompts = {prompt.number for prompt in self._prompts}
        products = {made.number for made in self._products.values()}
        self._recordings.drop(lambda k: k.prompt not in prompts or k.products not in products)

    def _adapters(self) -> tuple[object, ...]:
        """Which adapters count where; holds the layers, so that none is taken for another."""
        return tuple(
            (layer, active)
            for block in self._layers
            for layer in linear_layers(block)
            if (active := active_adapters(layer))
        )

    def _text_keys(self, given: Tensor, dtype: torch.dtype) -> _Prompt:
        adapters = _all_active(self.net)
        kept = [known for known in self._prompts if known.adapters == adapters]
        place = same_tensor([known.given for known in kept], given)
        if place is not None:
            return kept[place]
        text = self.net.condition_embedder.text_embedder(given).to(dtype)
        keys = []
        for block in self._layers:
            asked = block.attn2
            value = asked.split(asked.to_v(text))
            key = asked.split(asked.norm_k(asked.to_k(text)).to(value.dtype))
            keys.append((key, value))
        made = _Prompt(given, adapters, keys, next(self._numbers))
        self._prompts = [*self._prompts[1 - _PROMPTS_KEPT :], made]
        self._drop_outdated()
        return made

    def _places(self) -> tuple[int, ...]:
        weights = [b.ffn.net[2] for b in (self._layers[0], self._layers[-1])]
        return tuple(next(w.parameters()).data_ptr() for w in weights)

    def _check_place(self) -> None:
        """Forget all if the weights were moved or replaced."""
        if self._at and self._at != self._places():
            self.forget()


def why_not(transformer: HeliosTransformer) -> str | None:
    """Why the fast path cannot run a denoiser; None if it can."""
    config = transformer.config
    if not config["guidance_cross_attn"]:
        return "its history tokens read the prompt"
    if not config["cross_attn_norm"]:
        return "it has no norm before the prompt is read"
    if config["is_amplify_history"]:
        return "it scales the keys of its history"
    return None


def same_tensor(kept: Sequence[Tensor], given: Tensor) -> int | None:
    """Which of ``kept`` is ``given`` or, for which the host has to wait, has its values."""
    for place, known in enumerate(kept):
        if known is given:
            return place
    for place, known in enumerate(kept):
        alike = known.shape == given.shape and known.dtype == given.dtype
        if alike and known.device == given.device and bool(torch.equal(known, given)):
            return place
    return None


def _all_active(net: HeliosTransformer) -> tuple[object, ...]:
    """Adapters that change what is made of a prompt."""
    names = [
        f"blocks.{n}.attn2.{side}" for n in range(len(net.blocks)) for side in ("to_k", "to_v")
    ]
    names += [f"condition_embedder.text_embedder.linear_{n}" for n in (1, 2)]
    layers = [net.get_submodule(name) for name in names]
    return tuple((layer, active) for layer in layers if (active := active_adapters(layer)))
