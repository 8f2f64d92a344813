"""Depth of one picture at a time with networks of transformers: Depth Pro, Depth Anything.

Sources: Bochkovskii et al., "Depth Pro" (2024), section 3.2 (canonical inverse depth and focal
length); Yang et al., "Depth Anything V2" (2024), sections 5 and 7 (affine-invariant inverse depth;
metric variants).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from flythrough.errors import WeightsError
from flythrough.geometry.edges import depth_edge
from flythrough.geometry.estimator import Capabilities, Estimator, check_images, known_intrinsics
from flythrough.geometry.quantile import quantile
from flythrough.geometry.types import Geometry, ScaleKind
from flythrough.media.fitting import default_intrinsics
from flythrough.models.depth_input import DepthInput, depth_input, full_precision
from flythrough.models.monocular_files import Meaning, MonocularFolder
from flythrough.models.quiet import quiet_loading

FARTHEST = 50.0
"""Relative depth ends at so many times the depth of its median output; what lies beyond is left to
the sky."""

_LEAST_INVERSE = 1e-4  # 1/m: Depth Pro's published limit, 10 km
_EDGE = 0.03
_SCALES: dict[Meaning, ScaleKind] = {
    "canonical-inverse": ScaleKind.METRIC,
    "relative-inverse": ScaleKind.AFFINE,
    "metres": ScaleKind.METRIC,
}


class MonocularEstimator:
    """Depth of each picture by itself, in float32; every picture is its own camera frame.

    What the output becomes depends on its ``meaning``:

    * "canonical-inverse" (Depth Pro): 1/metres of a camera whose focal length is one picture width;
      divided by the true focal length in widths. The focal length is the one given, else the
      network's own, else 60 degrees across. Beyond 10 km nothing is valid.
    * "metres": taken as it is.
    * "relative-inverse" (Depth Anything): inverse depth up to an unknown scale and shift. The shift
      is taken as zero, that is, zero stands for infinitely far, and the scale makes the median of
      valid depth 1. What would lie beyond ``FARTHEST`` medians is not valid. A wrong shift bends
      planes; no single picture can tell.

    Args:
        net: a depth network of transformers, in evaluation mode.
        prepare: makes its input.
        name: what messages call it.
    """

    def __init__(self, net: nn.Module, prepare: DepthInput, meaning: Meaning, name: str) -> None:
        self.net, self.prepare, self.meaning, self.name = net, prepare, meaning, name
        self.capabilities = Capabilities(scale=_SCALES[meaning])

    @torch.no_grad()
    def estimate(self, images: Tensor, *, intrinsics: Tensor | None = None) -> Geometry:
        """Geometry of ``images`` [N,3,H,W] in [0,1] at their size, one picture at a time.

        Given ``intrinsics`` ([3,3] or [N,3,3], pixels at H x W) are kept as they are.

        Raises:
            GeometryError: images or intrinsics of another shape or range.
        """
        check_images(images, self.name, None)
        known = None if intrinsics is None else known_intrinsics(intrinsics, images)
        found = [
            self._one(image[None], None if known is None else known[i])
            for i, image in enumerate(images)
        ]
        depth, valid, matrices = (torch.cat(parts) for parts in zip(*found, strict=True))
        return Geometry(
            depth=depth,
            confidence=valid.float(),
            valid=valid,
            intrinsics=matrices,
            world_from_camera=torch.eye(4, device=depth.device).expand(len(depth), 4, 4),
            scale=self.capabilities.scale,
        )

    def _one(self, image: Tensor, known: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Depth [1,H,W], validity and intrinsics [1,3,3] of one picture [1,3,H,W]."""
        device = next(self.net.parameters()).device
        with full_precision(), torch.autocast(device.type, enabled=False):
            out = self.net(self.prepare(image.to(device)))
        raw = torch.nan_to_num(out.predicted_depth.float(), 0.0, 0.0, 0.0).clamp_min(0)
        size = (image.shape[-2], image.shape[-1])
        matrix = self._intrinsics(out, size) if known is None else known
        matrix = matrix.to(device)
        if self.meaning == "metres":
            depth = resized_depth(raw, size, inverse=False)
            valid = depth > 0
        else:
            depth, valid = self._inverted(resized_depth(raw, size, inverse=True), matrix)
        return depth.to(image.device), valid.to(image.device), matrix[None].to(image.device)

    def _inverted(self, inverse: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
        if self.meaning == "canonical-inverse":
            inverse = inverse * (inverse.shape[-1] / matrix[0, 0])
            least = inverse.new_tensor(_LEAST_INVERSE)
            return 1 / torch.maximum(inverse, least), inverse > least
        some = inverse[inverse > 0]
        least = (quantile(some, 0.5) if len(some) else inverse.new_ones(())) / FARTHEST
        depth, valid = 1 / torch.maximum(inverse, least), inverse > least
        return depth / (quantile(depth[valid], 0.5) if bool(valid.any()) else 1.0), valid

    def _intrinsics(self, out: Any, size: tuple[int, int]) -> Tensor:
        """[3,3] from the network's own field of view across, else from the default one."""
        height, width = size
        matrix = torch.from_numpy(default_intrinsics(height, width)).float()
        field = getattr(out, "field_of_view", None)
        if field is not None:
            half = math.radians(float(field.flatten()[0])) / 2
            # Nonsense becomes a focal length that the caller's check refuses, not a failure here.
            focal = width / 2 / math.tan(half) if 0 < half < math.pi / 2 else 1e-3
            matrix[0, 0] = matrix[1, 1] = focal
        return matrix


def load_monocular(folder: MonocularFolder, device: torch.device | str = "cpu") -> Estimator:
    """The network of ``folder`` in float32, ready to estimate; only safetensors are read.

    Raises:
        WeightsError: weights are missing, misshaped or unreadable, or the configuration is wrong.
    """
    prepare = depth_input(folder.path, folder.config)
    net = _network(folder).to(device).eval().requires_grad_(False)
    return MonocularEstimator(net, prepare, folder.meaning, folder.name)


def _network(folder: MonocularFolder) -> nn.Module:
    from transformers import AutoModelForDepthEstimation

    try:
        with quiet_loading():
            net, report = AutoModelForDepthEstimation.from_pretrained(
                folder.path,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except Exception as error:  # the library raises many kinds for one broken file
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise WeightsError(
            f"The depth network in {folder.path} cannot be loaded ({reason}); download it again."
        ) from error
    for fault in ("missing_keys", "mismatched_keys"):
        if report.get(fault):
            names = sorted(str(key) for key in report[fault])
            raise WeightsError(
                f"The weights in {folder.path} have {fault.replace('_', ' ')}: "
                f"{', '.join(names[:4])} ({len(names)} in all); download them again."
            )
    assert isinstance(net, nn.Module)
    return net


def resized_depth(values: Tensor, size: tuple[int, int], *, inverse: bool) -> Tensor:
    """Depth or inverse depth [N,h,w] at another ``size``: bilinear, but nearest where depth jumps.

    Bilinear keeps planes planes in inverse depth; across a jump it would invent points between.
    """
    if values.shape[-2:] == tuple(size):
        return values
    depth = 1 / values.clamp_min(1e-6) if inverse else values
    jumps = depth_edge(depth, rtol=_EDGE)[:, None].float()
    nearest = functional.interpolate(values[:, None], size, mode="nearest-exact")
    smooth = functional.interpolate(values[:, None], size, mode="bilinear")
    jumps = functional.interpolate(jumps, size, mode="nearest-exact")
    return torch.where(jumps > 0, nearest, smooth)[:, 0]


def announcement(folder: MonocularFolder, say: Callable[[str], None]) -> None:
    """Tell the user what is assumed about the depth of ``folder``, and what its licence rules out.

    ``say`` gets one sentence a call.
    """
    if folder.meaning == "relative-inverse":
        say(
            f"{folder.name} gives inverse depth up to scale and shift: the shift is taken as zero "
            "(what it calls zero is infinitely far) and the median depth as 1."
        )
    if folder.licence is not None and (text := folder.licence.note(f"geometry {folder.name}")):
        say(text)
