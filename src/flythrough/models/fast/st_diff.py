"""ST-Diff on the fast path: the same weights, exact up to rounding.

Between products there is one pass over the tokens; query, key and value are one product; GELU is
done while a product is stored; keys and values of prompts and the rotary tables are kept from call
to call; attention takes cuDNN's kernel where it can. Noise levels are embedded once each, as in the
plain class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flythrough.models.fast.activations import Activations
from flythrough.models.fast.attention import Attend, attention, preferred_backends, prompt_backend
from flythrough.models.fast.denoiser import same_tensor
from flythrough.models.fast.elementwise import Elementwise
from flythrough.models.fast.kernels import choose_kernels
from flythrough.models.fast.leveled import LeveledNorm, choose_leveled
from flythrough.models.fast.products import BlockProducts, Product, block_products
from flythrough.models.fast.settings import FastSettings
from flythrough.models.precision import without_autocast
from flythrough.models.rotary import Tables
from flythrough.models.st_diff import StDiff

TextKeys = list[tuple[Tensor, Tensor]]

_PROMPTS_KEPT = 4


class LevelRows(NamedTuple):
    """Rows [K,D] float32 of one block for K noise levels; ``affine_gain`` and ``affine_shift`` are
    those of the norm before the prompt, the same for all."""

    gate1: Tensor
    gain1: Tensor
    shift1: Tensor
    gate2: Tensor
    gain2: Tensor
    shift2: Tensor
    affine_gain: Tensor
    affine_shift: Tensor


@dataclass(frozen=True, eq=False)
class _Block:
    """A block and what stays the same for a grid and a prompt."""

    block: Any  # StDiffBlock
    products: BlockProducts
    text: tuple[Tensor, Tensor]
    tables: Tables
    attend: Attend
    attend_prompt: Attend
    ops: Elementwise
    norm: LeveledNorm

    def __call__(
        self, x: Tensor, normed: Tensor, level: Tensor, now: LevelRows, following: LevelRows
    ) -> Tensor:
        """Change ``x`` [B,N,D] in place; from the normed input of this block to the next one's."""
        eps, products = self.block.norm1.eps, self.products
        update = self._attended(normed)
        affine = (now.affine_gain, now.affine_shift)
        normed = self.norm(x, update, now.gate1, *affine, level, eps)
        update = self._asked(normed)
        normed = self.norm(x, update, None, now.gain2, now.shift2, level, eps)
        into = self._project(products.ffn_in, normed, gelu=True)
        update = self._project(products.ffn_out, into)
        return self.norm(x, update, now.gate2, following.gain1, following.shift1, level, eps)

    def _attended(self, normed: Tensor) -> Tensor:
        own = self.block.attn1
        q, k, v = self._project(self.products.qkv, normed).chunk(3, dim=-1)
        self.ops.norm_rotate(q, own.norm_q.weight.detach(), own.norm_q.eps, self.tables)
        self.ops.norm_rotate(k, own.norm_k.weight.detach(), own.norm_k.eps, self.tables)
        q, k, v = (_split(part, own.heads) for part in (q, k, v))
        found = self.attend(q, k, v, None)
        return self._project(self.products.out, found.flatten(2))

    def _asked(self, normed: Tensor) -> Tensor:
        cross = self.block.attn2
        q = self._project(self.products.cross_q, normed)
        self.ops.norm_rotate(q, cross.norm_q.weight.detach(), cross.norm_q.eps, None)
        keys, values = (part.expand(len(q), -1, -1, -1) for part in self.text)
        found = self.attend_prompt(_split(q, cross.heads), keys, values, None)
        return self._project(self.products.cross_out, found.flatten(2))

    def _project(self, product: Product, x: Tensor, *, gelu: bool = False) -> Tensor:
        given = self.ops.quantise(x, gelu=False) if product.fp8 else Activations(x)
        return product(given, gelu=gelu)


