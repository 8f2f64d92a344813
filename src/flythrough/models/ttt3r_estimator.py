"""The streaming network as a geometry estimator: a video in, depth, confidence and cameras out."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from flythrough.geometry.estimator import (
    Capabilities,
    Estimator,
    check_images,
    known_intrinsics,
)
from flythrough.geometry.types import Geometry, ScaleKind
from flythrough.models.pi3x_estimator import CONFIDENT, resize_depth
from flythrough.models.ttt3r import TTT3R, UpdateRule
from flythrough.models.ttt3r_files import load_ttt3r
from flythrough.models.ttt3r_frames import focal_from_points, framed, framing
from flythrough.models.ttt3r_stream import RESET_EVERY, stream


class TTT3REstimator:
    """Estimates metric geometry of pictures in the order of a video; any number of them.

    The network's confidence c of at least 1 becomes 1 - 1/c. Its own field of view is solved from
    its points, the same for all frames of a call. Pictures keep their shape: border is added by
    repeating pixels up to whole patches, and cut off again.
    """

    name = "ttt3r"

    def __init__(
        self,
        net: TTT3R,
        confident: float = CONFIDENT,
        *,
        rule: UpdateRule = "ttt3r",
        reset_every: int | None = RESET_EVERY,
    ) -> None:
        self.net, self.confident, self.rule, self.reset_every = net, confident, rule, reset_every
        self.capabilities = Capabilities(
            scale=ScaleKind.METRIC, predicts_poses=True, uses_intrinsics=False
        )

    @torch.no_grad()
    def estimate(self, images: Tensor, *, intrinsics: Tensor | None = None) -> Geometry:
        """Geometry of ``images`` [N,3,H,W] in [0,1], at their size.

        Known ``intrinsics`` are kept as they are; the network does not see them.

        Raises:
            GeometryError: images or intrinsics of another shape or range.
        """
        check_images(images, self.name, None)
        known = None if intrinsics is None else known_intrinsics(intrinsics, images)
        size = (images.shape[-2], images.shape[-1])
        frame = framing(size, self.net.config.long_side)
        found = stream(
            self.net,
            framed(images.float(), frame),
            rule=self.rule,
            reset_every=self.reset_every,
        )
        points = frame.cut(found.points)
        if known is None:
            known = _pinhole(points, size)
        depth = torch.nan_to_num(resize_depth(points[..., 2].contiguous(), size), 0.0, 0.0, 0.0)
        depth = depth.clamp_min(0)
        sure = (1 - 1 / frame.cut(found.confidence))[:, None]
        confidence = functional.interpolate(sure, size=size, mode="bilinear")[:, 0].clamp(0, 1)
        return Geometry(
            depth=depth,
            confidence=confidence,
            valid=(confidence > self.confident) & (depth > 0),
            intrinsics=known.to(depth),
            world_from_camera=found.world_from_camera,
            scale=ScaleKind.METRIC,
        )


def ttt3r_estimator(
    folder: str | Path,
    *,
    device: torch.device | str = "cpu",
    confident: float = CONFIDENT,
) -> Estimator:
    """The estimator of a geometry folder (``load_ttt3r`` says what may be wrong with it)."""
    return TTT3REstimator(load_ttt3r(folder, device=device), confident)


def _pinhole(points: Tensor, size: tuple[int, int]) -> Tensor:
    """Matrices [N,3,3] in pixels of ``size`` from point maps [N,h,w,3]: one focal length, the mean
    over frames, because each frame's own wavers."""
    factor = size[1] / points.shape[2], size[0] / points.shape[1]
    # A network that sees nothing may give a focal length of nought or below.
    focal = focal_from_points(points).abs().mean().clamp_min(1e-3)
    matrix = torch.zeros(len(points), 3, 3, device=points.device)
    matrix[:, 0, 0], matrix[:, 1, 1] = focal * factor[0], focal * factor[1]
    matrix[:, 0, 2], matrix[:, 1, 2], matrix[:, 2, 2] = size[1] / 2, size[0] / 2, 1
    return matrix
