"""Recipes, clips and networks of Helios' stages at a size that trains in a moment."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from flythrough import seeds
from flythrough.models.helios import HeliosTransformer

TEXT = (64, 32)
LATENT = (16, 9, 8, 16)

_RUN = """
[run]
seed = 3
batch = 2
steps = 2
save_every = 1
precision = "fp32"
checkpointing = {checkpointing}
size = [64, 128]
accumulate = {accumulate}

[optimiser]
learning_rate = 1e-3
weight_decay = 0.01

[text]
max_length = 64
drop_caption = 0.2
"""
_FULL = "\n[adapter]\nrank = 0\n"
_LORA = """
[adapter]
rank = 4
alpha = 4.0
patch_embedding = "lora"
patch_history = "{patches}"
"""
_HISTORY = """
[history]
drop_text = 0.3
drop_old = 0.3
mode = "random"
saturation_clean = 0.1
saturation = [0.3, 1.7]
"""
_EMA = "\n[ema]\ndecay = 0.9\nstart = 1\n"
_REST = {
    "1": _HISTORY + '\n[flow]\nweighting = "logit_normal"\n\n[validation]\nsteps = [2]\n',
    "2": _HISTORY + "\n[flow]\ndraws = [1, 2, 1]\n\n[validation]\nsteps = [2, 2, 2]\n",
    "3a": """
[ode]
trajectories = 3
chunks = 3
teacher_steps = 2
guidance = 2.0
levels = 4
sections = 2

[validation]
steps = [2, 2, 2]
""",
    "3b": _HISTORY
    + """
[dmd]
generator_every = 2
critic_rank = 4
critic_alpha = 4.0
critic_learning_rate = 1e-3

[gan]
start = {gan_start}
blocks = [0, 1]
width = 64

[validation]
steps = [2, 2, 2]
""",
}


def recipe_text(
    stage: str,
    *,
    lora: bool = True,
    accumulate: int = 1,
    checkpointing: bool = False,
    gan_start: int = 1,
) -> str:
    """A recipe of ``stage`` for clips of :func:`write_clips`."""
    run = _RUN.format(accumulate=accumulate, checkpointing=str(checkpointing).lower())
    adapter = _LORA.format(patches="full" if stage == "1" else "lora") if lora else _FULL
    rest = _REST[stage].replace("{gan_start}", str(gan_start))
    return f'stage = "{stage}"\nstart = "a tiny model"\n' + run + adapter + _EMA + rest


def write_clips(folder: Path, count: int = 3) -> Path:
    """Encoded videos of one to three windows."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        draw = seeds.generator(8, "clip", number)
        tensors = {
            "latents": torch.randn(1 + number % 3, *LATENT, generator=draw),
            "prompt_embeds": torch.randn(*TEXT, generator=draw),
        }
        save_file(tensors, folder / f"clip{number}.safetensors")
    return folder


def tiny_network(seed: int = 0, layers: int = 2) -> HeliosTransformer:
    """A network for the clips of :func:`write_clips`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return HeliosTransformer(
            num_layers=layers,
            num_attention_heads=2,
            attention_head_dim=32,
            rope_dim=(12, 10, 10),
            ffn_dim=64,
            text_dim=TEXT[1],
            freq_dim=32,
        )
