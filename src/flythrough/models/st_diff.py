"""ST-Diff: a Wan 2.1 video transformer that knows one noise level per token (WorldWarp).

The network is diffusers' ``WanTransformer3DModel``: same configuration, same names of weights, same
folders. Since its 0.35 that class takes timesteps [B,S]; it then embeds each token on its own and
keeps six modulation rows for every token. A chunk knows few different levels, so here each level is
embedded once and its rows are gathered where they are used (arXiv 2512.19678, section 4.2).
"""

from __future__ import annotations

import json
from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel, WanTransformerBlock
from torch import Tensor
from torch.nn.functional import embedding as picked
from torch.utils.checkpoint import checkpoint

from flythrough.errors import InputError, WeightsError
from flythrough.models.catalog import ST_DIFF_CLASS
from flythrough.models.precision import without_autocast

PUBLISHED_CONFIG: dict[str, Any] = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 12,
    "attention_head_dim": 128,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 4096,
    "freq_dim": 256,
    "ffn_dim": 8960,
    "num_layers": 30,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "eps": 1e-6,
    "rope_max_seq_len": 1024,
}
"""Wan 2.1 T2V 1.3B, which ST-Diff was fine-tuned from: 825 tensors, 1,418,996,800 numbers."""

Rotary = tuple[Tensor, Tensor]


class StDiffBlock(WanTransformerBlock):
    """A Wan block whose modulation rows are picked by a noise level's number."""

    def tokens(
        self, hidden: Tensor, text: Tensor, rows: Tensor, level: Tensor, rotary: Rotary
    ) -> Tensor:
        """Tokens [B,S,D] with text [B,L,D]; ``rows`` [K,6,D] of K levels, ``level`` [B,S] int64.

        Norms and modulation are float32, as in the class above.
        """
        table = (self.scale_shift_table + rows.float()).unbind(1)

        def modulated(x: Tensor, shift: int, scale: int) -> Tensor:
            return (x * (1 + picked(level, table[scale])) + picked(level, table[shift])).to(kind)

        kind = hidden.dtype
        seen = self.attn1(modulated(self.norm1(hidden.float()), 0, 1), None, None, rotary)
        hidden = (hidden.float() + seen * picked(level, table[2])).to(kind)
        normed = self.norm2(hidden.float()).to(kind)
        hidden = hidden + self.attn2(normed, text, None, None)
        made = self.ffn(modulated(self.norm3(hidden.float()), 3, 4))
        return (hidden.float() + made.float() * picked(level, table[5])).to(kind)

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        temb: Tensor,
        rotary_emb: Any,
        level: Tensor | None = None,
    ) -> Tensor:
        """:meth:`tokens` where ``level`` is given, else the class above."""
        if level is None:
            plain: Tensor = super().forward(hidden_states, encoder_hidden_states, temb, rotary_emb)
            return plain
        return self.tokens(hidden_states, encoder_hidden_states, temb, level, rotary_emb)


