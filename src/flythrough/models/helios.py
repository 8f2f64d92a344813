"""The Helios denoiser (arXiv 2603.04379) with visible-token selection (Warp-as-History).

Configuration and state-dict keys are those of diffusers' ``HeliosTransformer3DModel``; folders are
interchangeable. Two modulation rows per sample replace its per-token tables, and unseen history
tokens can be left out, together with their positions.
"""

from __future__ import annotations

import json
import math

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders.peft import PeftAdapterMixin
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from flythrough.errors import InputError, WeightsError
from flythrough.models.helios_blocks import (
    BlockContext,
    HeliosOutputNorm,
    HeliosTransformerBlock,
    PatchProjection,
)
from flythrough.models.helios_embeddings import ConditionEmbedder
from flythrough.models.history_tokens import (
    ChosenTokens,
    History,
    HistoryBand,
    Kernel,
    PackedHistory,
    Selection,
    effective_threshold,
    kept_positions,
    kept_tokens,
    pad_to_multiple,
)
from flythrough.models.linear import Linear
from flythrough.models.rotary import Tables, grid_tables

_PUBLISHED_CLASS = "HeliosTransformer3DModel"


class HeliosTransformer(ModelMixin, ConfigMixin, PeftAdapterMixin):  # type: ignore[misc]
    """Velocity of noisy latents, given prompt and history.

    The defaults are the published 14B model. ``zero_history_timestep=False`` gives history tokens
    the noise level of the sample, ``guidance_cross_attn=False`` lets them read the prompt, and
    without ``has_multi_term_memory_patch`` there is no history at all.

    Raises:
        WeightsError: a configuration this class does not implement.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["HeliosTransformerBlock", "HeliosOutputNorm"]  # type: ignore[assignment] # noqa: RUF012
    _repeated_blocks = ["HeliosTransformerBlock"]  # noqa: RUF012
    _keys_to_ignore_on_load_unexpected = ["norm_added_q"]  # type: ignore[assignment] # noqa: RUF012
    _skip_layerwise_casting_patterns = [  # type: ignore[assignment] # noqa: RUF012
        "patch_embedding",
        "patch_short",
        "patch_mid",
        "patch_long",
        "condition_embedder",
        "norm",
    ]
    _keep_in_fp32_modules = [  # type: ignore[assignment] # noqa: RUF012
        "time_embedder",
        "scale_shift_table",
        "norm1",
        "norm2",
        "norm3",
        "history_key_scale",
    ]

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(  # noqa: PLR0913, PLR0917
        self,
        patch_size: tuple[int, ...] = (1, 2, 2),
        num_attention_heads: int = 40,
        attention_head_dim: int = 128,
        in_channels: int = 16,
        out_channels: int | None = 16,
        text_dim: int = 4096,
        freq_dim: int = 256,
        ffn_dim: int = 13824,
        num_layers: int = 40,
        cross_attn_norm: bool = True,
        qk_norm: str | None = "rms_norm_across_heads",
        eps: float = 1e-6,
        added_kv_proj_dim: int | None = None,
        rope_dim: tuple[int, ...] = (44, 42, 42),
        rope_theta: float = 10000.0,
        guidance_cross_attn: bool = True,
        zero_history_timestep: bool = True,
        has_multi_term_memory_patch: bool = True,
        is_amplify_history: bool = False,
        history_scale_mode: str = "per_head",
    ) -> None:
        super().__init__()
        _refuse(qk_norm != "rms_norm_across_heads", "qk_norm", qk_norm, "rms_norm_across_heads")
        _refuse(added_kv_proj_dim is not None, "added_kv_proj_dim", added_kv_proj_dim, "null")
        wrong_rope = sum(rope_dim) != attention_head_dim or any(d % 2 for d in rope_dim)
        _refuse(
            wrong_rope, "rope_dim", rope_dim, f"even numbers that add up to {attention_head_dim}"
        )
        wrong_scale = history_scale_mode not in {"per_head", "scalar"}
        _refuse(wrong_scale, "history_scale_mode", history_scale_mode, "per_head or scalar")

        dim = num_attention_heads * attention_head_dim
        self._patch: Kernel = _triple(patch_size)
        self._rope: Kernel = _triple(rope_dim)
        self._theta = rope_theta
        self._text_on_history = not guidance_cross_attn
        self._history_at_zero = zero_history_timestep
        self._has_history = has_multi_term_memory_patch
        self.patch_embedding = PatchProjection(in_channels, dim, self._patch)
        if has_multi_term_memory_patch:
            self.patch_short = PatchProjection(in_channels, dim, self._patch)
            self.patch_mid = PatchProjection(in_channels, dim, _times(self._patch, 2))
            self.patch_long = PatchProjection(in_channels, dim, _times(self._patch, 4))
        self.condition_embedder = ConditionEmbedder(dim, freq_dim, text_dim)
        amplify = history_scale_mode if is_amplify_history else None
        self.blocks = nn.ModuleList(
            HeliosTransformerBlock(
                dim, ffn_dim, num_attention_heads, eps, cross_norm=cross_attn_norm, amplify=amplify
            )
            for _ in range(num_layers)
        )
        self.norm_out = HeliosOutputNorm(dim, eps)
        self.proj_out = Linear(dim, (out_channels or in_channels) * math.prod(patch_size))
        self.gradient_checkpointing = False

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        *,
        indices_hidden_states: Tensor,
        history: History | PackedHistory | None = None,
        selection: Selection = "drop",
    ) -> Tensor:
        """Velocity (noise minus clean) [B,C,T,h,w] in the dtype of the arithmetic.

        Args:
            hidden_states: noisy latents [B,C,T,h,w] at the stage's resolution.
            timestep: [B] noise level in 0..1000, integer or float.
            encoder_hidden_states: [B or 1,L,text_dim] prompt features; rows of padding are zero and
                are attended to.
            indices_hidden_states: [B or 1,T] frame index of every noisy latent.
            history: the past, or what ``pack_history`` made of it.
            selection: how unseen tokens of a ``History`` are left out; see ``pack_history``.

        Raises:
            InputError: latents that the patches do not divide, or a history that does not fit.
        """
        batch = hidden_states.shape[0]
        self._check_divisible("noisy latents", hidden_states)
        grid = self._grid(hidden_states)
        noisy = self.patch_embedding(hidden_states)
        device = hidden_states.device
        tables = grid_tables(indices_hidden_states.to(device), grid[1:], self._rope, self._theta)
        if isinstance(history, History):
            history = self.pack_history(history, selection=selection)
        past, tables, key_mask = joined(history, noisy, tables)

        embedding, history_row, noisy_row = self._rows(timestep.to(device).expand(batch))
        text = self.condition_embedder.text_embedder(encoder_hidden_states)
        context = BlockContext(
            text=text.to(noisy.dtype).expand(batch, -1, -1),
            history_row=history_row,
            noisy_row=noisy_row,
            tables=tables,
            key_mask=key_mask,
            text_on_history=self._text_on_history,
        )
        checkpointing = self.gradient_checkpointing and torch.is_grad_enabled()
        final = len(self.blocks) - 1
        for number, block in enumerate(self.blocks):
            arguments = (past, noisy, context, number == final)
            if checkpointing:
                past, noisy = self._gradient_checkpointing_func(  # type: ignore[misc]
                    block, *arguments
                )
            else:
                past, noisy = block(*arguments)
        return self._unpatched(self.proj_out(self.norm_out(noisy, embedding)), grid)

    def pack_history(
        self, history: History, *, selection: Selection = "drop", reference: bool = False
    ) -> PackedHistory:
        """Embed a history once, for all steps of a stage; gradients flow through it.

        ``selection="drop"`` removes tokens whose mean visibility lies below the threshold, and
        their positions; the samples of a batch must agree. ``selection="mask"`` lets samples
        differ: every token stays, but unseen ones are no attention keys, which gives noisy tokens
        the same result. ``reference=True`` reads a threshold of None or 0 as 0.5, as the published
        code does.

        Raises:
            InputError: samples of a batch disagree under "drop", latents that the patches do not
                divide, or a model without history.
        """
        if selection not in ("drop", "mask"):
            raise InputError(f"token selection {selection!r} is unknown; choose 'drop' or 'mask'")
        threshold = effective_threshold(history.threshold, reference=reference)
        chosen = history.chosen
        if selection == "drop" and chosen is None:
            chosen = self.choose_tokens(history, reference=reference)
        packed = [
            self._packed_band(name, band, pool, threshold, chosen)
            for name, band, pool in _bands(history)
        ]
        if not packed:
            return self._no_history()
        batch = max(p.tokens.shape[0] for p in packed)
        rows = max(p.cos.shape[0] for p in packed)
        seen = [
            torch.ones(p.tokens.shape[:2], dtype=torch.bool, device=p.tokens.device)
            if p.visible is None
            else p.visible
            for p in packed
        ]
        masked = any(p.visible is not None for p in packed)
        return PackedHistory(
            tokens=torch.cat([p.tokens.expand(batch, -1, -1) for p in packed], dim=1),
            cos=torch.cat([p.cos.expand(rows, -1, -1) for p in packed], dim=1),
            sin=torch.cat([p.sin.expand(rows, -1, -1) for p in packed], dim=1),
            visible=torch.cat([s.expand(batch, -1) for s in seen], dim=1) if masked else None,
            dropped=any(p.dropped for p in packed),
        )

    def choose_tokens(self, history: History, *, reference: bool = False) -> ChosenTokens:
        """Which tokens ``pack_history`` keeps under "drop": a matter of visibility alone, so that
        it can be settled before the latents are encoded. The host waits for the device once.

        Raises:
            InputError: samples of a batch disagree.
        """
        threshold = effective_threshold(history.threshold, reference=reference)
        bands = _bands(history)
        masked = {
            name: kept_tokens(
                band.visible.to(band.latents.device), self._kernel(name, band), threshold
            )
            for name, band, _ in bands
            if band.visible is not None and threshold is not None
        }
        kept = dict(zip(masked, kept_positions(list(masked.values())), strict=True))
        count = 0
        for name, band, _ in bands:
            positions = kept.get(name)
            sizes = zip(band.latents.shape[-3:], self._kernel(name, band), strict=True)
            count += (
                math.prod(-(-n // k) for n, k in sizes) if positions is None else len(positions)
            )
        return ChosenTokens(kept.get("long"), kept.get("mid"), kept.get("short"), count)

    def _kernel(self, name: str, band: HistoryBand) -> Kernel:
        """Latents that a token of the band covers, and whether the band can be cut so."""
        if not self._has_history:
            raise InputError(
                f"a {name} history was given to a model without history patches; leave it out or "
                "load a model that has them"
            )
        patches: PatchProjection = getattr(self, f"patch_{name}")
        self._check_divisible(f"{name} history latents", band.latents, spatial_only=name != "short")
        return _triple(patches.kernel_size)

    def _packed_band(
        self,
        name: str,
        band: HistoryBand,
        pool: int,
        threshold: float | None,
        chosen: ChosenTokens | None,
    ) -> PackedHistory:
        """One band; its tokens cover ``pool`` patches along each axis. Without ``chosen`` tokens
        all stay, and are marked."""
        kernel = self._kernel(name, band)
        patches: PatchProjection = getattr(self, f"patch_{name}")
        device = band.latents.device
        tokens = patches(pad_to_multiple(band.latents, kernel))
        height, width = band.latents.shape[-2:]
        size = (height // self._patch[1], width // self._patch[2])
        cos, sin = grid_tables(
            band.indices.to(device), size, self._rope, self._theta, (pool, pool, pool)
        )
        if band.visible is None or threshold is None:
            return PackedHistory(tokens, cos, sin)
        if chosen is None:
            return PackedHistory(
                tokens, cos, sin, kept_tokens(band.visible.to(device), kernel, threshold)
            )
        kept: Tensor | None = getattr(chosen, name)
        if kept is None:
            return PackedHistory(tokens, cos, sin)
        return PackedHistory(tokens[:, kept], cos[:, kept], sin[:, kept], dropped=True)

    def _no_history(self) -> PackedHistory:
        weight = self.patch_embedding.weight
        table = torch.empty(1, 0, sum(self._rope) // 2, device=weight.device)
        return PackedHistory(weight.new_empty(1, 0, weight.shape[0]), table, table)

    def _rows(self, timestep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Time embedding [B,D] and the modulation rows of history and noisy tokens."""
        if not self._history_at_zero:
            embedding, row = self.condition_embedder.rows(timestep)
            return embedding, row, row
        zero = torch.zeros_like(timestep[:1])
        embedding, rows = self.condition_embedder.rows(torch.cat([zero, timestep]))
        return embedding[1:], rows[:1], rows[1:]

    def _grid(self, latents: Tensor) -> Kernel:
        """Tokens along time, rows and columns of ``latents`` [B,C,T,h,w]."""
        frames, height, width = latents.shape[-3:]
        time, rows, columns = self._patch
        return frames // time, height // rows, width // columns

    def _unpatched(self, tokens: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Tokens [B,N,pt*ph*pw*C] to latents [B,C,T,h,w]."""
        cells = tokens.unflatten(2, (*self._patch, -1)).unflatten(1, grid)
        cells = cells.permute(0, 7, 1, 4, 2, 5, 3, 6)
        return cells.flatten(6, 7).flatten(4, 5).flatten(2, 3)

    def _check_divisible(self, what: str, latents: Tensor, *, spatial_only: bool = False) -> None:
        sizes, patch = latents.shape[-3:], self._patch
        first = 1 if spatial_only else 0
        if any(n % k for n, k in zip(sizes[first:], patch[first:], strict=True)):
            raise InputError(
                f"{what} of {tuple(sizes)} frames, rows and columns cannot be cut into patches of "
                f"{patch}; choose sizes that are multiples of the patch"
            )

    def to_json_string(self) -> str:
        """The configuration under the published class name, so that diffusers reads the folder."""
        values = json.loads(super().to_json_string())
        values["_class_name"] = _PUBLISHED_CLASS
        return json.dumps(values, indent=2, sort_keys=True) + "\n"


def _bands(history: History) -> list[tuple[str, HistoryBand, int]]:
    """Name, band and patches along each axis of a token, oldest first."""
    given = [("long", history.long, 4), ("mid", history.mid, 2), ("short", history.short, 1)]
    return [(name, band, pool) for name, band, pool in given if band is not None]


def joined(
    history: PackedHistory | None, noisy: Tensor, tables: Tables
) -> tuple[Tensor, Tables, Tensor | None]:
    """History tokens for the batch of ``noisy``, tables of both parts, and the key mask."""
    batch, count = noisy.shape[:2]
    if history is None:
        return noisy.new_empty(batch, 0, noisy.shape[2]), tables, None
    if history.tokens.shape[0] not in (1, batch):
        raise InputError(
            f"a history of batch {history.tokens.shape[0]} does not fit {batch} noisy samples; "
            "give one history for each sample or one for all"
        )
    rows = max(history.cos.shape[0], tables.cos.shape[0])
    both = Tables(
        torch.cat([history.cos.expand(rows, -1, -1), tables.cos.expand(rows, -1, -1)], dim=1),
        torch.cat([history.sin.expand(rows, -1, -1), tables.sin.expand(rows, -1, -1)], dim=1),
    )
    mask = None
    if history.visible is not None:
        always = torch.ones(1, count, dtype=torch.bool, device=noisy.device)
        seen = history.visible.expand(batch, -1)
        mask = torch.cat([seen, always.expand(batch, -1)], dim=1)[:, None, None]
    return history.tokens.to(noisy.dtype).expand(batch, -1, -1), both, mask


def _refuse(wrong: bool, key: str, value: object, allowed: str) -> None:
    if wrong:
        raise WeightsError(
            f"the transformer configuration has {key}={value!r}, but only {allowed} is "
            "implemented; use a checkpoint with that setting"
        )


def _triple(values: tuple[int, ...]) -> Kernel:
    time, rows, columns = values
    return time, rows, columns


def _times(kernel: Kernel, factor: int) -> Kernel:
    time, rows, columns = kernel
    return time * factor, rows * factor, columns * factor
