"""How the scene is remembered and rendered: meshes or Gaussians, cuts, samples, holes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from flythrough.errors import InputError

SceneKind = Literal["mesh", "gaussian", "points", "none"]

_LARGEST_RADIUS = 16
_LARGEST_WINDOW = (2 * _LARGEST_RADIUS + 1) ** 2


@dataclass(frozen=True, kw_only=True)
class WarpSettings:
    """Settings of the mesh warp; the defaults are those published with Warp-as-History.

    Attributes:
        samples_per_axis: points along each side of a mesh cell of the newest keyframe.
        older_samples_per_axis: the same for older keyframes.
        mesh_break: cut the mesh where both depth (by more than ``depth_rtol`` of itself) and
            normals (by more than ``normal_tol_deg`` degrees) jump, or nowhere.
        render_mode: ``target_fill`` closes small holes, ``splat`` leaves them.
        fill_radius, fill_min_neighbors: a hole is closed when at least so many pixels of the
            (2 radius + 1) squared window around it are seen; radius 0 closes none.
        fill: unseen pixels take the mean colour of the first keyframe, or black.
        confidence: depth pixels must exceed it; in [0, 1).
        top_fill: large invalid regions at the upper border (sky) become a far backdrop.
        keyframes: ``gaps`` draws the first and the newest keyframe into one z-buffer and those
            between them only where these show nothing, newest first; ``joint`` draws all into one
            z-buffer (published); ``layered`` lets the first keyframe that saw a place show it
            unless another has something clearly in front.
        older_keyframes: how many keyframes are drawn beside the photo and the newest, those that
            add most to what the coming cameras see.
        estimation: ``each`` keyframe's depth is estimated on its own and scaled to what the others
            show there; ``joint``: the photo and the newest ``older_keyframes`` + 1 are estimated in
            one call and scaled together.
        background: what unseen pixels show behind the meshes. ``none``: the fill colour; ``tint``:
            the colour that the keyframes' far background has in that direction; ``atlas``: the
            same, and it counts as seen (published).
        memory: what keyframes become. ``mesh``: triangles, as here described; ``gaussian``: a
            Gaussian cache fitted for every chunk (WorldWarp), for which ``confidence``,
            ``top_fill``, ``fill``, ``older_keyframes`` and ``estimation`` count as well;
            ``points``: one coloured point for each pixel (its ablation), to which the same
            applies; ``none``: nothing, so that all is invented (its other ablation). Scales of
            keyframes are fitted on meshes, cut as ``mesh_break`` says, with any.
        gaussian_steps: steps of that fit.
        reference: the published arithmetic and behaviour, to the bit: colours truncated to 8 bit,
            float64, holes filled with colours of the newest keyframe whatever keyframe their
            neighbours came from, older keyframes rated by their share in view, and with ``joint``
            estimation the estimated cameras. Slower; for comparisons.

    Raises:
        InputError: a value out of range.
    """

    samples_per_axis: int = 4
    older_samples_per_axis: int = 1
    mesh_break: Literal["depth_normal", "none"] = "depth_normal"
    depth_rtol: float = 0.03
    normal_tol_deg: float = 5.0
    render_mode: Literal["target_fill", "splat"] = "target_fill"
    fill_radius: int = 1
    fill_min_neighbors: int = 4
    fill: Literal["mean_first_frame", "black"] = "mean_first_frame"
    confidence: float = 0.1
    top_fill: bool = True
    keyframes: Literal["gaps", "joint", "layered"] = "gaps"
    older_keyframes: int = 1
    estimation: Literal["each", "joint"] = "each"
    background: Literal["none", "tint", "atlas"] = "none"
    memory: SceneKind = "mesh"
    gaussian_steps: int = 500
    reference: bool = False

    def __post_init__(self) -> None:
        choices = {
            "mesh_break": ("depth_normal", "none"),
            "render_mode": ("target_fill", "splat"),
            "fill": ("mean_first_frame", "black"),
            "keyframes": ("gaps", "joint", "layered"),
            "estimation": ("each", "joint"),
            "background": ("none", "tint", "atlas"),
            "memory": get_args(SceneKind),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise InputError(
                    f"The warp setting {name} is {getattr(self, name)!r}; choose "
                    f"{' or '.join(allowed)}."
                )
        closing = self.render_mode == "target_fill" and self.fill_radius > 0
        window = (2 * self.fill_radius + 1) ** 2 if closing else _LARGEST_WINDOW
        ranges = {
            "samples_per_axis": (1, 16),
            "older_keyframes": (0, 16),
            "older_samples_per_axis": (1, 16),
            "depth_rtol": (0.0, 10.0),
            "normal_tol_deg": (0.0, 180.0),
            "fill_radius": (0, _LARGEST_RADIUS),
            "fill_min_neighbors": (1, window),
            "confidence": (0.0, 0.999),
            "gaussian_steps": (0, 10_000),
        }
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise InputError(
                    f"The warp setting {name} is {getattr(self, name)} but must lie between {low} "
                    f"and {high}; choose a value in that range."
                )
        if self.memory != "mesh" and (self.reference or self.background != "none"):
            other = "reference" if self.reference else f"background {self.background}"
            raise InputError(
                f"The warp setting {other} has no effect with memory {self.memory}; drop one of "
                "the two."
            )