class StDiff(WanTransformer3DModel):
    """Velocity of noisy latents whose tokens carry noise of different strength.

    Raises:
        WeightsError: a configuration with an image branch or patches over time.
    """

    _no_split_modules = ["StDiffBlock"]  # noqa: RUF012
    _repeated_blocks = ["StDiffBlock"]  # noqa: RUF012

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(  # noqa: PLR0913, PLR0917
        self,
        patch_size: tuple[int, ...] = (1, 2, 2),
        num_attention_heads: int = 12,
        attention_head_dim: int = 128,
        in_channels: int = 16,
        out_channels: int = 16,
        text_dim: int = 4096,
        freq_dim: int = 256,
        ffn_dim: int = 8960,
        num_layers: int = 30,
        cross_attn_norm: bool = True,
        qk_norm: str | None = "rms_norm_across_heads",
        eps: float = 1e-6,
        image_dim: int | None = None,
        added_kv_proj_dim: int | None = None,
        rope_max_seq_len: int = 1024,
        pos_embed_seq_len: int | None = None,
    ) -> None:
        if image_dim is not None or added_kv_proj_dim is not None or tuple(patch_size) != (1, 2, 2):
            raise WeightsError(
                f"the configuration has image_dim={image_dim}, added_kv_proj_dim="
                f"{added_kv_proj_dim} and patches of {tuple(patch_size)}, but an ST-Diff has no "
                "image branch and patches of (1, 2, 2); use a text-to-video checkpoint"
            )
        super().__init__(
            patch_size=tuple(patch_size),
            num_attention_heads=num_attention_heads,
            attention_head_dim=attention_head_dim,
            in_channels=in_channels,
            out_channels=out_channels,
            text_dim=text_dim,
            freq_dim=freq_dim,
            ffn_dim=ffn_dim,
            num_layers=num_layers,
            cross_attn_norm=cross_attn_norm,
            qk_norm=qk_norm,
            eps=eps,
            rope_max_seq_len=rope_max_seq_len,
            pos_embed_seq_len=pos_embed_seq_len,
        )
        for block in self.blocks:
            block.__class__ = StDiffBlock  # the same modules and weights, one more way to run

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        *others: Any,
        **named: Any,
    ) -> Any:
        """The velocity [B,C,T,h,w] for timesteps [B,T,h/2,w/2] (:meth:`velocity`); for any other
        shape of timesteps, and with further arguments, what the class above gives."""
        if timestep.ndim == 4 and not others and not named:
            return self.velocity(hidden_states, timestep, encoder_hidden_states)
        return super().forward(hidden_states, timestep, encoder_hidden_states, *others, **named)

    def velocity(self, latents: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        """The velocity noise - clean, [B,C,T,h,w] in the type of the weights.

        Args:
            latents: [B,C,T,h,w] with even h and w.
            timesteps: [B,T,h/2,w/2], 1000 times each token's noise level.
            text: features [B,L,text_dim].

        Raises:
            InputError: shapes that do not belong together.
        """
        self.check_tokens(latents, timesteps)
        known, level = torch.unique(timesteps.flatten(1), return_inverse=True)
        return self.at_levels(latents, known, level, text)

    @staticmethod
    def check_tokens(latents: Tensor, timesteps: Tensor) -> None:
        """Refuse latents [B,C,T,h,w] without one timestep [B,T,h/2,w/2] for each patch.

        Raises:
            InputError: they do not belong together.
        """
        batch, _, frames, height, width = latents.shape
        grid = (frames, height // 2, width // 2)
        if height % 2 or width % 2 or timesteps.shape != (batch, *grid):
            raise InputError(
                f"latents of shape {tuple(latents.shape)} and timesteps of shape "
                f"{tuple(timesteps.shape)} do not belong together; give even rows and columns and "
                "one timestep for each 2x2 patch"
            )

    def at_levels(self, latents: Tensor, known: Tensor, level: Tensor, text: Tensor) -> Tensor:
        """:meth:`velocity` for tokens [B,S] whose timesteps are ``known[level]``."""
        rotary = self.rope(latents)
        hidden = self.patch_embedding(latents.to(self.dtype)).flatten(2).transpose(1, 2)
        with without_autocast(latents.device):  # noise levels need more than 8 bits
            embedding, rows, words, _ = self.condition_embedder(known, text.to(self.dtype))
        rows = rows.unflatten(1, (6, -1))
        hidden = hidden.contiguous()
        for block in self.blocks:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                hidden = checkpoint(block, hidden, words, rows, rotary, level, use_reentrant=False)
            else:
                hidden = block(hidden, words, rows, rotary, level)
        shift, scale = (self.scale_shift_table + embedding[:, None]).unbind(1)
        normed = self.norm_out(hidden.float()) * (1 + picked(level, scale)) + picked(level, shift)
        return self.unpatched(self.proj_out(normed.to(hidden.dtype)), latents.shape)

    @staticmethod
    def unpatched(patches: Tensor, shape: torch.Size) -> Tensor:
        """Tokens [B,S,4C] as latents of ``shape`` [B,C,T,h,w]."""
        grid = (shape[2], shape[3] // 2, shape[4] // 2)
        cells = patches.unflatten(2, (2, 2, -1)).unflatten(1, grid)
        cells = cells.permute(0, 6, 1, 2, 4, 3, 5)
        return cells.flatten(5, 6).flatten(3, 4)

    def to_json_string(self) -> str:
        """The configuration under the published class name, so that diffusers reads the folder."""
        values = json.loads(super().to_json_string())
        values["_class_name"] = ST_DIFF_CLASS
        return json.dumps(values, indent=2, sort_keys=True) + "\n"
