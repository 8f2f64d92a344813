"""Pi3X: points, confidence, cameras and metric scale from any number of views of one scene.

Own implementation of the published network (Wang et al., "Pi3", arXiv:2507.13347, and its extended
successor Pi3X), with the published parameter names. No view is the reference: the common frame is
arbitrary and the result does not depend on the order of the views.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from flythrough.errors import GeometryError
from flythrough.models.pi3x_blocks import Block, Rotary, rotary_2d, token_positions
from flythrough.models.pi3x_config import PATCH, Pi3XConfig
from flythrough.models.pi3x_decoder import HeadTransformer, MetricTransformer
from flythrough.models.pi3x_encoder import PatchEmbed, VisionEncoder
from flythrough.models.pi3x_heads import CameraHead, ConvHead
from flythrough.models.pi3x_priors import (
    PreparedPriors,
    Priors,
    prepare_priors,
    rigid_inverse,
    with_translation,
)
from flythrough.models.pi3x_prope import PoseInjection, ViewPoses, attention_mask
from flythrough.models.precision import without_autocast

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)

_MAX_LOG_DEPTH = 15.0


@dataclass(frozen=True, eq=False)
class Pi3XRaw:
    """What the network itself says, before metric scale; the losses work on this. All float32.

    xy: [B,N,H,W,2] slopes x/z, y/z. z: [B,N,H,W] depth > 0. conf: [B,N,H,W] confidence logit.
    poses: [B,N,4,4] camera-to-world. metric: [B] factor from these lengths to metres.
    """

    xy: Tensor
    z: Tensor
    conf: Tensor
    poses: Tensor
    metric: Tensor

    @property
    def local_points(self) -> Tensor:
        """Points in each camera's frame [B,N,H,W,3], unscaled."""
        return torch.cat([self.xy * self.z[..., None], self.z[..., None]], dim=-1)


@dataclass(frozen=True, eq=False)
class Pi3XOutput:
    """Metric result, float32; OpenCV axes, one arbitrary common frame per sample.

    points, local_points: [B,N,H,W,3] in the common and in each camera's frame, metres.
    rays: [B,N,H,W,3] unit directions in the camera frame. conf: [B,N,H,W,1] logit.
    camera_poses: [B,N,4,4] camera-to-world. metric: [B]. raw: the same before scaling.
    """

    points: Tensor
    local_points: Tensor
    rays: Tensor
    conf: Tensor
    camera_poses: Tensor
    metric: Tensor
    raw: Pi3XRaw


