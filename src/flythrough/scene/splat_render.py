"""Drawing splats into cameras, by gsplat where it can and by PyTorch elsewhere; one interface."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

from flythrough.scene.splat_projection import NEAR
from flythrough.scene.splat_raster import Pairs, SplatView, draw
from flythrough.scene.splats import Splats

_FAR = 1e10
_DEGREE = 3


@cache
def _has_gsplat() -> bool:
    return find_spec("gsplat") is not None


def renderer(device: torch.device) -> Literal["gsplat", "torch"]:
    """What draws on ``device``: gsplat's kernels need CUDA and the package."""
    return "gsplat" if device.type == "cuda" and _has_gsplat() else "torch"


def drawn(
    splats: Splats,
    camera: Tensor,
    matrix: Tensor,
    size: tuple[int, int],
    pairs: Pairs | None = None,
) -> SplatView:
    """What a camera [4,4] (world from camera) with intrinsics [3,3] in pixels of ``size`` sees.

    Gradients flow; ``pairs`` may save the plain renderer the search (see ``splat_raster``)."""
    if renderer(splats.means.device) == "gsplat":
        return _by_gsplat(splats, camera, matrix, size)
    return draw(splats, camera, matrix, size, pairs)


def _by_gsplat(splats: Splats, camera: Tensor, matrix: Tensor, size: tuple[int, int]) -> SplatView:
    from gsplat import rasterization

    shown, alpha, _ = rasterization(
        means=splats.means,
        quats=torch.nn.functional.normalize(splats.quaternions, dim=-1),
        scales=splats.log_scales.exp(),
        opacities=splats.opacity_logits.sigmoid(),
        colors=torch.cat([splats.sh0, splats.sh_rest], dim=1),
        viewmats=torch.linalg.inv_ex(camera).inverse[None],  # inv would wait for the GPU
        Ks=matrix[None],
        width=size[1],
        height=size[0],
        near_plane=NEAR,
        far_plane=_FAR,
        sh_degree=_DEGREE,
        packed=False,
        render_mode="RGB+ED",
    )
    return SplatView(shown[0, ..., :3], alpha[0, ..., 0], shown[0, ..., 3])
