"""The file layout of nano: the published folders, configurations and the index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flythrough.models.helios import HeliosTransformer
from flythrough.models.text import PromptEncoder

TRANSFORMER_CONFIG: dict[str, Any] = {
    "num_layers": 12,
    "num_attention_heads": 5,
    "attention_head_dim": 64,
    "ffn_dim": 1280,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 256,
    "freq_dim": 256,
    "rope_dim": (24, 20, 20),
}
SCHEDULER_CONFIG: dict[str, Any] = {
    "_class_name": "HeliosDMDScheduler",
    "num_train_timesteps": 1000,
    "shift": 1.0,
    "stages": 3,
    "stage_range": [0, 1 / 3, 2 / 3, 1],
    "gamma": 1 / 3,
    "prediction_type": "flow_prediction",
    "use_flow_sigmas": True,
    "use_dynamic_shifting": True,
    "time_shift_type": "linear",
}
MODEL_INDEX: dict[str, Any] = {
    "_class_name": "HeliosPyramidPipeline",
    "is_distilled": True,
    "is_cfg_zero_star": False,
    "scheduler": ["diffusers", "HeliosDMDScheduler"],
    "text_encoder": ["transformers", "UMT5EncoderModel"],
    "tokenizer": ["transformers", "ByT5Tokenizer"],
    "transformer": ["diffusers", "HeliosTransformer3DModel"],
}
DEFAULTS: dict[str, Any] = {
    "height": 192,
    "width": 320,
    "fps": 16.0,
    "steps": [2, 2, 2],
    "amplify_first_chunk": True,
    "max_sequence_length": 128,
    "visible_threshold": 0.1,
    "warp_stages": 3,
    "warp": {
        "samples_per_axis": 2,
        "older_samples_per_axis": 2,
        "depth_rtol": 0.1,
        "confidence": 0.005,
    },
    "worldwarp": {
        "steps": 20,
        "guidance_scale": 1.0,
        "strength": 0.1,
        "erosion": 7,
        "shift": 2.0,  # latents this small lose their layout at lower noise than large ones
    },
}
TEXT_LENGTH = 128


def write_denoiser(folder: Path, transformer: HeliosTransformer, prompts: PromptEncoder) -> None:
    """Denoiser in bfloat16 shards under 15 MB, text encoder likewise, scheduler, indices."""
    kept = {name: value.detach().clone() for name, value in transformer.state_dict().items()}
    halved: nn.Module = transformer
    halved.to(torch.bfloat16)
    transformer.save_pretrained(
        folder / "transformer", max_shard_size="14MB", safe_serialization=True
    )
    transformer.float().load_state_dict(kept)
    prompts.save(folder, torch.bfloat16)
    write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER_CONFIG)
    write_json(folder / "model_index.json", MODEL_INDEX)
    write_json(folder / "flythrough.json", {"format": 1, "name": "nano", "defaults": DEFAULTS})


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Pretty JSON, folder created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")