class FastStDiff:
    """Call it as the network with timesteps [B,T,h/2,w/2]; no gradients.

    Weights that were changed in place are seen, except those of prompts' keys: call
    :meth:`forget` after that.
    """

    def __init__(self, net: StDiff, settings: FastSettings | None = None) -> None:
        self.net = net
        self.settings = settings or FastSettings()
        self.attend = attention(self.settings.attention, net.device)
        self.attend_prompt = attention(prompt_backend(self.settings.attention), net.device)
        self.forget()

    def forget(self) -> None:
        """Drop everything kept between calls."""
        self._tables: tuple[tuple[object, ...], Tables] | None = None
        self._prompts: list[tuple[Tensor, TextKeys]] = []
        self._products: list[BlockProducts] | None = None
        self._static: tuple[Tensor, Tensor, Tensor] | None = None
        self._at: tuple[int, ...] = ()

    @property
    def dtype(self) -> torch.dtype:
        return self.net.dtype

    @property
    def config(self) -> Any:
        return self.net.config

    @torch.no_grad()
    def __call__(self, latents: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        """Velocity [B,C,T,h,w]; see :meth:`StDiff.velocity`."""
        net = self.net
        net.check_tokens(latents, timesteps)
        self._check_place()
        known, level = torch.unique(timesteps.flatten(1), return_inverse=True)
        level = level.contiguous()
        x = net.patch_embedding(latents.to(net.dtype)).flatten(2).transpose(1, 2).contiguous()
        with without_autocast(latents.device):
            embedding, rows, words, _ = net.condition_embedder(known, text.to(net.dtype))
        table = self._rows(rows.unflatten(1, (6, -1)), embedding)
        norm = choose_leveled(self.settings.kernels, x.device)
        with preferred_backends(x.device):
            first = table[0]
            eps = self._layers[0].norm1.eps
            normed = norm(x, None, None, first.gain1, first.shift1, level, eps)
            blocks = self._blocks(words, text, self._rotary(latents), norm)
            for number, block in enumerate(blocks):
                normed = block(x, normed, level, table[number], table[number + 1])
        return net.unpatched(net.proj_out(normed), latents.shape)

    @property
    def _layers(self) -> list[Any]:
        return list(self.net.blocks)

    def _blocks(
        self, words: Tensor, given: Tensor, tables: Tables, norm: LeveledNorm
    ) -> list[_Block]:
        if self._products is None:
            place = self.settings.adapter
            self._products = [block_products(b, self.net.dtype, place) for b in self._layers]
            self._at = self._places()
        ops = choose_kernels(self.settings.kernels, words.device)
        parts = zip(self._layers, self._products, self._text_keys(words, given), strict=True)
        return [
            _Block(block, products, keys, tables, self.attend, self.attend_prompt, ops, norm)
            for block, products, keys in parts
        ]

    def _text_keys(self, words: Tensor, given: Tensor) -> TextKeys:
        place = same_tensor([known for known, _ in self._prompts], given)
        if place is not None:
            return self._prompts[place][1]
        made = []
        for block in self._layers:
            asked = block.attn2
            key, value = asked.norm_k(asked.to_k(words)), asked.to_v(words)
            made.append((_split(key.to(value.dtype), asked.heads), _split(value, asked.heads)))
        self._prompts = [*self._prompts[1 - _PROMPTS_KEPT :], (given, made)]
        return made

    def _rotary(self, latents: Tensor) -> Tables:
        key = (tuple(latents.shape[2:]), latents.device)
        if self._tables is None or self._tables[0] != key:
            cos, sin = self.net.rope(latents)
            pairs = (cos[:, :, 0, 0::2].float(), sin[:, :, 0, 1::2].float())
            self._tables = key, Tables(*(part.contiguous() for part in pairs))
        return self._tables[1]

    def _rows(self, rows: Tensor, embedding: Tensor) -> list[LevelRows]:
        """Rows of every block and, last, of the output norm, for K levels [K,6,D]."""
        if self._static is None:
            layers = self._layers
            affine = [getattr(layer.norm2, "weight", None) is not None for layer in layers]
            assert all(affine)
            self._static = (
                torch.stack([layer.scale_shift_table.detach()[0] for layer in layers]),
                torch.stack([layer.norm2.weight.detach() for layer in layers]).float(),
                torch.stack([layer.norm2.bias.detach() for layer in layers]).float(),
            )
        table, weight, bias = self._static
        added = (table[:, None] + rows[None].float()).permute(2, 0, 1, 3).contiguous()
        shift1, gain1, gate1, shift2, gain2, gate2 = added.unbind(0)  # each [layers,K,D]
        gain1, gain2 = 1 + gain1, 1 + gain2
        count = len(rows)
        affine_rows = [part[:, None].expand(-1, count, -1).contiguous() for part in (weight, bias)]
        every = (gate1, gain1, shift1, gate2, gain2, shift2, *affine_rows)
        made = [LevelRows(*(row[number] for row in every)) for number in range(len(table))]
        ends = self.net.scale_shift_table.detach().float() + embedding.float()[:, None]
        shift, gain = ends[:, 0].contiguous(), (1 + ends[:, 1]).contiguous()
        return [*made, LevelRows(gain, gain, shift, gain, gain, shift, gain, shift)]

    def _places(self) -> tuple[int, ...]:
        ends = (self._layers[0], self._layers[-1])
        return tuple(block.ffn.net[2].weight.data_ptr() for block in ends)

    def _check_place(self) -> None:
        """Forget all if the weights were moved or replaced."""
        if self._at and self._at != self._places():
            self.forget()


def why_not(net: StDiff) -> str | None:
    """Why the fast path cannot run a network; None if it can."""
    if not net.config["cross_attn_norm"]:
        return "it has no norm before the prompt is read"
    return None


def _split(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(2, (heads, -1))
