"""The fast denoiser on several GPUs: every process computes its share of the tokens.

Weights are whole in each process; norms, products and the feed-forward see local tokens alone, and
only self attention exchanges something: keys and values are gathered by everybody while the next
product runs (values during the product of keys, both during that of queries). The alternative,
exchanging heads (Ulysses), sends half as many bytes on four GPUs and as many on two, but sends four
tensors instead of two, packs and unpacks each of them, and can hide only half of it; it would pay
from eight GPUs on. What comes back are the same bits in every process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from flythrough.models.fast.activations import Activations
from flythrough.models.fast.block import FastBlock, turned
from flythrough.models.fast.denoiser import Call, FastDenoiser
from flythrough.models.fast.elementwise import Elementwise
from flythrough.models.fast.recordings import Work
from flythrough.models.fast.settings import FastSettings
from flythrough.models.fast.token_cut import TokenCut
from flythrough.models.helios import HeliosTransformer
from flythrough.models.history_tokens import ChosenTokens, Kernel
from flythrough.models.rotary import Tables

_all_gather: Callable[..., Any] = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
"""torch 2.13 has a new name for it and warns of the old one."""

_CUTS_KEPT = 16
"""A cut is small, and found again by its numbers alone."""

Waiting = Callable[[], Tensor]
"""Gives what was asked for, once it is there."""


class Exchange:
    """Gathers tokens of all processes of ``group`` (None: of all there are)."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        self.rank, self.ranks = dist.get_rank(group), dist.get_world_size(group)
        self._begun: list[Any] = []

    def gather(self, own: Tensor) -> Waiting:
        """Begin to gather ``own`` [B,n,D]; the answer is [B,ranks*n,D] in the order of ranks.

        On a GPU only work that is queued after the answer was asked for waits for it.
        """
        own = own.contiguous()
        whole = own.new_empty(self.ranks * own.shape[0], *own.shape[1:])
        handle = _all_gather(whole, own, group=self.group, async_op=True)
        self._begun.append(handle)

        def wait(sent: Tensor = own) -> Tensor:
            handle.wait()
            self._begun.remove(handle)
            del sent  # kept until here: it was being read
            parts = whole.unflatten(0, (self.ranks, -1))
            if parts.shape[1] == 1:
                return parts.flatten(0, 2)[None]
            return parts.transpose(0, 1).flatten(1, 2)

        return wait

    def join(self) -> None:
        """Wait for what was begun and never asked for, as :meth:`gather` waits."""
        while self._begun:
            self._begun.pop().wait()


class _Local(NamedTuple):
    """How a sequence is cut, the positions of what this process computes, and the order of keys as
    they are gathered; both on the device."""

    cut: TokenCut
    own: Tensor
    order: Tensor


@dataclass(frozen=True, eq=False)
class SharedBlock(FastBlock):
    """A block whose ``x`` holds the tokens of one process and whose ``tables`` are theirs."""

    exchange: Exchange
    cut: TokenCut

    def _self_attended(self, ops: Elementwise, out: Activations, first: int) -> Tensor:
        own, share, total = self.block.attn1, self.cut.share, self.cut.total
        queries, keys_of, values_of = self.products.apart
        values = self.exchange.gather(values_of(out)[:, :share])
        k = keys_of(out)
        turned(ops, own.norm_k, k, self.tables)
        keys = self.exchange.gather(k[:, :share])
        q = queries(out.since(first))
        turned(ops, own.norm_q, q, Tables(*(t[:, first:] for t in self.tables)))
        return self._joined(ops, q, keys()[:, :total], values()[:, :total])


class SharedDenoiser(FastDenoiser):
    """To be called by every process of a group at the same time with the same arguments; each gets
    the whole result.

    Raises:
        WeightsError: as :class:`FastDenoiser`.
    """

    def __init__(
        self,
        transformer: HeliosTransformer,
        settings: FastSettings | None = None,
        exchange: Exchange | None = None,
    ) -> None:
        self.exchange = exchange or Exchange()
        super().__init__(transformer, settings)

    def forget(self) -> None:
        super().forget()
        self._cuts: dict[tuple[int, int], _Local] = {}

    def would_plan(self, chosen: ChosenTokens, latents: Kernel) -> bool:
        """Never: each process asks with its own share, which no such plan would serve."""
        del chosen, latents
        return False

    def _located(self, past: int, now: int) -> _Local:
        key = past, now
        found = self._cuts.pop(key, None)
        if found is None:
            device, cut = self.net.device, TokenCut(past, now, self.exchange.ranks)
            found = _Local(cut, cut.own(self.exchange.rank, device), cut.order(device))
        self._cuts[key] = found  # the newest now
        while len(self._cuts) > _CUTS_KEPT:
            del self._cuts[next(iter(self._cuts))]
        return found

    def _work(self, call: Call) -> Work:
        """As one GPU's, but it gives the noisy tokens of this process [B,n,D], fillers included."""
        cut, mine, order = self._located(call.past, call.now)
        mask = None if call.mask is None else call.mask.index_select(-1, order)
        before = len(cut.history(self.exchange.rank))

        def work(x: Tensor, embedding: Tensor, past: Tensor, now: Tensor, *own: Tensor) -> Tensor:
            tables = Tables(*(table.index_select(1, mine) for table in own))
            ways = (self.attend, self.attend_prompt, self.exchange, cut)
            blocks: list[FastBlock] = [
                SharedBlock(block, made, keys, tables, mask, *ways)
                for block, made, keys in zip(self._layers, call.products, call.text, strict=True)
            ]
            rows = self._rows(past, now, embedding, len(x))
            try:
                return self._through(x.index_select(1, mine), before, blocks, rows)
            except torch.OutOfMemoryError:
                self.exchange.join()  # or torch could not give up the recording
                raise

        return work

    def _whole(self, found: Tensor, call: Call) -> Tensor:
        # Never recorded: torch's watchdog sees this exchange alone, and with it a call that stalls.
        cut = self._located(call.past, call.now).cut
        longest = cut.longest_tail
        sent = found.new_zeros(found.shape[0], longest, found.shape[2])
        sent[:, : found.shape[1]] = found
        parts = self.exchange.gather(sent)().unflatten(1, (cut.ranks, longest))
        noisy = [parts[:, number, : len(cut.noisy(number))] for number in range(cut.ranks)]
        return torch.cat(noisy, dim=1)
