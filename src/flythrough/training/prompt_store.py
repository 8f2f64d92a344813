"""Prompt embeddings on disk, so that a run with few captions needs no text encoder in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from flythrough.disk import replacing

_TENSOR = "prompt_embeds"


def prompt_key(model: str, prompt: str, max_length: int = 512) -> str:
    """The published trainer's name for an embedding: SHA-256 in hexadecimal.

    ``model`` should be a fingerprint of the text encoder. The published trainer takes the absolute
    path of the model folder, so that its files are found on one machine only.
    """
    stated = {
        "base_model_path": model,
        "max_sequence_length": max_length,
        "num_videos_per_prompt": 1,
        "prompt": prompt,
    }
    return hashlib.sha256(
        json.dumps(stated, sort_keys=True, ensure_ascii=False).encode()
    ).hexdigest()


class PromptStore:
    """Embeddings [1,L,D] by prompt: from memory, else from ``folder``, else newly made."""

    def __init__(self, folder: Path, model: str, max_length: int = 512) -> None:
        self.folder, self.model, self.max_length = folder, model, max_length
        self._known: dict[str, Tensor] = {}

    def embedding(self, prompt: str, encode: Callable[[str], Tensor]) -> Tensor:
        """The embedding of ``prompt`` on the CPU; ``encode`` is called where none is stored or the
        stored file is damaged."""
        key = prompt_key(self.model, prompt, self.max_length)
        if key not in self._known:
            file = self.folder / f"{key}.safetensors"
            stored = _read(file)
            if stored is None:
                stored = encode(prompt).detach().cpu().contiguous()
                self.folder.mkdir(parents=True, exist_ok=True)
                with replacing(file) as partial:
                    save_file({_TENSOR: stored}, partial, metadata={"prompt": prompt})
            self._known[key] = stored
        return self._known[key]


def _read(file: Path) -> Tensor | None:
    try:
        return load_file(file).get(_TENSOR)
    except (OSError, SafetensorError):
        return None
