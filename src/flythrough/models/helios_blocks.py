"""Layers of the Helios denoiser (arXiv 2603.04379): patches, attention, block, head.

A sequence is kept in two parts, history [B,H,D] and noisy [B,N,D]: all tokens of a part share one
modulation row, so that nothing per token is ever materialised. Norms, modulation and residuals run
in float32; a part keeps the dtype of the weights.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from flythrough.models.history_tokens import Kernel
from flythrough.models.linear import Linear, with_gelu
from flythrough.models.rotary import Tables, rotate

_MAX_HISTORY_SCALE = 10.0


class BlockContext(NamedTuple):
    """What every block reads and none changes.

    Attributes:
        text: [B,L,D] embedded prompt.
        history_row, noisy_row: [B or 1,6,D] modulation of the two parts.
        tables: rotary tables of history then noisy tokens.
        key_mask: [B,1,1,H+N] bool, keys that may be attended to; None for all.
        text_on_history: whether history tokens read the prompt as well.
    """

    text: Tensor
    history_row: Tensor
    noisy_row: Tensor
    tables: Tables
    key_mask: Tensor | None
    text_on_history: bool


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """LayerNorm(x) * (1 + scale) + shift in float32; shift and scale are [B or 1,1,D]."""
    width = (x.shape[-1],)
    if shift.shape[0] == 1:
        return functional.layer_norm(x.float(), width, 1 + scale[0, 0], shift[0, 0], eps)
    return torch.addcmul(shift, functional.layer_norm(x.float(), width, eps=eps), 1 + scale)


def gated(x: Tensor, update: Tensor, gate: Tensor) -> Tensor:
    """x + update * gate in float32, in the dtype of ``x``."""
    return torch.addcmul(x.float(), update.float(), gate).to(x.dtype)


class PatchProjection(nn.Conv3d):
    """A convolution whose stride is its kernel, computed as the matrix product that it is."""

    def __init__(self, channels: int, dim: int, kernel: Kernel) -> None:
        super().__init__(channels, dim, kernel_size=kernel, stride=kernel)

    def forward(self, latents: Tensor) -> Tensor:
        """Latents [B,C,t,h,w], sides multiples of the kernel, to tokens [B,N,D] in (t, h, w)."""
        batch, channels, *sizes = latents.shape
        split = [n for size, k in zip(sizes, self.kernel_size, strict=True) for n in (size // k, k)]
        patches = latents.to(self.weight.dtype).reshape(batch, channels, *split)
        patches = patches.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3)
        tokens = functional.linear(patches, self.weight.flatten(1), self.bias)
        return tokens.to(self.weight.dtype)


class HeadsRMSNorm(nn.RMSNorm):
    """RMS norm over all heads at once, in float32 and returning float32."""

    def forward(self, x: Tensor) -> Tensor:
        assert self.weight is not None
        return functional.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps)


class HeliosAttention(nn.Module):
    """Projections and norms that self and cross attention share."""

    def __init__(self, dim: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = Linear(dim, dim)
        self.to_k = Linear(dim, dim)
        self.to_v = Linear(dim, dim)
        self.to_out = nn.ModuleList([Linear(dim, dim)])
        self.norm_q = HeadsRMSNorm(dim, eps=eps)
        self.norm_k = HeadsRMSNorm(dim, eps=eps)

    def split(self, x: Tensor) -> Tensor:
        """[B,N,D] to [B,N,heads,head_dim]."""
        return x.unflatten(-1, (self.heads, -1))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Softmax attention of [B,N,heads,head_dim] parts, in the dtype of ``v``, projected."""
        q, k, v = (part.to(v.dtype).transpose(1, 2) for part in (q, k, v))
        found = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        projected: Tensor = self.to_out[0](found.transpose(1, 2).flatten(2))
        return projected


class SelfAttention(HeliosAttention):
    """Every token with every visible token, positions by rotation."""

    def __init__(self, dim: int, heads: int, eps: float, amplify: str | None = None) -> None:
        super().__init__(dim, heads, eps)
        if amplify is not None:
            self.history_key_scale = nn.Parameter(torch.ones(heads if amplify == "per_head" else 1))
        self.amplify = amplify is not None

    def forward(self, x: Tensor, context: BlockContext, history: int, first_query: int) -> Tensor:
        """``x`` [B,H+N,D] with ``history`` tokens first; results from ``first_query`` on."""
        tables = context.tables
        asking = Tables(*(table[:, first_query:] for table in tables))
        q = rotate(self.split(self.norm_q(self.to_q(x[:, first_query:]))), asking)
        k = rotate(self.split(self.norm_k(self.to_k(x))), tables)
        if self.amplify:
            share = torch.sigmoid(self.history_key_scale.float())
            factor = 1.0 + share * (_MAX_HISTORY_SCALE - 1.0)
            k = torch.cat([k[:, :history] * factor[:, None], k[:, history:]], dim=1)
        return self.attend(q, k, self.split(self.to_v(x)), context.key_mask)


