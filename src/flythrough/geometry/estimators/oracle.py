"""Exact depth with dialled-in error: the known answer for tests and ablations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from flythrough import seeds
from flythrough.errors import GeometryError
from flythrough.geometry.edges import depth_edge
from flythrough.geometry.estimator import Capabilities, check_images, known_intrinsics
from flythrough.geometry.quantile import quantile
from flythrough.geometry.types import Geometry, ScaleKind

_COARSE = (4, 6)
_HOLE_GRID = (12, 20)
_JUMP = 0.03


@dataclass(frozen=True, kw_only=True)
class OracleError:
    """How wrong the oracle is; the default is exact.

    Attributes:
        scale: factor on all depth, positive.
        smooth: deviation of the logarithm of a slowly varying factor.
        noise: deviation of the logarithm of a per-pixel factor.
        edge_blur: pixels over which depth is averaged around depth jumps, as networks do.
        holes: share of each frame that is invalid, in smooth blobs, in [0, 1).
        seed: the same seed gives the same error.

    Raises:
        GeometryError: a value out of range.
    """

    scale: float = 1.0
    smooth: float = 0.0
    noise: float = 0.0
    edge_blur: int = 0
    holes: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (
            self.scale > 0
            and self.smooth >= 0
            and self.noise >= 0
            and self.edge_blur >= 0
            and 0 <= self.holes < 1
        ):
            raise GeometryError(
                f"The oracle error {self} is out of range; scale must be positive, smooth, noise "
                "and edge_blur not negative, and holes in [0, 1)."
            )


class OracleDepth:
    """Hands out exact depth with its cameras, disturbed by ``error``.

    Args:
        depth: [N,H,W] z-depth, 0 where invalid.
        intrinsics: [N,3,3] in pixels of H x W, pixel centres at half-integers.
        world_from_camera: [N,4,4], identity when None.

    The n pictures of a call are taken to be the first n frames.
    """

    name = "oracle"

    def __init__(
        self,
        depth: Tensor,
        intrinsics: Tensor,
        world_from_camera: Tensor | None = None,
        error: OracleError | None = None,
    ) -> None:
        self.depth, self.intrinsics = depth.float(), intrinsics.float()
        eye = torch.eye(4, device=depth.device).expand(len(depth), 4, 4)
        self.cameras = eye if world_from_camera is None else world_from_camera.float()
        self.error = error or OracleError()
        self.capabilities = Capabilities(
            scale=ScaleKind.METRIC, max_views=len(depth), predicts_poses=True
        )

    def estimate(self, images: Tensor, *, intrinsics: Tensor | None = None) -> Geometry:
        """Geometry of the first frames; their pictures [n,3,H,W] only fix n and are checked.

        Raises:
            GeometryError: pictures of another size than the exact depth, or too many.
        """
        check_images(images, self.name, len(self.depth))
        count = len(images)
        if images.shape[-2:] != self.depth.shape[-2:]:
            raise GeometryError(
                f"Pictures are {tuple(images.shape[-2:])} but the exact depth is "
                f"{tuple(self.depth.shape[-2:])}; render both at one size."
            )
        depth = self._disturbed()[:count].to(images.device)
        matrices = self.intrinsics[:count] if intrinsics is None else intrinsics
        return Geometry(
            depth=depth,
            confidence=(depth > 0).float(),
            valid=depth > 0,
            intrinsics=known_intrinsics(matrices, images),
            world_from_camera=self.cameras[:count].to(images.device),
            scale=ScaleKind.METRIC,
        )

    def _disturbed(self) -> Tensor:
        """Depth of all frames with the error applied, so that a frame's error never depends on how
        many frames a call asks for."""
        error, depth = self.error, self.depth
        if error.edge_blur:
            depth = _blurred_at_jumps(depth, error.edge_blur)
        factor = error.scale * torch.exp(
            error.smooth * self._field("smooth", _COARSE) + error.noise * self._field("noise", None)
        )
        if error.holes:
            field = self._field("holes", _HOLE_GRID)
            limits = [quantile(frame.flatten(), error.holes) for frame in field]
            depth = depth * (field >= torch.stack(limits)[:, None, None])
        return depth * factor

    def _field(self, purpose: str, grid: tuple[int, int] | None) -> Tensor:
        """Normal noise [N,H,W]: one value a pixel, or a smooth surface through ``grid`` values."""
        count, height, width = self.depth.shape
        source = seeds.generator(self.error.seed, "oracle", purpose)
        values = torch.randn(count, 1, *(grid or (height, width)), generator=source)
        if grid is not None:
            values = functional.interpolate(
                values, (height, width), mode="bicubic", align_corners=False
            )
        return values[:, 0].to(self.depth)


def _blurred_at_jumps(depth: Tensor, radius: int) -> Tensor:
    """Valid depth within ``radius`` of a jump becomes the mean of the valid depth around it."""
    valid = depth > 0
    window = 2 * radius + 1
    known = valid[:, None].float()
    near = functional.max_pool2d(
        depth_edge(depth, rtol=_JUMP, mask=valid)[:, None].float(), window, 1, radius
    )
    mean = functional.avg_pool2d(depth[:, None], window, 1, radius, divisor_override=1)
    mean = mean / functional.avg_pool2d(known, window, 1, radius, divisor_override=1).clamp_min(1)
    return torch.where(valid & (near[:, 0] > 0), mean[:, 0], depth)
