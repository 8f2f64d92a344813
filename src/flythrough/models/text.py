"""Prompts to features: clean, tokenise, encode with a UMT5 encoder, zero the padding."""

from __future__ import annotations

import copy
import gc
import html
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ftfy
import torch
from torch import Tensor, nn
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
        text_encoder: its parameters may be trained through ``embed``; or what loads one, which is
            then done for the first prompt and after every ``release``.
        tokenizer: pads with id 0 and appends an end token.
        device: where features go; that of the encoder unless given.
    """

    def __init__(
        self,
        text_encoder: UMT5EncoderModel | Callable[[], UMT5EncoderModel],
        tokenizer: PreTrainedTokenizerBase,
        device: torch.device | str | None = None,
    ) -> None:
        self._net: UMT5EncoderModel | None = None
        self._load: Callable[[], UMT5EncoderModel] | None = None
        if isinstance(text_encoder, UMT5EncoderModel):
            self._net = text_encoder
        else:
            self._load = text_encoder
        self._device = None if device is None else torch.device(device)
        self.tokenizer = tokenizer
        self._cache: dict[tuple[str, int], Tensor] = {}

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        keep: bool = True,
    ) -> PromptEncoder:
        """Use ``text_encoder/`` and ``tokenizer/`` of a model folder, without any network.

        ``keep`` puts the encoder on the device for good. Otherwise it is read from the disk when a
        new prompt comes, its layers visit the device one by one, and ``release`` frees it.

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
            tokenizer = AutoTokenizer.from_pretrained(parts[1], local_files_only=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise _unusable(folder, error) from error
        place = torch.device(device)
        if not keep:
            return cls(partial(_passing_encoder, parts[0], place, dtype), tokenizer, place)
        encoder = _read_encoder(parts[0], dtype)
        torch.nn.Module.to(encoder, device)
        return cls(encoder, tokenizer)

    def save(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write ``text_encoder/``, in ``dtype``, and ``tokenizer/`` below ``folder``."""
        written = copy.deepcopy(self.text_encoder)
        nn.Module.to(written, dtype)
        written.save_pretrained(Path(folder) / "text_encoder")
        self.tokenizer.save_pretrained(Path(folder) / "tokenizer")

    @property
    def text_encoder(self) -> UMT5EncoderModel:
        """The network, read first if need be."""
        if self._net is None:
            assert self._load is not None
            self._net = self._load()
        return self._net

    def release(self) -> None:
        """Free an encoder that was not to be kept; what it made stays known."""
        if self._load is not None and self._net is not None:
            self._net = None
            gc.collect()  # hooks of visiting layers form cycles
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    @property
    def device(self) -> torch.device:
        return self._device or next(self.text_encoder.parameters()).device

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

    def remember(self, prompt: str, features: Tensor) -> None:
        """Keep features [1,L,D] made earlier by :meth:`encode` with a ``max_length`` of L."""
        self._cache[prompt, features.shape[1]] = features.cpu()

    def forget(self) -> None:
        """Drop remembered features."""
        self._cache.clear()


def _read_encoder(folder: Path, dtype: torch.dtype) -> UMT5EncoderModel:
    try:
        with quiet_loading():
            encoder = UMT5EncoderModel.from_pretrained(folder, dtype=dtype, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise _unusable(folder, error) from error
    return encoder.eval().requires_grad_(False)


def _passing_encoder(folder: Path, device: torch.device, dtype: torch.dtype) -> UMT5EncoderModel:
    from flythrough.models.placing import stream_layers

    encoder = _read_encoder(folder, dtype)
    if device.type != "cpu":
        stream_layers(encoder, device, prefetch=False)
    return encoder


def _unusable(folder: str | Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"the text encoder in {folder} cannot be loaded "
        f"({' '.join(str(error).split())[:200]}); download or copy it again"
    )
