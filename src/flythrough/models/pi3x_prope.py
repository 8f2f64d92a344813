"""Pose injection: attention whose queries, keys and values carry each view's camera (PRoPE / GTA).

Half of a head is read as 4-vectors moved by the view's world-to-camera matrix, so that a pair of
tokens sees only their views' relative pose; the other half turns with the patch's column and row.
Values are moved too, and the result is moved back into the asking view.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from flythrough.models.pi3x_blocks import Block

_BASE = 100.0


@dataclass(frozen=True, eq=False)
class ViewPoses:
    """World-to-camera matrices [B,N,4,4] and their inverses, and the patch grid of the views."""

    camera_from_world: Tensor
    world_from_camera: Tensor
    rows: int
    columns: int


class PoseInjection(Block):
    """A block whose sum of attention and MLP (both fed by the input) the caller adds to tokens."""

    def __init__(self, width: int, heads: int, ratio: int, *, scale: float) -> None:
        super().__init__(width, heads, ratio, scale=scale, qk_norm=True)

    def inject(self, x: Tensor, poses: ViewPoses, allowed: Tensor | None) -> Tensor:
        """Update for patch tokens ``x`` [B, N*P, width]; it is not yet added to them.

        ``allowed`` [B, 1, N*P, N*P] bool says which tokens may be attended to (None: all).
        """
        moved = _camera_attention(*self.attn.heads_of(self.norm1(x)), poses, allowed)
        return self.ls1(self.attn.merged(moved)) + self.ls2(self.mlp(self.norm2(x)))


def attention_mask(on: Tensor, patches: int) -> Tensor | None:
    """Which tokens see which, for per-view switches ``on`` [B,N]; None when every view is on.

    Views that are off see only themselves: their result is thrown away, but must stay finite.
    """
    if bool(on.all()):
        return None
    own = torch.eye(on.shape[1], dtype=torch.bool, device=on.device)
    views = (on[:, :, None] & on[:, None, :]) | own
    tokens = views.repeat_interleave(patches, dim=1).repeat_interleave(patches, dim=2)
    return tokens[:, None]


def _camera_attention(
    q: Tensor, k: Tensor, v: Tensor, poses: ViewPoses, allowed: Tensor | None
) -> Tensor:
    forward, back = poses.camera_from_world, poses.world_from_camera
    turns = _grid_turns(poses, q.shape[-1] // 4, q.device)
    q = _transformed(q, forward.transpose(-1, -2), turns, 1)
    k = _transformed(k, back, turns, 1)
    v = _transformed(v, back, turns, 1)
    y = functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
    return _transformed(y, forward, turns, -1)


def _grid_turns(poses: ViewPoses, features: int, device: torch.device) -> Tensor:
    """Angles [2, N*P, features/2] of all tokens: by column, then by row, both counted from 0."""
    half = features // 2
    frequencies = _BASE ** (-torch.arange(half, device=device, dtype=torch.float32) / half)
    rows = torch.arange(poses.rows, device=device).repeat_interleave(poses.columns)
    columns = torch.arange(poses.columns, device=device).repeat(poses.rows)
    positions = torch.stack([columns, rows]).repeat(1, poses.camera_from_world.shape[1])
    return positions[:, :, None] * frequencies


def _transformed(x: Tensor, matrices: Tensor, turns: Tensor, sign: int) -> Tensor:
    """Apply [B,N,4,4] to the first half of heads [B,h,N*P,d] and the grid turns to the rest."""
    batch, heads, tokens, d = x.shape
    vectors, by_column, by_row = x.split([d // 2, d // 4, d // 4], dim=-1)
    views = matrices.shape[1]
    groups = vectors.reshape(batch, heads, views, tokens // views, d // 8, 4)
    moved = torch.einsum("bnij,bhnpgj->bhnpgi", matrices.to(x.dtype), groups)
    parts = [moved.reshape(batch, heads, tokens, d // 2)]
    parts += [_turned(part, turns[i], sign) for i, part in enumerate((by_column, by_row))]
    return torch.cat([part.to(x.dtype) for part in parts], dim=-1)


def _turned(x: Tensor, angles: Tensor, sign: int) -> Tensor:
    """Rotate the pairs (entry j, entry j + half) of ``x`` by minus ``sign`` times the angles."""
    u, v = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin() * sign
    return torch.cat([cos * u + sin * v, cos * v - sin * u], dim=-1)
