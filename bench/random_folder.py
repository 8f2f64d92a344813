"""A model folder of the published 14B layout with random weights, for measuring speed and memory.

    python bench/random_folder.py FOLDER [--layers 40] [--device cuda]

Weights are drawn as torch initialises the layers; nothing sensible comes out, but every size, type
and file is as in the published folders. 41 GB of disk at 40 layers.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from transformers import UMT5Config, UMT5EncoderModel

from flythrough.models.helios import HeliosTransformer
from flythrough.models.text import byte_tokenizer
from flythrough.training.nano_files import SCHEDULER_CONFIG

INDEX = {
    "_class_name": "HeliosPyramidPipeline",
    "_diffusers_version": "0.42.1",
    "transformer": ["diffusers", "HeliosTransformer3DModel"],
    "vae": ["diffusers", "AutoencoderKLWan"],
    "text_encoder": ["transformers", "UMT5EncoderModel"],
    "tokenizer": ["transformers", "ByT5Tokenizer"],
    "scheduler": ["diffusers", "HeliosDMDScheduler"],
}


def write(folder: Path, layers: int, device: str) -> None:
    """Write every part; each is drawn on ``device`` and freed before the next."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        denoiser = HeliosTransformer(num_layers=layers)
    denoiser.save_pretrained(folder / "transformer", max_shard_size="5GB")
    del denoiser
    text = UMT5Config(
        vocab_size=256384,
        d_model=4096,
        d_kv=64,
        d_ff=10240,
        num_layers=24 if layers == 40 else 2,
        num_heads=64,
        feed_forward_proj="gated-gelu",
    )
    with torch.device(device):
        encoder = UMT5EncoderModel(text)
    encoder.save_pretrained(folder / "text_encoder", max_shard_size="5GB")
    del encoder
    torch.set_default_dtype(torch.float32)
    with torch.device(device):
        codec: Any = AutoencoderKLWan()
    codec.save_pretrained(folder / "vae")
    byte_tokenizer().save_pretrained(folder / "tokenizer")
    (folder / "scheduler").mkdir(exist_ok=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(
        json.dumps(SCHEDULER_CONFIG, indent=2)
    )
    (folder / "model_index.json").write_text(json.dumps(INDEX, indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=40)
    parser.add_argument("--device", default="cuda")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    write(given.folder, given.layers, given.device)
