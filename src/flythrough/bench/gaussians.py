"""The Gaussian cache on one view of a rendered world: how long it takes, and how well it fits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from flythrough.bench.clock import reset_peak, seconds
from flythrough.bench.forwards import relative_gap
from flythrough.geometry.types import Geometry, ScaleKind
from flythrough.scene.splat_fit import FitSettings, fitted
from flythrough.scene.splat_memory import GaussianMemory
from flythrough.scene.splat_raster import draw
from flythrough.scene.splat_render import drawn, renderer
from flythrough.scene.splats import Splats, splats_from
from flythrough.scene.surface import Keyframe
from flythrough.worlds.clips import ClipSettings, clip

WORLD = 9_000_203
"""A seed that training never draws."""
_PATH = "forward 0.3; pan right 10deg"
LEAST_PSNR = 30.0
"""dB that the fit has to reach at its own source."""


def source_view(size: tuple[int, int], device: torch.device, frames: int) -> tuple[Keyframe, Any]:
    """The first view of a room with exact depth, and a clip's cameras through it."""
    made = clip(WORLD, _PATH, frames, size, device=device, settings=ClipSettings(kind="room"))
    depth = made.depth[:1]
    geometry = Geometry(
        depth=depth.float(),
        confidence=torch.ones_like(depth).float(),
        valid=~made.sky[:1],
        world_from_camera=made.world_from_camera[:1].float().to(device),
        intrinsics=made.intrinsics[:1].float().to(device),
        scale=ScaleKind.METRIC,
    )
    cameras = (made.world_from_camera.float().to(device), made.intrinsics.float().to(device))
    return Keyframe(made.rgb[0].float(), geometry), cameras


def fit_row(
    size: tuple[int, int], steps: int, frames: int, per_source: int, device: torch.device
) -> dict[str, Any]:
    """Seconds of the fit (the second of two, the first warms up with a tenth) and of drawing
    ``frames`` views with their masks; PSNR at the source where depth is sure."""
    keyframe, (cameras, matrices) = source_view(size, device, frames)
    settings = FitSettings(steps=steps, per_source=per_source)
    fitted((keyframe,), replace(settings, steps=max(1, steps // 10)))
    reset_peak(device)
    kept: list[Splats] = []
    taken = seconds(lambda: kept.append(fitted((keyframe,), settings)), device)
    memory = GaussianMemory((keyframe,), fit=settings)
    vars(memory)["splats"] = kept[0]  # the value that the property would compute
    from flythrough.scene.settings import WarpSettings

    def render() -> None:
        memory.render(cameras, matrices, size, WarpSettings(memory="gaussian"))

    render()
    drawing = seconds(render, device)
    at_source = psnr_at(kept[0], keyframe)
    return {
        "renderer": renderer(device),
        "size": f"{size[0]}x{size[1]}",
        "gaussians": len(kept[0]),
        "fit_s": round(taken, 3),
        "step_ms": round(1000 * taken / max(1, steps), 2),
        "render_s": round(drawing, 3),
        "frames": frames,
        "source_psnr_db": round(at_source, 2),
        "good": at_source >= LEAST_PSNR,
    }


def psnr_at(splats: Splats, keyframe: Keyframe) -> float:
    """Of the drawing from the keyframe's own camera, where its depth is sure."""
    geometry = keyframe.geometry
    with torch.no_grad():
        view = drawn(splats, geometry.world_from_camera[0], geometry.intrinsics[0], geometry.size)
    off = (view.rgb.permute(2, 0, 1) - keyframe.image).square().mean(0)[geometry.valid[0]]
    return float(-10 * off.mean().clamp_min(1e-10).log10())


def device_against_cpu(device: torch.device) -> dict[str, Any]:
    """The same Gaussians drawn by PyTorch on the CPU, by PyTorch on the device and by what the
    device would use: largest difference of pictures, relative one of gradients."""
    keyframe, _ = source_view((96, 160), torch.device("cpu"), 4)
    start = splats_from((keyframe,), confidence=0.1, per_source=4000, most=10_000, seed=0)
    geometry = keyframe.geometry
    found: dict[str, Any] = {"renderer": renderer(device)}
    views: dict[str, tuple[Tensor, Tensor]] = {}
    for name, home, draws in (
        ("cpu", torch.device("cpu"), draw),
        ("torch", device, draw),
        ("used", device, drawn),
    ):
        tensors = {key: value.detach().to(home) for key, value in start.tensors().items()}
        splats = Splats(**tensors).trainable()
        camera, matrix = (
            part[0].to(home) for part in (geometry.world_from_camera, geometry.intrinsics)
        )
        view = draws(splats, camera, matrix, geometry.size)
        wanted = keyframe.image.permute(1, 2, 0).to(home)
        (view.rgb - wanted).square().mean().backward()
        assert splats.means.grad is not None
        views[name] = view.rgb.detach().cpu(), splats.means.grad.cpu()
    for name in ("torch", "used"):
        picture, gradient = views[name]
        found[f"{name}_picture_off"] = float((picture - views["cpu"][0]).abs().max())
        found[f"{name}_gradient_gap"] = relative_gap(gradient, views["cpu"][1])
    near = found["torch_picture_off"] < 2e-3 and found["torch_gradient_gap"] < 1e-2
    used = found["used_picture_off"] < 1e-4 and found["used_gradient_gap"] < 1e-3
    found["good"] = near and used
    return found
