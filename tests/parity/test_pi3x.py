"""Pi3X gives the published code's recorded numbers for every mix of priors and masks."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional

from flythrough.models.pi3x import Pi3X, Pi3XOutput
from flythrough.models.pi3x_config import Pi3XConfig
from flythrough.models.pi3x_priors import Priors

GOLDEN = Path(__file__).parents[1] / "golden" / "pi3x"
CASES = sorted(file.stem for file in GOLDEN.glob("*.safetensors"))
TOLERANCE = 5e-5  # of each tensor's largest value
SEED = 1001
LARGE = Path(__file__).parents[1] / "golden" / "pi3x_realsize"
LARGE_SEED = 4242
# The recorded network: published depth, tiny widths.
CONFIG: dict[str, Any] = {
    "width": 32,
    "heads": 2,
    "grid": 4,
    "encoder_depth": 2,
    "depth_encoder_depth": 2,
    "head_width": 32,
    "head_heads": 2,
    "conv_in": 24,
    "conv_widths": (32, 32, 16),
    "camera_width": 20,
    "metric_width": 24,
    "metric_heads": 3,
}
TOKENS = ("cls_token", "register_tokens", "register_token", "pos_embed", "depth_emb")


def recipe(key: str, shape: tuple[int, ...], seed: int = SEED) -> Tensor:
    """The recorded run's weights, which are drawn rather than stored."""
    u = np.random.RandomState((crc32(key.encode()) + seed) % 2**32).uniform(-1, 1, shape)
    if key.endswith((*TOKENS, "metric_token")):
        value = 0.5 * u
    elif key.endswith(".gamma"):
        value = 0.5 + 0.25 * u
    elif key.endswith(".bias"):
        value = 0.1 * u
    elif len(shape) == 1:
        value = 1 + 0.2 * u
    else:
        transposed = "upsample_blocks" in key and key.endswith(".0.0.weight")
        value = u * np.sqrt(3 / (shape[0] if transposed else np.prod(shape[1:])))
        if key == "metric_head.weight" or (
            key.startswith("point_head.output_block") and key.endswith(".2.weight")
        ):
            value = value * 0.3
    return torch.from_numpy(value.astype(np.float32))


def network(*, multimodal: bool) -> Pi3X:
    net = Pi3X(Pi3XConfig(**CONFIG, multimodal=multimodal))
    kept = {k: v for k, v in net.state_dict().items() if k.startswith("image_")}
    drawn = {k: recipe(k, tuple(v.shape)) for k, v in net.state_dict().items() if k not in kept}
    net.load_state_dict({**drawn, **kept})
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def full() -> Pi3X:
    return network(multimodal=True)


def read(name: str, folder: Path = GOLDEN) -> tuple[Tensor, Priors, dict[str, Tensor]]:
    with safe_open(folder / f"{name}.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        flags = json.loads(file.metadata()["flags"])
    priors = Priors(
        depths=tensors.get("in.depths"),
        intrinsics=tensors.get("in.intrinsics"),
        rays=tensors.get("in.rays"),
        poses=tensors.get("in.poses"),
        use_depth=tensors.get("in.mask_add_depth"),
        use_rays=tensors.get("in.mask_add_ray"),
        use_poses=tensors.get("in.mask_add_pose"),
        enabled=flags["with_prior"],
    )
    golden = {key[4:]: value for key, value in tensors.items() if key.startswith("out.")}
    return tensors["in.imgs"], priors, golden


def agree(out: Pi3XOutput, golden: dict[str, Tensor]) -> None:
    assert len(golden) == 5
    for name, expected in golden.items():
        value = getattr(out, name)
        assert value.shape == expected.shape, name
        assert float((value - expected).abs().max() / expected.abs().max()) <= TOLERANCE, name
    directions = functional.normalize(golden["local_points"], dim=-1)
    torch.testing.assert_close(out.rays, directions, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_recorded_case(full: Pi3X, name: str) -> None:
    images, priors, golden = read(name)
    switch = None if priors.use_poses is None else priors.use_poses.clone()
    agree(full(images, priors), golden)
    if switch is not None and priors.use_poses is not None:
        assert torch.equal(priors.use_poses, switch)  # the caller's mask is left alone


def test_all_cases_are_here() -> None:
    assert len(CASES) == 16


def test_without_priors_the_multimodal_parts_are_not_needed(full: Pi3X) -> None:
    images, _, golden = read("n3_noprior")
    plain, empty = network(multimodal=False)(images), full(images, Priors())
    agree(plain, golden)
    assert torch.equal(plain.points, empty.points)


def test_order_of_views_does_not_matter(full: Pi3X) -> None:
    images, _, golden = read("n3_noprior")
    order = torch.tensor([2, 0, 1])
    out = full(images[:, order])
    back = torch.argsort(order)
    expected = golden["local_points"]
    assert float((out.local_points[:, back] - expected).abs().max() / expected.abs().max()) < 1e-4


@pytest.mark.parametrize(
    ("multimodal", "keys", "parameters"), [(True, 1873, 1_360_032_433), (False, 1437, 992_465_329)]
)
def test_published_size(multimodal: bool, keys: int, parameters: int) -> None:
    with torch.device("meta"):
        net = Pi3X(Pi3XConfig(multimodal=multimodal))
    state = net.state_dict()
    assert len(state) == keys
    assert sum(p.numel() for p in net.parameters()) == parameters
    for key, shape in {
        "register_token": (1, 1, 5, 1024),
        "encoder.pos_embed": (1, 1370, 1024),
        "decoder.35.attn.q_norm.weight": (64,),
        "camera_decoder.linear_out.weight": (512, 1024),
        "metric_decoder.blocks.4.cross_attn.k_proj.weight": (512, 512),
        "point_head.upsample_blocks.0.0.0.weight": (1026, 256, 2, 2),
        "point_head.upsample_blocks.2.2.layers.5.weight": (64, 128, 3, 3),
        "conf_head.output_block.0.2.weight": (1, 32, 1, 1),
    }.items():
        assert tuple(state[key].shape) == shape, key


@pytest.mark.skipif(
    "FLYTHROUGH_LARGE_TESTS" not in os.environ,
    reason="draws 1.36 billion weights: 6 GB and a minute; set FLYTHROUGH_LARGE_TESTS",
)
def test_network_of_published_size() -> None:
    with torch.device("meta"):
        net = Pi3X(Pi3XConfig(multimodal=True))
    net = net.to_empty(device="cpu").eval().requires_grad_(False)
    net.restore_constants()
    for key, value in net.state_dict().items():
        if not key.startswith("image_"):
            value.copy_(recipe(key, tuple(value.shape), LARGE_SEED))
    for name in ("n1_noprior", "n2_all"):
        images, priors, golden = read(name, LARGE)
        agree(net(images, priors), golden)
