"""A user's own 3D, points or a mesh, seen from the photo's camera."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from flythrough.errors import GeometryError
from flythrough.geometry.estimator import Capabilities, check_images, known_intrinsics
from flythrough.geometry.types import Geometry, ScaleKind
from flythrough.geometry.zbuffer import nearest_points, nearest_triangles
from flythrough.media.fitting import default_intrinsics

_ASPECT_TOLERANCE = 0.03
_FACTORS = (1, 2, 4, 8, 16, 32)
_DENSE = 0.6
_CLOSING_PASSES = 2
_ENOUGH = 5
_FILLED_CONFIDENCE = 0.5


@dataclass(frozen=True, eq=False)
class Shape:
    """What a 3D file holds, in OpenCV axes of a camera at the origin, in scene units.

    Attributes:
        points: [M,3] float64, those that belong to no triangle.
        corners: [F,3,3] float64, triangles.
        intrinsics: [3,3] of the camera that the file states, in pixels of ``size``, or None.
        size: (height, width) of that camera's picture.
    """

    points: Tensor
    corners: Tensor
    intrinsics: Tensor | None = None
    size: tuple[int, int] | None = None

    @property
    def vertices(self) -> Tensor:
        """All positions [K,3]."""
        return torch.cat((self.points, self.corners.reshape(-1, 3)))


class ShapeDepth:
    """Depth of one photo by drawing a shape from the photo's camera, which is at the origin.

    Triangles are drawn exactly. Points take one pixel each; where they are sparser than pixels the
    grid is made coarser (up to 32 pixels) until most of them have neighbours, and holes among at
    least five seen neighbours are closed with a depth from their midst (confidence 0.5).

    The focal length is the one given, else the one that the file states, else the default.
    """

    capabilities = Capabilities(scale=ScaleKind.SCALE_INVARIANT, max_views=1)

    def __init__(self, shape: Shape, name: str) -> None:
        self.shape, self.name = shape, name

    def estimate(self, images: Tensor, *, intrinsics: Tensor | None = None) -> Geometry:
        """Depth at the size of the one picture [1,3,H,W]; 0 and not valid where nothing is.

        Raises:
            GeometryError: nothing of the shape is in the picture, or its stated camera has another
                aspect ratio than the picture.
        """
        check_images(images, self.name, 1)
        size = (images.shape[-2], images.shape[-1])
        matrix = self._own_intrinsics(size) if intrinsics is None else intrinsics
        matrix = known_intrinsics(matrix, images)
        camera = matrix[0].cpu()
        depth, filled = self._drawn(camera, size)
        if not bool((depth > 0).any()):
            raise GeometryError(self._why_nothing(camera, size))
        depth, filled = depth.float().to(images.device)[None], filled.to(images.device)[None]
        valid = depth > 0
        return Geometry(
            depth=depth,
            confidence=torch.where(filled, _FILLED_CONFIDENCE, valid.float()),
            valid=valid,
            intrinsics=matrix,
            world_from_camera=torch.eye(4, device=images.device)[None],
            scale=self.capabilities.scale,
        )

    def _own_intrinsics(self, size: tuple[int, int]) -> Tensor:
        own, stated = self.shape.intrinsics, self.shape.size
        if own is None or stated is None:
            return torch.from_numpy(default_intrinsics(*size))
        if abs((stated[1] / stated[0]) / (size[1] / size[0]) - 1) > _ASPECT_TOLERANCE:
            raise GeometryError(
                f"The camera that {self.name} states has {stated[0]}x{stated[1]} pixels but the "
                f"picture is {size[0]}x{size[1]}; both must show the same view, so fit the photo "
                "alike."
            )
        factors = own.new_tensor([size[1] / stated[1], size[0] / stated[0], 1.0])
        return own * factors[:, None]

    def _drawn(self, camera: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Depth [H,W] and which of its pixels were closed holes."""
        depth = torch.zeros(size, dtype=torch.float64)
        filled = torch.zeros(size, dtype=torch.bool)
        if len(self.shape.points):
            depth, filled = drawn_points(self.shape.points, camera, size)
        if len(self.shape.corners):
            surface = nearest_triangles(self.shape.corners, camera, size)
            ahead = (surface > 0) & ((depth == 0) | (surface < depth))
            depth, filled = torch.where(ahead, surface, depth), filled & ~ahead
        return depth, filled

    def _why_nothing(self, camera: Tensor, size: tuple[int, int]) -> str:
        vertices = self.shape.vertices
        turned = vertices * vertices.new_tensor([1, -1, -1])
        other = bool((nearest_points(turned, camera, size) > 0).any())
        if not bool((vertices[:, 2] > 0).any()):
            remedy = (
                "turn it, or name its axes with :opencv or :opengl after the file"
                if other
                else "move it in front"
            )
            return (
                f"Everything in {self.name} lies behind the camera, which stands at the origin and "
                f"looks along +z (z reaches at most {float(vertices[:, 2].max()):.3g}); {remedy}."
            )
        return (
            f"Nothing of {self.name} falls into the picture of a camera at the origin that looks "
            f"along +z with a focal length of {float(camera[0, 0]):.0f} pixels; move it there, or "
            "name its axes with :opencv or :opengl after the file."
        )


def drawn_points(points: Tensor, camera: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Depth [H,W] of points [M,3], 0 where unknown, and which pixels are closed holes."""
    best, most = torch.zeros(size, dtype=torch.float64), -1.0
    for factor in _FACTORS:
        grid = (-(-size[0] // factor), -(-size[1] // factor))
        scaled = camera.double() / camera.new_tensor([factor, factor, 1.0])[:, None].double()
        depth = nearest_points(points, scaled, grid)
        if not bool((depth > 0).any()):
            return torch.zeros(size, dtype=torch.float64), torch.zeros(size, dtype=torch.bool)
        share = _neighbours(depth)
        if share > most:
            best, most = depth, share
        if share >= _DENSE:
            break
    closed = best
    for _ in range(_CLOSING_PASSES):
        closed = _closed(closed)
    closed, was = (_enlarged(v, size) for v in (closed, best))
    return closed, (closed > 0) & (was == 0)


def _enlarged(values: Tensor, size: tuple[int, int]) -> Tensor:
    factor = max(-(-size[0] // values.shape[0]), -(-size[1] // values.shape[1]))
    rows = values.repeat_interleave(factor, 0).repeat_interleave(factor, 1)
    return rows[: size[0], : size[1]]


def _neighbours(depth: Tensor) -> float:
    """The mean share of a seen pixel's eight neighbours that are seen too."""
    seen = (depth > 0).double()
    around = functional.avg_pool2d(seen[None, None], 3, 1, 1, divisor_override=1)[0, 0] - seen
    return float((around * seen).sum() / seen.sum() / 8)


def _closed(depth: Tensor) -> Tensor:
    """Unseen pixels with enough seen neighbours take their median (an existing depth, so that
    nothing is invented between foreground and background)."""
    padded = functional.pad(depth, (1, 1, 1, 1))
    window = torch.stack(
        [padded[i : i + depth.shape[0], j : j + depth.shape[1]] for i in range(3) for j in range(3)]
    )
    seen = (window > 0).sum(0)
    median = torch.where(window > 0, window, torch.nan).nanmedian(0).values
    return torch.where((depth == 0) & (seen >= _ENOUGH), torch.nan_to_num(median), depth)
