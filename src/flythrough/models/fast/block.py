"""One block of the fast path: products with one pass over the tokens between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from flythrough.models.fast.activations import Activations
from flythrough.models.fast.attention import Attend
from flythrough.models.fast.elementwise import Elementwise
from flythrough.models.fast.products import BlockProducts, Product
from flythrough.models.helios_blocks import HeadsRMSNorm, HeliosTransformerBlock
from flythrough.models.rotary import Tables


class Rows(NamedTuple):
    """Rows [B,2,D] float32 of history and noisy tokens in one block and step.

    ``mixed_gain`` and ``mixed_shift`` follow self attention: history goes on to the feed-forward
    (gain2, shift2), noisy tokens to the prompt (the affine norm's weight and bias).
    """

    gate1: Tensor
    gain1: Tensor
    shift1: Tensor
    gate2: Tensor
    gain2: Tensor
    shift2: Tensor
    mixed_gain: Tensor
    mixed_shift: Tensor


@dataclass(frozen=True, eq=False)
class FastBlock:
    """A block with everything that stays the same during a stage."""

    block: HeliosTransformerBlock
    products: BlockProducts
    text: tuple[Tensor, Tensor]
    tables: Tables
    mask: Tensor | None
    attend: Attend
    attend_prompt: Attend

    def __call__(
        self, ops: Elementwise, x: Tensor, past: int, now: Rows, following: Rows, out: Activations
    ) -> None:
        """Change ``x`` [B,H+N,D] in place, its first ``past`` tokens being history.

        ``out`` holds the normed input of this block before, that of the next block after.
        """
        eps = self.block.eps
        update = self._self_attended(ops, out, 0)
        ops.residual_norm(x, update, now.gate1, now.mixed_gain, now.mixed_shift, past, eps, out)
        self._asked(ops, x[:, past:], now, out.since(past))
        update = self._fed(ops, out)
        ops.residual_norm(x, update, now.gate2, following.gain1, following.shift1, past, eps, out)

    def last(self, ops: Elementwise, x: Tensor, past: int, now: Rows, out: Activations) -> Tensor:
        """The last block up to its feed-forward: only noisy tokens go on, history is read.

        Changes the noisy tail of ``x`` in place and returns the feed-forward's update [B,N,D].
        """
        tail, rest, eps = x[:, past:], out.since(past), self.block.eps
        update = self._self_attended(ops, out, past)
        ops.residual_norm(tail, update, now.gate1, now.mixed_gain, now.mixed_shift, 0, eps, rest)
        self._asked(ops, tail, now, rest)
        return self._fed(ops, rest)

    def _self_attended(self, ops: Elementwise, out: Activations, first: int) -> Tensor:
        """Self attention of the tokens from ``first`` on with all, projected."""
        qkv = self.products.qkv
        if first == 0:
            q, k, v = qkv(out).chunk(3, dim=-1)
            return self._attended(ops, q, k, v, self.tables)
        width = len(qkv.weight) // 3
        q = qkv.rows(0, width)(out.since(first))
        k, v = qkv.rows(width, 3 * width)(out).chunk(2, dim=-1)
        return self._attended(ops, q, k, v, Tables(*(t[:, first:] for t in self.tables)))

    def _attended(
        self, ops: Elementwise, q: Tensor, k: Tensor, v: Tensor, asking: Tables
    ) -> Tensor:
        """Self attention of ``q`` [B,n,D], projected."""
        own = self.block.attn1
        turned(ops, own.norm_q, q, asking)
        turned(ops, own.norm_k, k, self.tables)
        return self._joined(ops, q, k, v)

    def _joined(self, ops: Elementwise, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What ``q`` [B,n,D] takes from keys and values [B,N,D], projected."""
        own = self.block.attn1
        found = self.attend(own.split(q), own.split(k), own.split(v), self.mask)
        return _project(ops, self.products.out, found.flatten(2))

    def _asked(self, ops: Elementwise, tail: Tensor, now: Rows, out: Activations) -> None:
        """Noisy tokens read the prompt; ``out`` then holds their feed-forward input."""
        cross = self.block.attn2
        q = self.products.cross_q(out)
        turned(ops, cross.norm_q, q, None)
        keys, values = (part.expand(len(q), -1, -1, -1) for part in self.text)
        found = self.attend_prompt(cross.split(q), keys, values, None)
        update = _project(ops, self.products.cross_out, found.flatten(2))
        eps = self.block.eps
        ops.residual_norm(tail, update, None, now.gain2, now.shift2, 0, eps, out)

    def _fed(self, ops: Elementwise, out: Activations) -> Tensor:
        """The feed-forward's update."""
        into, back = self.products.ffn_in, self.products.ffn_out
        if back.fp8 and not back.needs_values:
            return back(ops.quantise(into(out), gelu=True))
        return _project(ops, back, into(out, gelu=True))


def _project(ops: Elementwise, product: Product, x: Tensor) -> Tensor:
    if not product.fp8:
        return product(Activations(x))
    made = ops.quantise(x, gelu=False)
    return product(Activations(x, made.quantised, made.scales))


def turned(ops: Elementwise, norm: HeadsRMSNorm, x: Tensor, tables: Tables | None) -> None:
    """Norm and rotation of queries or keys [B,N,D], in place."""
    assert norm.weight is not None
    assert norm.eps is not None
    ops.norm_rotate(x, norm.weight.detach(), norm.eps, tables)