class CrossAttention(HeliosAttention):
    """Tokens with the prompt."""

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """``x`` [B,N,D] asks ``text`` [B,L,D]."""
        q = self.split(self.norm_q(self.to_q(x)))
        k = self.split(self.norm_k(self.to_k(text)))
        return self.attend(q, k, self.split(self.to_v(text)))


class GeluProjection(nn.Module):
    """A linear layer and the tanh form of GELU; a level of its own for the published key names."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.proj = Linear(dim, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return with_gelu(self.proj, x)


class FeedForward(nn.Module):
    """Two linear layers; the idle middle entry keeps the published key names."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        parts = [GeluProjection(dim, hidden), nn.Identity(), Linear(hidden, dim)]
        self.net = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.net:
            x = layer(x)
        return x


class HeliosTransformerBlock(nn.Module):
    """Self attention over both parts, cross attention to the prompt, feed-forward."""

    def __init__(
        self,
        dim: int,
        hidden: int,
        heads: int,
        eps: float,
        *,
        cross_norm: bool,
        amplify: str | None,
    ) -> None:
        super().__init__()
        self.eps = eps
        self.attn1 = SelfAttention(dim, heads, eps, amplify)
        self.attn2 = CrossAttention(dim, heads, eps)
        self.norm2 = nn.LayerNorm(dim, eps) if cross_norm else nn.Identity()
        self.ffn = FeedForward(dim, hidden)
        self.scale_shift_table = nn.Parameter(torch.randn(1, 6, dim) / dim**0.5)

    def forward(
        self, history: Tensor, noisy: Tensor, context: BlockContext, last: bool
    ) -> tuple[Tensor, Tensor]:
        """Both parts after the block.

        Nothing reads the history that leaves the ``last`` block, so there it only serves as keys
        and values and comes back as it was.
        """
        table = self.scale_shift_table.float()
        past = (table + context.history_row.float()).split(1, dim=1)
        now = (table + context.noisy_row.float()).split(1, dim=1)
        count = history.shape[1]

        joined = self._normed(history, noisy, past[:2], now[:2])
        attended = self.attn1(joined, context, count, count if last else 0)
        if last:
            noisy = gated(noisy, attended, now[2])
            noisy = noisy + self._asked(noisy, context)
            fed = self.ffn(modulated_norm(noisy, now[3], now[4], self.eps).to(noisy.dtype))
            return history, gated(noisy, fed, now[5])

        history = gated(history, attended[:, :count], past[2])
        noisy = gated(noisy, attended[:, count:], now[2])
        noisy = noisy + self._asked(noisy, context)
        if context.text_on_history:
            history = history + self._asked(history, context)
        fed = self.ffn(self._normed(history, noisy, past[3:5], now[3:5]))
        return gated(history, fed[:, :count], past[5]), gated(noisy, fed[:, count:], now[5])

    def _normed(
        self, history: Tensor, noisy: Tensor, past: tuple[Tensor, ...], now: tuple[Tensor, ...]
    ) -> Tensor:
        """Both parts normalised, each with its own (shift, scale), joined."""
        parts = [
            modulated_norm(history, past[0], past[1], self.eps),
            modulated_norm(noisy, now[0], now[1], self.eps),
        ]
        return torch.cat(parts, dim=1).to(noisy.dtype)

    def _asked(self, x: Tensor, context: BlockContext) -> Tensor:
        """What the prompt says to ``x``, in its dtype."""
        answer: Tensor = self.attn2(self.norm2(x.float()).to(x.dtype), context.text)
        return answer.to(x.dtype)


class HeliosOutputNorm(nn.Module):
    """Modulated norm in front of the output projection."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.scale_shift_table = nn.Parameter(torch.randn(1, 2, dim) / dim**0.5)

    def forward(self, noisy: Tensor, embedding: Tensor) -> Tensor:
        """``noisy`` [B,N,D] under the time embedding [B,D]."""
        rows = self.scale_shift_table.float() + embedding.float().unsqueeze(1)
        shift, scale = rows.split(1, dim=1)
        return modulated_norm(noisy, shift, scale, self.eps).to(noisy.dtype)
