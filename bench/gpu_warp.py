"""Everything about the conditioning path on one GPU: equal to the CPU first, then speed, profiles.

    python bench/gpu_warp.py FOLDER [--only NAMES] [--seconds 520]

Rows go to FOLDER/warp.json as soon as each is known; a section that fails is a row with its
traceback. Profiles are text files beside it. No weights are read: all are random, drawn on the
device. Sections that would begin after --seconds are left out and named.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from flythrough.bench import attention_plans, suites, warp
from flythrough.bench.clock import median_seconds, synchronise
from flythrough.bench.forwards import relative_gap
from flythrough.bench.profiles import Profile
from flythrough.bench.random_model import add_random_adapter
from flythrough.bench.rows import Figures
from flythrough.bench.sections import SectionRun, start
from flythrough.bench.warp import FULL, LIVE, Material, material
from flythrough.bench.warp_scene import SceneGeometry, random_pi3x
from flythrough.conditioning.visibility import visibility_to_latent
from flythrough.geometry.align import depth_scale
from flythrough.geometry.types import Geometry
from flythrough.models.adapters import set_lora_active
from flythrough.models.fast.denoiser import FastDenoiser
from flythrough.models.fast.fp8 import quantise_blocks
from flythrough.models.fast.settings import FastSettings
from flythrough.models.history_tokens import kept_tokens
from flythrough.scene import mesh_draw
from flythrough.scene.backdrop import far_backdrop
from flythrough.scene.keyframe_choice import drawn_keyframes
from flythrough.scene.mesh_draw import Part
from flythrough.scene.mesh_memory import MeshMemory
from flythrough.scene.rendered import RenderedView
from flythrough.scene.settings import WarpSettings
from flythrough.scene.surface import Keyframe, mesh_of

RENDERINGS = {
    "default": FULL,
    "realtime": LIVE,
    "joint": replace(FULL, keyframes="joint", samples_per_axis=2),
    "layered": replace(FULL, keyframes="layered", samples_per_axis=2),
    "splat": replace(FULL, render_mode="splat"),
    "wide holes": replace(FULL, fill_radius=2, fill_min_neighbors=6),
    "tint": replace(FULL, background="tint"),
    "atlas": replace(FULL, background="atlas"),
    "reference": replace(FULL, reference=True, samples_per_axis=2),
}


@dataclass
class Run(SectionRun):
    """The measurement under way."""


def on(keyframe: Keyframe, device: str | torch.device) -> Keyframe:
    """The same keyframe elsewhere."""
    return Keyframe(keyframe.image.to(device), keyframe.geometry.to(device))


def few(given: Material) -> tuple[Tensor, Tensor]:
    """Three cameras of the chunk, which a CPU draws in time."""
    return given.cameras[::16], given.intrinsics[::16]


def correctness(run: Run) -> None:
    """The device against the CPU, at the full size."""
    bench, given = run.bench, material(run.bench)
    size = (bench.size.height, bench.size.width)
    poses, matrices = few(given)
    here, there = given.drawn(), [on(keyframe, "cpu") for keyframe in given.drawn()]

    def render(keyframes: Any, settings: WarpSettings, where: str) -> RenderedView:
        cameras = (poses.to(where), matrices.to(where))
        return MeshMemory(tuple(keyframes)).render(*cameras, size, settings)

    def compared(settings: WarpSettings, count: int) -> Figures:
        ours = render(here[-count:], settings, str(bench.device))
        again = render(here[-count:], settings, str(bench.device))
        twin = render(there[-count:], settings, "cpu")
        seen, wanted = ours.visible.cpu() > 0.5, twin.visible > 0.5
        both = seen & wanted
        off = (ours.rgb.cpu() - twin.rgb).abs().amax(1)
        deep = ((ours.depth.cpu() - twin.depth).abs() / twin.depth.clamp_min(1e-3))[both]
        same = float((seen == wanted).float().mean())
        figures = {
            "mask_equal_share": same,
            "seen": float(wanted.float().mean()),
            "colour_mean": float(off.mean()),
            "colour_off_share": float((off > 1 / 255).float().mean()),
            "depth_mean": float(deep.mean()),
            "repeats": all(
                torch.equal(getattr(ours, n), getattr(again, n)) for n in ("rgb", "depth")
            ),
        }
        good = same >= 0.999 and figures["colour_off_share"] <= 0.02 and figures["repeats"]
        return {**figures, "good": bool(good)}

    for name, settings in RENDERINGS.items():
        for count in (1, 3):
            run.row(
                f"correct render {name}, {count} keyframe(s)",
                partial(compared, settings, count),
            )

    def scene() -> Figures:
        one, other = given.keyframes[0], on(given.keyframes[0], "cpu")
        found: dict[str, Any] = {}
        a, b = mesh_of(one, FULL), mesh_of(other, FULL)
        found["mesh_equal_share"] = float((a.whole.cpu() == b.whole).float().mean())
        sky = [far_backdrop(k.geometry.depth[0], k.geometry.valid[0]) for k in (one, other)]
        found["sky_equal"] = torch.equal(sky[0].filled.cpu(), sky[1].filled)
        found["sky_depth_equal"] = torch.equal(sky[0].depth.cpu(), sky[1].depth)
        fits = []
        for where in (bench.device, torch.device("cpu")):
            first, last = (given.keyframes[n].geometry.to(where) for n in (0, 2))
            last = Geometry(**{**vars(last), "depth": 1.3 * last.depth + 0.1})
            fits.append(depth_scale(first.depth[0], first.valid[0], last.depth[0], last.valid[0]))
        found["scales"] = [float(fit.scale) for fit in fits]
        found["counts"] = [fit.count for fit in fits]
        many = material(bench, 12).keyframes
        chosen = [
            [
                [k is m for m in row].index(True)
                for k in drawn_keyframes(row, FULL, poses.to(where), matrices.to(where), size)
            ]
            for where, row in (
                (str(bench.device), many),
                ("cpu", [on(keyframe, "cpu") for keyframe in many]),
            )
        ]
        found["chosen"] = chosen
        latent = (size[0] // 8, size[1] // 8)
        frames = torch.zeros(33, *size)
        frames[..., : round(0.7 * size[1])] = 1
        kept = [
            kept_tokens(visibility_to_latent(frames[None].to(where), latent), (1, 2, 2), 0.1).cpu()
            for where in (bench.device, "cpu")
        ]
        found["tokens_equal"] = torch.equal(*kept)
        return found

    run.row("correct mesh, sky, scale, choice, tokens", scene)


def kernels(run: Run) -> None:
    """The drawing kernels against the plain z-buffer on the same device, and block sizes."""
    if run.bench.device.type != "cuda" or not mesh_draw._has_triton():
        run.row("kernels", lambda: {"left_out": "no Triton or no GPU"})
        return
    from flythrough.scene import triton_raster
    from flythrough.scene.mesh import joined
    from flythrough.scene.raster import splat

    bench, given = run.bench, material(run.bench)
    size = (bench.size.height, bench.size.width)
    drawn = given.drawn()
    some = [Part(mesh_of(k, FULL), n, k.image) for k, n in ((drawn[0], 1), (drawn[-1], 4))]
    device = bench.device

    def gap() -> Figures:
        poses, matrices = few(given)
        ours = triton_raster.draw_grids(some, poses, matrices, size)
        twin = splat(
            joined([part.mesh.sampled(part.per_axis) for part in some]), poses, matrices, size
        )
        same = (ours.seen == twin.seen) & (ours.source == twin.source)
        same &= torch.isclose(ours.source_xy, twin.source_xy).all(-1)
        return {
            "same_sample_share": float(same.float().mean()),
            "depth_gap": relative_gap(ours.depth[same], twin.depth[same]),
            "colour_gap": relative_gap(ours.rgb[same], twin.rgb[same]),
        }

    def block(width: int) -> Figures:
        with patch.object(triton_raster, "_BLOCK", width):
            median, _, first = median_seconds(
                lambda: triton_raster.draw_grids(some, given.cameras, given.intrinsics, size),
                device,
                10,
                2,
            )
        return {"ms": round(1e3 * median, 2), "first_ms": round(1e3 * first)}

    run.row("kernel against plain z-buffer", gap)
    for width in (64, 128, 256):
        run.row(f"kernels, 33 frames, {width} cells a program", partial(block, width))


def plain_rows(run: Run) -> None:
    """Rendering as it is without Triton."""
    bench, given = run.bench, material(run.bench)
    size = (bench.size.height, bench.size.width)

    def render(keyframes: tuple[Keyframe, ...]) -> RenderedView:
        return MeshMemory(keyframes).render(given.cameras, given.intrinsics, size, FULL)

    with patch.object(mesh_draw, "_has_triton", lambda: False):
        for name, keyframes in (("first", given.keyframes[:1]), ("later", given.drawn())):
            label = f"render, {name} chunk, without Triton"
            warp.timed(bench, label, partial(render, keyframes))


def profile(run: Run, name: str, work: Callable[[], object]) -> None:
    """Kernels of one call, longest first."""
    table = Profile(work, run.bench.device).table()
    (run.folder / f"profile-{name}.txt").write_text(table)


def profiles(run: Run) -> None:
    """Rendering a later chunk, and geometry."""
    given = material(run.bench)
    size = (run.bench.size.height, run.bench.size.width)
    memory = MeshMemory(given.drawn())
    profile(run, "render", lambda: memory.render(given.cameras, given.intrinsics, size, FULL))
    estimator = SceneGeometry(random_pi3x(run.bench.size, run.bench.device)).inner
    assert estimator is not None
    image, matrix = given.keyframes[0].image[None], given.intrinsics[:1]
    profile(run, "geometry", lambda: estimator.estimate(image, intrinsics=matrix))


def whole(run: Run) -> None:
    """The last rows need the whole denoiser: switching the adapter, and the realtime latency."""
    bench = run.bench
    net = bench.denoiser()
    add_random_adapter(net)

    def switch() -> Figures:
        before = torch.cuda.memory_allocated() if bench.device.type == "cuda" else 0
        fast = FastDenoiser(net)
        taken: dict[str, list[float]] = {"on": [], "off": []}
        for _ in range(4):
            for name, active in (("on", True), ("off", False)):
                begun = time.perf_counter()
                set_lora_active(net, suites.CAMERA, active)
                fast._block_products(net.dtype)
                synchronise(bench.device)
                taken[name].append(round(1e3 * (time.perf_counter() - begun), 2))
        after = torch.cuda.memory_allocated() if bench.device.type == "cuda" else 0
        return {
            "on_ms": min(taken["on"]),
            "off_ms": min(taken["off"]),
            "first_on_ms": taken["on"][0],
            "kept_gib": round((after - before) / 2**30, 2),
        }

    run.row("adapter switched on and off", switch)
    geometry = random_pi3x(bench.size, bench.device)
    warp.latency(bench, net, geometry)
    warp.latency(bench, net, geometry, ", torch's attention", FastSettings(attention="sdpa"))
    quantise_blocks(net.blocks)
    for word, settings in suites.eight_bit_settings(bench.device).items():
        warp.latency(bench, net, geometry, f" {word}", settings)


def main() -> None:
    run = start(Run, __doc__ or "", "warp.json")
    bench = run.bench
    run.section("kernels", lambda: kernels(run))
    run.section("correctness", lambda: correctness(run))
    run.section("conditioning", lambda: warp.conditioning(bench))
    run.section("without Triton", lambda: plain_rows(run))
    run.section("profiles", lambda: profiles(run))
    run.section("lengths", lambda: attention_plans.lengths(bench))
    run.section("planning", lambda: attention_plans.beside_encoding(bench))
    run.section("attention", lambda: attention_plans.variants(bench))
    run.section("whole", lambda: whole(run))
    run.end()


if __name__ == "__main__":
    main()