class Pi3X(nn.Module):
    """The network. ``forward`` gives the metric result, ``raw`` what losses need."""

    image_mean: Tensor
    image_std: Tensor

    def __init__(self, config: Pi3XConfig | None = None) -> None:
        super().__init__()
        c = self.config = config or Pi3XConfig()
        self.register_buffer("image_mean", torch.empty(1, 3, 1, 1))
        self.register_buffer("image_std", torch.empty(1, 3, 1, 1))
        self.restore_constants()
        self.encoder = VisionEncoder(c, 3, c.encoder_depth)
        self.register_token = nn.Parameter(torch.randn(1, 1, c.decoder_registers, c.width) * 1e-6)
        self.decoder = nn.ModuleList(
            Block(c.width, c.heads, c.mlp_ratio, scale=c.layer_scale, qk_norm=True)
            for _ in range(c.decoder_depth)
        )
        if c.multimodal:
            self._build_multimodal(c)
        self.point_decoder = HeadTransformer(c, c.conv_in)
        self.point_head = ConvHead(c, (2, 1))
        self.conf_decoder = HeadTransformer(c, c.conv_in)
        self.conf_head = ConvHead(c, (1,))
        self.camera_decoder = HeadTransformer(c, c.camera_width)
        self.camera_head = CameraHead(c.camera_width)
        self.metric_token = nn.Parameter(torch.randn(1, 1, 2 * c.width) * 1e-6)
        self.metric_decoder = MetricTransformer(c)
        self.metric_head = nn.Linear(c.metric_width, 1)

    def _build_multimodal(self, c: Pi3XConfig) -> None:
        self.depth_encoder = VisionEncoder(c, 2, c.depth_encoder_depth)
        self.depth_emb = nn.Parameter(torch.zeros(1, 1, c.width))
        self.ray_embed = PatchEmbed(2, c.width)
        nn.init.zeros_(self.ray_embed.proj.weight)
        assert self.ray_embed.proj.bias is not None
        nn.init.zeros_(self.ray_embed.proj.bias)
        self.pose_inject_blk = nn.ModuleList(
            PoseInjection(c.width, c.heads, c.mlp_ratio, scale=c.layer_scale)
            for _ in c.inject_after
        )

    def restore_constants(self) -> None:
        """Set the image statistics (files may leave them out)."""
        self.image_mean.copy_(torch.tensor(IMAGE_MEAN).reshape(1, 3, 1, 1))
        self.image_std.copy_(torch.tensor(IMAGE_STD).reshape(1, 3, 1, 1))

    def forward(self, images: Tensor, priors: Priors | None = None) -> Pi3XOutput:
        """Images [B,N,3,H,W] in [0,1], sides multiples of 14, to the metric result."""
        return assemble(self.raw(images, priors))

    def raw(self, images: Tensor, priors: Priors | None = None) -> Pi3XRaw:
        """Like ``forward``, before metric scale. Runs under autocast with float32 heads.

        Raises GeometryError for other sizes, and for priors when the network has no use for them.
        """
        _check_images(images)
        batch, views = images.shape[:2]
        rows, columns = images.shape[-2] // PATCH, images.shape[-1] // PATCH
        given = self._prepared(priors, images)
        hidden = self.encoder((images.flatten(0, 1) - self.image_mean) / self.image_std)
        if given is not None:
            hidden = self._add_maps(hidden, given)
        registers = self.register_token.expand(batch, views, -1, -1).flatten(0, 1)
        tokens = torch.cat([registers.to(hidden.dtype), hidden], dim=1)
        positions = token_positions(rows, columns, self.config.decoder_registers, images.device)
        features = self._decode(tokens, positions, (batch, rows, columns), given)
        return self._heads(features, positions, (batch, rows, columns))

    def _prepared(self, priors: Priors | None, images: Tensor) -> PreparedPriors | None:
        if priors is None:
            return None
        if not self.config.multimodal:
            raise GeometryError(
                "This geometry network was built without priors (multimodal is false) but depth, "
                "rays or poses were given; leave them out or load a multimodal network."
            )
        with without_autocast(images.device):
            return prepare_priors(priors, images)

    def _add_maps(self, hidden: Tensor, given: PreparedPriors) -> Tensor:
        """Add what depth and rays say to the image tokens of the views that use them."""
        if given.rays is not None:
            update = self.ray_embed(given.rays.flatten(0, 1))
            hidden = hidden + update * given.use_rays.reshape(-1, 1, 1)
        if given.depth is not None:
            update = self.depth_encoder(given.depth.flatten(0, 1)) + self.depth_emb
            hidden = hidden + update * given.use_depth.reshape(-1, 1, 1)
        return hidden

    def _decode(
        self,
        tokens: Tensor,
        positions: Tensor,
        shape: tuple[int, int, int],
        given: PreparedPriors | None,
    ) -> Tensor:
        """Alternate between views and scene; the last block of either kind is the feature."""
        batch, rows, columns = shape
        views = tokens.shape[0] // batch
        rotary = rotary_2d(self.config.width // self.config.heads, positions)
        everywhere = rotary.repeated(views)
        poses = None if given is None or given.poses is None else given.poses
        allowed, cameras = None, None
        if given is not None and poses is not None:
            allowed = attention_mask(given.use_poses, rows * columns)
            cameras = ViewPoses(rigid_inverse(poses), poses, rows, columns)
        last: list[Tensor] = []
        for index, block in enumerate(self.decoder):
            if index % 2 == 0:
                tokens = block(tokens, rotary)
            else:
                joined = tokens.reshape(batch, -1, tokens.shape[-1])
                tokens = block(joined, everywhere).reshape(tokens.shape)
            if given is not None and cameras is not None and index in self.config.inject_after:
                tokens = self._inject(index, tokens, cameras, given.use_poses, allowed)
            last = [*last[-1:], tokens]
        return torch.cat(last, dim=-1)

    def _inject(
        self,
        index: int,
        tokens: Tensor,
        cameras: ViewPoses,
        on: Tensor,
        allowed: Tensor | None,
    ) -> Tensor:
        first = self.config.decoder_registers
        block = self.pose_inject_blk[self.config.inject_after.index(index)]
        assert isinstance(block, PoseInjection)
        patches = tokens[:, first:]
        update = block.inject(patches.reshape(on.shape[0], -1, tokens.shape[-1]), cameras, allowed)
        update = update.reshape(patches.shape) * on.reshape(-1, 1, 1)
        return torch.cat([tokens[:, :first], patches + update], dim=1)

    def _heads(self, features: Tensor, positions: Tensor, shape: tuple[int, int, int]) -> Pi3XRaw:
        config, (batch, rows, columns) = self.config, shape
        first = config.decoder_registers
        rotary = rotary_2d(config.head_width // config.head_heads, positions)
        point = self.point_decoder(features, rotary)
        conf = self.conf_decoder(features, rotary)
        camera = self.camera_decoder(features, rotary)
        metric = self._metric_features(features, positions, batch)
        with without_autocast(features.device):
            xy, log_z = self.point_head(point[:, first:].float(), rows, columns)
            (logit,) = self.conf_head(conf[:, first:].float(), rows, columns)
            poses = self.camera_head(camera[:, first:].float())
            metric = self.metric_head(metric.float()).exp()
        per_view = (batch, features.shape[0] // batch)
        return Pi3XRaw(
            xy=xy.permute(0, 2, 3, 1).unflatten(0, per_view),
            z=log_z[:, 0].clamp(max=_MAX_LOG_DEPTH).exp().unflatten(0, per_view),
            conf=logit[:, 0].unflatten(0, per_view),
            poses=poses.unflatten(0, per_view),
            metric=metric.reshape(batch),
        )

    def _metric_features(self, features: Tensor, positions: Tensor, batch: int) -> Tensor:
        views = features.shape[0] // batch
        head = self.config.metric_width // self.config.metric_heads
        rotary: Rotary = rotary_2d(head, positions).repeated(views)
        context = features.reshape(batch, -1, features.shape[-1])
        return self.metric_decoder(self.metric_token.expand(batch, -1, -1), context, rotary)


def assemble(raw: Pi3XRaw) -> Pi3XOutput:
    """Bring the raw result to metres; every step is out of place, so gradients survive."""
    local = raw.local_points
    rotated = torch.einsum("bnij,bnhwj->bnhwi", raw.poses[..., :3, :3], local)
    world = rotated + raw.poses[:, :, None, None, :3, 3]
    scale = raw.metric[:, None, None, None, None]
    translation = raw.poses[..., :3, 3] * raw.metric[:, None, None]
    return Pi3XOutput(
        points=world * scale,
        local_points=local * scale,
        rays=functional.normalize(functional.pad(raw.xy, (0, 1), value=1.0), dim=-1),
        conf=raw.conf[..., None],
        camera_poses=with_translation(raw.poses, translation),
        metric=raw.metric,
        raw=raw,
    )


def _check_images(images: Tensor) -> None:
    fits = images.ndim == 5 and images.shape[1] > 0 and images.shape[2] == 3
    if not fits or images.shape[3] % PATCH or images.shape[4] % PATCH or 0 in images.shape:
        raise GeometryError(
            f"Images of shape {tuple(images.shape)} do not fit the geometry network, which needs "
            f"[B, N, 3, H, W] with H and W multiples of {PATCH}; resize them."
        )
