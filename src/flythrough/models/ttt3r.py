"""A stream of pictures to points, confidence and cameras, with a memory of constant size.

Own implementation of CUT3R (Wang et al., arXiv:2501.12387) with the published parameter names, and
of the gate of TTT3R (Chen et al., arXiv:2509.26645, eq. for the per-token rate): how far each state
token moves to its new value follows from how well it agrees with the picture. The gate has no
parameters and works on unchanged weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from flythrough.errors import GeometryError
from flythrough.models.pi3x_blocks import NORM_EPS, Rotary, rotary_2d
from flythrough.models.precision import without_autocast
from flythrough.models.ttt3r_blocks import (
    ConditionedBlock,
    DecoderBlock,
    EncoderBlock,
    frame_positions,
    grid_positions,
    state_positions,
)
from flythrough.models.ttt3r_config import PATCH, TTT3RConfig
from flythrough.models.ttt3r_heads import DenseHead, PoseHead, decoded_points, decoded_pose

UpdateRule = Literal["ttt3r", "cut3r"]


@dataclass(frozen=True, eq=False)
class StreamState:
    """What is kept between frames: ``tokens`` [B,S,W] and pose ``memory`` [B,M,2W]. ``fresh``: no
    frame was seen yet, so that there is no pose to remember and nothing to hold back."""

    tokens: Tensor
    memory: Tensor
    fresh: bool = True


@dataclass(frozen=True, eq=False)
class FrameGeometry:
    """One frame of each of B streams, float32, OpenCV axes, metres.

    points, world_points: [B,H,W,3] in this camera's frame and in the first one's (as the network
    says directly). confidence, world_confidence: [B,H,W], at least 1. rgb: [B,H,W,3] in [-1,1], the
    picture as the network redraws it. pose: [B,4,4] camera-to-world in the first frame's world.
    The world and rgb fields are None when they were not asked for.
    """

    points: Tensor
    confidence: Tensor
    pose: Tensor
    world_points: Tensor | None = None
    world_confidence: Tensor | None = None
    rgb: Tensor | None = None


class PatchEmbed(nn.Module):
    """Patches of 16 x 16 pixels as tokens."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, PATCH, stride=PATCH)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class PoseMemory(nn.Module):
    """Remembers pose tokens by what their pictures looked like."""

    def __init__(self, c: TTT3RConfig) -> None:
        super().__init__()
        wide = 2 * c.width
        self.proj_q = nn.Linear(c.encoder_width, c.width)
        self.masked_token = nn.Parameter(torch.randn(1, 1, c.width) * 0.02)
        self.mem = nn.Parameter(torch.randn(1, c.memory_tokens, wide) * 0.02)

        def blocks() -> nn.ModuleList:
            return nn.ModuleList(DecoderBlock(wide, c.heads, c.mlp_ratio) for _ in range(2))

        self.write_blocks, self.read_blocks = blocks(), blocks()

    def read(self, look: Tensor, memory: Tensor) -> Tensor:
        """Pose token [B,1,W] for a picture whose mean feature is ``look`` [B,1,E]."""
        asked = torch.cat([self.proj_q(look), self.masked_token.expand(len(look), -1, -1)], dim=-1)
        for block in self.read_blocks:
            asked, _ = block(asked, memory)
        return asked[..., asked.shape[-1] // 2 :]

    def written(self, look: Tensor, pose: Tensor, memory: Tensor) -> Tensor:
        """The memory after the picture ``look`` got the pose token ``pose`` [B,1,W]."""
        fact = torch.cat([self.proj_q(look), pose], dim=-1)
        for block in self.write_blocks:
            memory, _ = block(memory, fact)
        return memory


class Heads(nn.Module):
    """Dense maps and the pose, as published under one name."""

    def __init__(self, c: TTT3RConfig) -> None:
        super().__init__()
        self.dpt_self, self.dpt_cross = DenseHead(c, 4), DenseHead(c, 4)
        self.dpt_rgb = DenseHead(c, 3)
        self.final_transform = nn.ModuleList(
            ConditionedBlock(c.width, c.heads, c.mlp_ratio) for _ in range(2)
        )
        self.pose_head = PoseHead(c)


class TTT3R(nn.Module):
    """The network: ``encode`` a picture, then ``step`` the state with its features."""

    def __init__(self, config: TTT3RConfig | None = None) -> None:
        super().__init__()
        c = self.config = config or TTT3RConfig()
        self.patch_embed = PatchEmbed(3, c.encoder_width)
        # Rays of unseen cameras could be asked about; kept for the layout of the files, unused.
        self.patch_embed_ray_map = PatchEmbed(6, c.encoder_width)
        self.enc_blocks_ray_map = self._encoder(c.ray_depth)
        self.enc_norm_ray_map = nn.LayerNorm(c.encoder_width, eps=NORM_EPS)
        self.masked_img_token = nn.Parameter(torch.randn(1, c.encoder_width) * 0.02)
        self.masked_ray_map_token = nn.Parameter(torch.randn(1, c.encoder_width) * 0.02)
        self.enc_blocks = self._encoder(c.encoder_depth)
        self.enc_norm = nn.LayerNorm(c.encoder_width, eps=NORM_EPS)
        self.register_tokens = nn.Embedding(c.state_tokens, c.encoder_width)
        self.decoder_embed = nn.Linear(c.encoder_width, c.width)
        self.decoder_embed_state = nn.Linear(c.encoder_width, c.width)
        self.dec_blocks = self._decoder(c.heads)
        self.dec_blocks_state = self._decoder(c.state_heads)
        self.dec_norm = nn.LayerNorm(c.width, eps=NORM_EPS)
        self.dec_norm_state = nn.LayerNorm(c.width, eps=NORM_EPS)
        self.pose_token = nn.Parameter(torch.randn(1, 1, c.width) * 0.02)
        self.pose_retriever = PoseMemory(c)
        self.downstream_head = Heads(c)

    def _encoder(self, depth: int) -> nn.ModuleList:
        c = self.config
        return nn.ModuleList(
            EncoderBlock(c.encoder_width, c.encoder_heads, c.mlp_ratio) for _ in range(depth)
        )

    def _decoder(self, heads: int) -> nn.ModuleList:
        c = self.config
        return nn.ModuleList(DecoderBlock(c.width, heads, c.mlp_ratio) for _ in range(c.depth))

    def start(self, batch: int = 1) -> StreamState:
        """The state before any frame."""
        tokens = self.decoder_embed_state(self.register_tokens.weight)
        return StreamState(
            tokens.expand(batch, -1, -1), self.pose_retriever.mem.expand(batch, -1, -1)
        )

    def encode(self, images: Tensor) -> Tensor:
        """Features [B,N,E] of images [B,3,H,W] in [0,1], sides multiples of 16.

        Raises:
            GeometryError: another shape.
        """
        _check_images(images)
        tokens = self.patch_embed(images * 2 - 1)
        head = self.config.encoder_width // self.config.encoder_heads
        turn = rotary_2d(head, grid_positions(*_grid(images), images.device))
        for block in self.enc_blocks:
            tokens = block(tokens, turn)
        return self.enc_norm(tokens)

    def step(
        self,
        features: Tensor,
        state: StreamState,
        size: tuple[int, int],
        *,
        rule: UpdateRule = "ttt3r",
        everything: bool = True,
    ) -> tuple[FrameGeometry, StreamState]:
        """Read a frame with the state, and the state after it.

        Args:
            features: as ``encode`` gives them for a picture of ``size`` (height, width).
            rule: ``cut3r`` replaces the state, ``ttt3r`` moves each token by its own rate.
            everything: also points in the world and the redrawn picture.
        """
        grid = size[0] // PATCH, size[1] // PATCH
        look = features.mean(dim=1, keepdim=True)
        if state.fresh:
            pose = self.pose_token.expand(len(features), -1, -1)
        else:
            pose = self.pose_retriever.read(look, state.memory)
        taps, new, rate = self._decode(features, pose, state.tokens, grid)
        if rule == "ttt3r" and not state.fresh:
            new = state.tokens + rate[..., None] * (new - state.tokens)
        memory = self.pose_retriever.written(look, taps[-1][:, :1], state.memory)
        with without_autocast(features.device):
            read = self._read_heads(taps, grid, everything)
        return read, StreamState(new, memory, fresh=False)

    def _decode(
        self, features: Tensor, pose: Tensor, state: Tensor, grid: tuple[int, int]
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Features at four depths (all but the first with the pose token in front), the new state
        tokens and the rate [B,S] at which each of them should be taken over."""
        c, device = self.config, features.device
        frame = torch.cat([pose, self.decoder_embed(features)], dim=1)
        at_frame = frame_positions(*grid, device)
        at_state = state_positions(c.state_tokens, c.state_columns, device)
        wide, narrow = c.width // c.heads, c.width // c.state_heads
        turns: list[Rotary] = [rotary_2d(wide, at_frame), rotary_2d(wide, at_state)]
        state_turns: list[Rotary] = [rotary_2d(narrow, at_state), rotary_2d(narrow, at_frame)]
        taps, agreements = [features], []
        for depth, (own, other) in enumerate(
            zip(self.dec_blocks, self.dec_blocks_state, strict=True), start=1
        ):
            # Both streams read what the other one was a block earlier.
            (frame, _), (state, agreement) = (
                own(frame, state, *turns),
                other(state, frame, *state_turns, rate=True),
            )
            agreements.append(agreement)
            if depth in (c.depth // 2, 3 * c.depth // 4):
                taps.append(frame)
        taps.append(self.dec_norm(frame))
        rate = torch.stack(agreements).mean(0).sigmoid().to(state.dtype)
        return taps, self.dec_norm_state(state), rate

    def _read_heads(
        self, taps: list[Tensor], grid: tuple[int, int], everything: bool
    ) -> FrameGeometry:
        heads, c = self.downstream_head, self.config
        pose_token = taps[-1][:, 0].float()
        dense = [taps[0].float(), *(tap[:, 1:].float() for tap in taps[1:])]
        points, confidence = decoded_points(heads.dpt_self(dense, grid))
        pose = decoded_pose(heads.pose_head(pose_token))
        if not everything:
            return FrameGeometry(points, confidence, pose)
        turn = rotary_2d(c.width // c.heads, grid_positions(*grid, pose.device))
        last = dense[-1]
        for block in heads.final_transform:
            last = block(last, pose_token, turn)
        world, sure = decoded_points(heads.dpt_cross([*dense[:-1], last], grid))
        rgb = heads.dpt_rgb(dense, grid).permute(0, 2, 3, 1).sigmoid() * 2 - 1
        return FrameGeometry(points, confidence, pose, world, sure, rgb)


def _grid(images: Tensor) -> tuple[int, int]:
    return images.shape[-2] // PATCH, images.shape[-1] // PATCH


def _check_images(images: Tensor) -> None:
    fits = images.ndim == 4 and images.shape[1] == 3 and 0 not in images.shape
    if not fits or images.shape[2] % PATCH or images.shape[3] % PATCH:
        raise GeometryError(
            f"Images of shape {tuple(images.shape)} do not fit the geometry network, which needs "
            f"[B, 3, H, W] with H and W multiples of {PATCH}; resize them."
        )
