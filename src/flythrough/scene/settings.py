"""How meshes are cut, sampled, rendered and filled (Warp-as-History specification 2 and 12)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flythrough.errors import InputError


@dataclass(frozen=True, kw_only=True)
class WarpSettings:
    """``samples_per_axis``: points a mesh cell is sampled with along each axis. ``mesh_break``: cut
    where both depth (``depth_rtol``) and normals (``normal_tol_deg``) jump. ``render_mode``: small
    holes are closed (``target_fill``: a pixel with at least ``fill_min_neighbors`` seen neighbours
    within ``fill_radius``) or left (``splat``). ``fill``: the colour of unseen pixels.
    ``confidence``: pixels must exceed it. ``top_fill``: invalid regions at the upper border (sky)
    become a far backdrop. ``quantise``: round sampled colours down to 8 bit, as the published code.
    """

    samples_per_axis: int = 4
    mesh_break: Literal["depth_normal", "none"] = "depth_normal"
    depth_rtol: float = 0.03
    normal_tol_deg: float = 5.0
    render_mode: Literal["target_fill", "splat"] = "target_fill"
    fill_radius: int = 1
    fill_min_neighbors: int = 4
    fill: Literal["mean_first_frame", "black"] = "mean_first_frame"
    confidence: float = 0.1
    top_fill: bool = True
    quantise: bool = False

    def __post_init__(self) -> None:
        choices = {
            "mesh_break": ("depth_normal", "none"),
            "render_mode": ("target_fill", "splat"),
            "fill": ("mean_first_frame", "black"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise InputError(
                    f"The warp setting {name} is {getattr(self, name)!r}; use one of {allowed}."
                )
        if self.samples_per_axis < 1 or self.fill_radius < 0 or self.fill_min_neighbors < 1:
            raise InputError(
                f"Warp settings {self.samples_per_axis} samples, radius {self.fill_radius}, "
                f"{self.fill_min_neighbors} neighbours are out of range; use at least 1, 0 and 1."
            )
