"""Gaussians as one camera sees them: ellipses on the picture, and colours by direction.

The arithmetic is that of the common rasterisers (Zwicker et al. 2001; Kerbl et al. 2023): a local
affine projection, 0.3 square pixels added to every ellipse, harmonics up to degree 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from flythrough.scene.splats import SH_CONSTANT, Splats

NEAR = 0.01
FAINTEST = 1 / 255
"""Opacity below which a Gaussian is not drawn at a pixel."""

_BLUR = 0.3
_MARGIN = 0.15  # of the picture, beyond which the projection is not made any steeper


@dataclass(frozen=True, eq=False)
class Ellipses:
    """M Gaussians in front of a camera.

    Attributes:
        index: [M] int64, which of the splats.
        table: [M,10] centre x, y in pixels; inverse covariance xx, xy, yy; opacity; z-depth; and
            red, green, blue.
        reach: [M,2] pixels to either side within which they can be drawn; no gradient.
    """

    index: Tensor
    table: Tensor
    reach: Tensor

    @property
    def depth(self) -> Tensor:
        return self.table[:, 6]


def project(splats: Splats, camera: Tensor, matrix: Tensor, size: tuple[int, int]) -> Ellipses:
    """What a camera [4,4] (world from camera) with intrinsics [3,3] sees of the splats."""
    local = (splats.means - camera[:3, 3]) @ camera[:3, :3]
    index = (local[:, 2].detach() > NEAR).nonzero()[:, 0]
    local = local[index]
    axes = rotations(splats.quaternions[index]) * splats.log_scales[index].exp()[:, None]
    turned = camera[:3, :3].T @ axes
    centre, flat = _flattened(local, turned, matrix, size)
    xx = flat[:, 0].square().sum(-1) + _BLUR
    yy = flat[:, 1].square().sum(-1) + _BLUR
    xy = (flat[:, 0] * flat[:, 1]).sum(-1)
    area = xx * yy - xy * xy
    opacity = splats.opacity_logits[index].sigmoid()
    with torch.no_grad():
        cut = (2 * (opacity / FAINTEST).clamp_min(1).log()).sqrt()
        reach = torch.stack([xx.sqrt(), yy.sqrt()], dim=-1) * cut[:, None]
    colours = colours_from(splats, index, camera[:3, 3])
    columns = [centre, torch.stack([yy, -xy, xx], dim=-1) / area[:, None]]
    columns += [opacity[:, None], local[:, 2:], colours]
    table = torch.cat(columns, dim=-1)
    seen = _in_picture(table.detach(), reach, size).nonzero()[:, 0]
    return Ellipses(index[seen], table[seen], reach[seen])


def _flattened(
    local: Tensor, axes: Tensor, matrix: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Centres [M,2] in pixels, and the Gaussians' axes on the picture [M,2,3]."""
    fx, fy, cx, cy = matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]
    x, y, z = local.unbind(-1)
    # Far outside the picture the local projection would smear a Gaussian over all of it.
    left, right = -(cx / fx + _margin(size[1], fx)), (size[1] - cx) / fx + _margin(size[1], fx)
    top, bottom = -(cy / fy + _margin(size[0], fy)), (size[0] - cy) / fy + _margin(size[0], fy)
    tx, ty = z * (x / z).clamp(left, right), z * (y / z).clamp(top, bottom)
    nought = torch.zeros_like(z)
    across = torch.stack([fx / z, nought, -fx * tx / z.square()], dim=-1)
    down = torch.stack([nought, fy / z, -fy * ty / z.square()], dim=-1)
    centre = torch.stack([fx * x / z + cx, fy * y / z + cy], dim=-1)
    return centre, torch.stack([across, down], dim=1) @ axes


def _margin(side: int, focal: Tensor) -> Tensor:
    return _MARGIN * side / focal


def _in_picture(table: Tensor, reach: Tensor, size: tuple[int, int]) -> Tensor:
    x, y = table[:, 0], table[:, 1]
    across = (x + reach[:, 0] > 0) & (x - reach[:, 0] < size[1])
    return across & (y + reach[:, 1] > 0) & (y - reach[:, 1] < size[0]) & (table[:, 5] > FAINTEST)


def rotations(quaternions: Tensor) -> Tensor:
    """[N,3,3] of quaternions [N,4] (w,x,y,z) of any length."""
    w, x, y, z = functional.normalize(quaternions, dim=-1).unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1),
    ]
    return torch.stack(rows, dim=1)


def colours_from(splats: Splats, index: Tensor, eye: Tensor) -> Tensor:
    """Colours [M,3], at least 0, of splats [M] seen from a place [3]."""
    away = functional.normalize(splats.means[index] - eye, dim=-1)
    constant = SH_CONSTANT * splats.sh0[index, 0]
    rest = (harmonics(away)[..., None] * splats.sh_rest[index]).sum(1)
    return (constant + rest + 0.5).clamp_min(0)


def harmonics(directions: Tensor) -> Tensor:
    """Real spherical harmonics of degrees 1 to 3 [M,15] for unit vectors [M,3]."""
    x, y, z = directions.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    return torch.stack(
        [
            -0.4886025119029199 * y,
            0.4886025119029199 * z,
            -0.4886025119029199 * x,
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (2 * zz - xx - yy),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (xx - yy),
            -0.5900435899266435 * y * (3 * xx - yy),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (4 * zz - xx - yy),
            0.3731763325901154 * z * (2 * zz - 3 * xx - 3 * yy),
            -0.4570457994644658 * x * (4 * zz - xx - yy),
            1.445305721320277 * z * (xx - yy),
            -0.5900435899266435 * x * (xx - 3 * yy),
        ],
        dim=-1,
    )
