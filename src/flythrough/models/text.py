"""Prompts to features: clean, tokenise, encode with a UMT5 encoder, zero the padding."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import ftfy
import torch
from torch import Tensor
from torch.nn import functional
from transformers import (
    AutoTokenizer,
    ByT5Tokenizer,
    PreTrainedTokenizerBase,
    UMT5Config,
    UMT5EncoderModel,
)

from flythrough.errors import InputError, WeightsError
from flythrough.models.quiet import quiet_loading

_BYTE_VOCABULARY = 259  # 256 bytes after pad, end and unknown


def clean_prompt(text: str) -> str:
    """Repair broken Unicode, resolve HTML entities (twice), squeeze white space."""
    unescaped = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", unescaped).strip()


def byte_tokenizer() -> ByT5Tokenizer:
    """A tokenizer whose tokens are UTF-8 bytes: it needs no vocabulary file."""
    return ByT5Tokenizer(extra_ids=0)


def new_text_encoder(
    layers: int = 3,
    d_model: int = 256,
    heads: int = 4,
    d_kv: int = 64,
    d_ff: int = 512,
    *,
    vocabulary: int = _BYTE_VOCABULARY,
) -> UMT5EncoderModel:
    """A small, untrained UMT5 encoder for the byte tokenizer (2.0 M parameters by default)."""
    config = UMT5Config(
        vocab_size=vocabulary,
        d_model=d_model,
        d_kv=d_kv,
        d_ff=d_ff,
        num_layers=layers,
        num_heads=heads,
        relative_attention_num_buckets=32,
        relative_attention_max_distance=128,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
    )
    return UMT5EncoderModel(config)


class PromptEncoder:
    """Text features of prompts, cached by prompt.

    Args:
        text_encoder: its parameters may be trained through ``embed``.
        tokenizer: pads with id 0 and appends an end token.
    """

    def __init__(self, text_encoder: UMT5EncoderModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.text_encoder = text_encoder
        self.tokenizer = tokenizer
        self._cache: dict[tuple[str, int], Tensor] = {}

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> PromptEncoder:
        """Load ``text_encoder/`` and ``tokenizer/`` of a model folder, without any network.

        Raises:
            WeightsError: a part is missing or unreadable.
        """
        parts = Path(folder) / "text_encoder", Path(folder) / "tokenizer"
        for part in parts:
            if not part.is_dir():
                raise WeightsError(
                    f"there is no folder {part}; download or copy the model's text encoder and "
                    "tokenizer again"
                )
        try:
            with quiet_loading():
                encoder = UMT5EncoderModel.from_pretrained(
                    parts[0], dtype=dtype, local_files_only=True
                )
            tokenizer = AutoTokenizer.from_pretrained(parts[1], local_files_only=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise WeightsError(
                f"the text encoder in {folder} cannot be loaded "
                f"({' '.join(str(error).split())[:200]}); download or copy it again"
            ) from error
        torch.nn.Module.to(encoder, device)
        return cls(encoder.eval().requires_grad_(False), tokenizer)

    def save(self, folder: str | Path) -> None:
        """Write ``text_encoder/`` and ``tokenizer/`` below ``folder``."""
        self.text_encoder.save_pretrained(Path(folder) / "text_encoder")
        self.tokenizer.save_pretrained(Path(folder) / "tokenizer")

    @property
    def device(self) -> torch.device:
        return next(self.text_encoder.parameters()).device

    @property
    def width(self) -> int:
        """Channels of a feature."""
        return int(self.text_encoder.config.d_model)

    def tokenize(self, prompts: list[str], max_length: int = 512) -> tuple[Tensor, Tensor]:
        """Cleaned prompts to ids and mask [B,max_length], cut or padded to that length."""
        if max_length < 1:
            raise InputError(f"max_length is {max_length}, but a prompt needs at least 1 token")
        found: Any = self.tokenizer(
            [clean_prompt(prompt) for prompt in prompts],
            padding="max_length",
            max_length=max_length,
            truncation=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        return found["input_ids"].to(self.device), found["attention_mask"].to(self.device)

    def embed(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Features [B,L,D] of ids [B,L]; rows outside ``mask`` are zero; differentiable."""
        features: Tensor = self.text_encoder(ids, attention_mask=mask).last_hidden_state
        return features * mask.unsqueeze(-1).to(features.dtype)

    def encode(self, prompts: list[str], max_length: int = 512) -> Tensor:
        """Features [B,max_length,D] without gradients; zero past a prompt's true length.

        Results are remembered, so the encoder's weights must not change between calls; after
        training call ``forget``.
        """
        for prompt in dict.fromkeys(prompts):
            if (prompt, max_length) in self._cache:
                continue
            ids, mask = self.tokenize([prompt], max_length)
            length = int(mask.sum())  # padding changes nothing before it, so it is not computed
            with torch.inference_mode(False), torch.no_grad():
                features = self.embed(ids[:, :length].clone(), mask[:, :length].clone())
                padded = functional.pad(features, (0, 0, 0, max_length - length))
                self._cache[prompt, max_length] = padded.cpu()
        return torch.cat([self._cache[p, max_length] for p in prompts]).to(self.device)

    def forget(self) -> None:
        """Drop remembered features."""
        self._cache.clear()
