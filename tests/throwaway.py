"""A model folder with real classes and random weights, and what a command line answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flythrough.models.pi3x_config import Pi3XConfig

SIZE = (64, 128)
TEXT_DIM = 32
GEOMETRY_SEED = 61
"""Chosen so that the random network sees ``photo`` with a field of view that can be true."""


@dataclass(frozen=True)
class Answer:
    """What one command line printed, and its exit status."""

    status: int
    out: str
    err: str

    @property
    def result(self) -> dict[str, Any]:
        """The last result as printed under ``--json``."""
        return json.loads(self.out.splitlines()[-1])


Command = Callable[..., Answer]


def build_tiny_model(folder: Path) -> None:
    """Every part that ``generate`` loads, with random weights of a fixed seed."""
    import torch

    from flythrough.models.adapters import lora_state, new_lora
    from flythrough.models.codec import VideoCodec, save_codec
    from flythrough.models.helios import HeliosTransformer
    from flythrough.models.lora_files import save_lora
    from flythrough.models.pi3x import Pi3X
    from flythrough.models.pi3x_files import save_pi3x
    from flythrough.models.taehv import TAEHV
    from flythrough.models.taehv_config import TAEHVConfig
    from flythrough.models.text import PromptEncoder, byte_tokenizer, new_text_encoder
    from flythrough.training.nano_files import write_denoiser

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        transformer = HeliosTransformer(
            num_layers=2,
            num_attention_heads=2,
            attention_head_dim=32,
            rope_dim=(12, 10, 10),
            ffn_dim=64,
            text_dim=TEXT_DIM,
            freq_dim=32,
        )
        text = new_text_encoder(layers=1, d_model=TEXT_DIM, heads=2, d_kv=16, d_ff=32)
        write_denoiser(folder, transformer, PromptEncoder(text, byte_tokenizer()))
        codec = VideoCodec(TAEHV(TAEHVConfig(encoder_width=8, decoder_widths=(16, 8, 8, 8))))
        save_codec(codec, folder / "vae")
        torch.manual_seed(GEOMETRY_SEED)
        save_pi3x(Pi3X(_tiny_geometry()), folder / "geometry")
        new_lora(transformer, rank=4)
        state = {k: v + 0.02 * torch.randn_like(v) for k, v in lora_state(transformer).items()}
        save_lora(folder / "lora" / "camera.safetensors", state, 4, 4.0)
    _set_defaults(folder, height=SIZE[0], width=SIZE[1], max_sequence_length=64, warp_stages=1)


def build_tiny_st_diff(folder: Path, tiny: Path) -> None:
    """The tiny model with an ST-Diff in the place of its transformer, in the layout of Wan 2.1."""
    import shutil

    import torch

    from flythrough.models.st_diff import StDiff

    for part in ("vae", "text_encoder", "tokenizer", "geometry"):
        shutil.copytree(tiny / part, folder / part)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12)
        net = StDiff(
            num_layers=2,
            num_attention_heads=2,
            attention_head_dim=24,
            ffn_dim=64,
            text_dim=TEXT_DIM,
            freq_dim=32,
        )
        net.save_pretrained(folder / "transformer")
    (folder / "scheduler").mkdir()
    scheduler = {"_class_name": "UniPCMultistepScheduler", "flow_shift": 3.0}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    own = {"chunk_frames": 9, "overlap": 5, "steps": 3, "guidance_scale": 2.0, "erosion": 3}
    defaults = {"height": 64, "width": 96, "max_sequence_length": 64, "worldwarp": own}
    defaults["fps"] = 16.0
    (folder / "flythrough.json").write_text(json.dumps({"defaults": defaults}))


def build_tiny_captioner(folder: Path) -> None:
    """A Qwen2.5-VL of the real class with random weights, and a tokenizer of bytes."""
    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        PreTrainedTokenizerFast,
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
    )

    from flythrough.models.quiet import quiet_loading

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    words = ("im_start", "im_end", "vision_start", "vision_end", "image_pad", "video_pad")
    tokens.add_special_tokens([AddedToken(f"<|{word}|>", special=True) for word in words])
    PreTrainedTokenizerFast(tokenizer_object=tokens, eos_token="<|im_end|>").save_pretrained(folder)
    ids = {word: len(letters) + number for number, word in enumerate(words)}
    text = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": len(letters) + 6}
    text["rope_parameters"] = {
        "rope_type": "default",
        "rope_theta": 1e4,
        "mrope_section": [1, 1, 2],
    }
    vision = {"depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2}
    vision |= {"out_hidden_size": 32, "fullatt_block_indexes": [1]}
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
    )
    with torch.random.fork_rng(devices=[]), quiet_loading():
        torch.manual_seed(8)
        net = Qwen2_5_VLForConditionalGeneration(config)
        net.generation_config.eos_token_id = ids["im_end"]
        net.save_pretrained(folder)


def show_frames(folder: Path) -> None:
    """Make the decoder of a tiny model show its latents; with plain random weights all is black."""
    from safetensors.torch import load_file, save_file

    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    decoder = [name for name in state if name.startswith("decoder.")]
    for name in decoder:
        if name.endswith(".weight"):
            state[name] *= 3**0.5
    last = max(
        (name for name in decoder if name.endswith(".bias")), key=lambda n: int(n.split(".")[1])
    )
    state[last] += 0.5
    save_file(state, file)


def build_tiny_depth(folder: Path, kind: str) -> None:
    """A monocular depth network of the real classes: "depth-pro", "relative" or "metric".

    Without a preprocessor file; biased so that random weights see something everywhere.
    """
    import torch
    from transformers import (
        DepthAnythingConfig,
        DepthAnythingForDepthEstimation,
        DepthProConfig,
        DepthProForDepthEstimation,
        Dinov2Config,
    )

    from flythrough.models.quiet import quiet_loading

    vit = {"hidden_size": 16, "num_attention_heads": 2, "mlp_ratio": 2}
    with torch.random.fork_rng(devices=[]), quiet_loading():
        torch.manual_seed(3)
        if kind == "depth-pro":
            small = {"model_type": "dinov2", "image_size": 16, "patch_size": 4, **vit}
            small["num_hidden_layers"] = 2
            config = DepthProConfig(
                fusion_hidden_size=16,
                patch_size=16,
                intermediate_hook_ids=[1, 0],
                intermediate_feature_dims=[8, 8],
                scaled_images_feature_dims=[16, 16, 8],
                use_fov_model=True,
                image_model_config=dict(small),
                patch_model_config=dict(small),
                fov_model_config=dict(small),
            )
            net = DepthProForDepthEstimation(config)
            net.fov_model.head.layers[-1].bias.data.fill_(50.0)
            net.fov_model.head.layers[-1].weight.data.mul_(0.1)
            last = net.head.layers[-2]
        else:
            backbone = Dinov2Config(
                num_hidden_layers=4,
                image_size=28,
                patch_size=14,
                out_indices=[1, 2, 3, 4],
                reshape_hidden_states=False,
                **vit,
            )
            config = DepthAnythingConfig(
                backbone_config=backbone,
                reassemble_hidden_size=16,
                neck_hidden_sizes=[4, 8, 8, 8],
                fusion_hidden_size=8,
                head_hidden_size=4,
                depth_estimation_type=kind,
                max_depth=20 if kind == "metric" else 1,
            )
            net = DepthAnythingForDepthEstimation(config)
            last = net.head.conv3
        last.weight.data.mul_(0.1)
        last.bias.data.fill_(0.5)
        net.save_pretrained(folder)


def _tiny_geometry() -> Pi3XConfig:
    from flythrough.models.pi3x_config import Pi3XConfig

    return Pi3XConfig(
        width=32,
        heads=2,
        grid=4,
        mlp_ratio=2,
        encoder_depth=1,
        depth_encoder_depth=1,
        decoder_depth=4,
        inject_after=(1,),
        head_width=32,
        head_heads=2,
        head_depth=1,
        conv_in=32,
        conv_widths=(16, 16, 16),
        conv_hidden=8,
        camera_width=16,
        metric_width=16,
        metric_heads=1,
        metric_depth=1,
        multimodal=False,
        layer_scale=0.1,
        pixel_limit=8_000,
    )


def _set_defaults(folder: Path, **changes: int) -> None:
    file = folder / "flythrough.json"
    data = json.loads(file.read_text())
    data["defaults"] |= changes
    file.write_text(json.dumps(data))
