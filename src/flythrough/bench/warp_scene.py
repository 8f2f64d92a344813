"""A scene for the conditioning path at any size: waves with silhouettes and a sky, and a network
that takes its time over them. Random weights have nothing to say about depth, so what is returned
is the scene's own; everything behind the network then works on surfaces as real ones are."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from flythrough.bench.sizes import Size
from flythrough.geometry.estimator import Capabilities
from flythrough.geometry.types import Geometry, ScaleKind
from flythrough.models.pi3x import Pi3X
from flythrough.models.pi3x_config import NANO_9M, Pi3XConfig
from flythrough.models.pi3x_estimator import Pi3XEstimator
from flythrough.rollout.chunk import CHUNK_FRAMES, Chunk, ChunkRequest
from flythrough.rollout.rollout import Rollout, Start
from flythrough.rollout.spec import RolloutSpec

_STEP = 0.01
"""Length that the camera moves and angle that it turns in a frame; the scene is 2 to 4 away."""


def random_pi3x(size: Size, device: torch.device) -> Pi3X:
    """Pi3X with random weights, at the published size unless the work is small."""
    torch.manual_seed(4)
    with torch.device(device):
        net = Pi3X(NANO_9M if size.transformer else Pi3XConfig())
    return net.eval().requires_grad_(False)


class SceneGeometry:
    """Runs ``net`` (None: nothing) and returns the scene's depth with known intrinsics."""

    name = "scene"
    capabilities = Capabilities(scale=ScaleKind.METRIC, max_views=64)

    def __init__(self, net: Pi3X | None, pixel_limit: int | None = None) -> None:
        self.inner = None if net is None else Pi3XEstimator(net, pixel_limit=pixel_limit)

    def estimate(self, images: Tensor, *, intrinsics: Tensor | None = None) -> Geometry:
        """Geometry at the size of ``images`` [N,3,H,W], the same for all of them."""
        assert intrinsics is not None
        if self.inner is not None:
            self.inner.estimate(images, intrinsics=intrinsics)
        count, _, height, width = images.shape
        depth, valid = waves(height, width, images.device)
        return Geometry(
            depth=depth.expand(count, -1, -1).clone(),
            confidence=valid.float().expand(count, -1, -1).clone(),
            valid=valid.expand(count, -1, -1).clone(),
            intrinsics=intrinsics.float(),
            world_from_camera=torch.eye(4, device=images.device).repeat(count, 1, 1),
            scale=ScaleKind.METRIC,
        )


def waves(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Depth [H,W] of a bent wall with discs in front of it, and valid [H,W]: not the sky."""
    y = (torch.arange(height, device=device)[:, None] + 0.5) / height
    x = (torch.arange(width, device=device)[None] + 0.5) / width
    depth = 3 + 0.4 * torch.sin(9 * x) + 0.3 * torch.cos(7 * y)
    for column, row, radius in ((0.25, 0.6, 0.12), (0.6, 0.5, 0.15), (0.85, 0.75, 0.1)):
        near = ((x - column) * width) ** 2 + ((y - row) * height) ** 2 < (radius * height) ** 2
        depth = torch.where(near, 0.6 * depth, depth)
    return depth, y > 0.12 + 0.05 * torch.sin(20 * x)


def intrinsics_of(size: Size) -> np.ndarray:
    """[3,3] float64 of a camera as wide as it looks far."""
    return np.array(
        [[size.width, 0, size.width / 2], [0, size.width, size.height / 2], [0, 0, 1.0]]
    )


def request(size: Size, index: int) -> ChunkRequest:
    """The cameras of chunk ``index``: forward and turning to the right."""
    at = np.arange(index * CHUNK_FRAMES, (index + 1) * CHUNK_FRAMES) * _STEP
    poses = np.tile(np.eye(4), (CHUNK_FRAMES, 1, 1))
    poses[:, 0, 0] = poses[:, 2, 2] = np.cos(at)
    poses[:, 0, 2], poses[:, 2, 0] = np.sin(at), -np.sin(at)
    poses[:, 2, 3] = at
    matrices = np.tile(intrinsics_of(size), (CHUNK_FRAMES, 1, 1))
    return ChunkRequest(index, "random", world_from_camera=poses, intrinsics=matrices)


def rollout(size: Size, chunks: int) -> Rollout:
    """A rollout of ``chunks`` finished chunks of random pictures and latents."""
    source = np.random.default_rng(5)
    shape = (size.height, size.width, 3)
    spec = RolloutSpec(
        method="warp-as-history",
        model="random",
        model_digest="random",
        height=size.height,
        width=size.width,
        fps=24.0,
        seed=7,
        prompt="random",
    )
    made = Rollout(spec, Start(source.integers(0, 256, shape, np.uint8), intrinsics_of(size)))
    latent = (16, 9, size.height // 8, size.width // 8)
    for index in range(chunks):
        made = made.appended(
            Chunk(
                request=request(size, index),
                latents=source.standard_normal(latent).astype(np.float32),
                frames=source.integers(0, 256, (CHUNK_FRAMES, *shape), np.uint8),
            )
        )
    return made
