"""Meshes against Gaussians as scene memory, on held-out worlds: what the photo alone shows later.

    python bench/scene_memories.py [CASES] [HEIGHTxWIDTH] [STEPS,...] [exact|noisy]

Prints for every memory the PSNR of its warps against the world where it claims to see, the PSNR
where both memories do, its coverage of what the photo saw, the share of false claims (pixels that
the photo did not see), the share of WorldWarp's cells that its mask leaves, and seconds of
processor time for making and drawing it.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from flythrough.conditioning.noise_field import FieldSettings, valid_cells
from flythrough.evaluation.suite import CASES, Worlds
from flythrough.evaluation.truth import Case, Truth
from flythrough.geometry.estimators.oracle import OracleDepth, OracleError
from flythrough.models.catalog import find_model
from flythrough.scene.settings import WarpSettings
from flythrough.scene.splat_memory import scene_memory
from flythrough.scene.surface import Keyframe

_FRAMES = (8, 16, 24, 32)
_FIELD = FieldSettings(erosion=find_model("nano").defaults.worldwarp.erosion)
_NOISY = OracleError(smooth=0.03, noise=0.01, edge_blur=1, seed=3)


def photo(truth: Truth, *, noisy: bool) -> Keyframe:
    """Frame 0 with its true depth, or with depth as wrong as an estimate is."""
    assert truth.depth is not None
    depth = torch.from_numpy(truth.depth[:1].copy())
    image = torch.from_numpy(truth.frames[0].copy()).permute(2, 0, 1).float() / 255
    matrix = torch.from_numpy(truth.intrinsics).float()[None]
    oracle = OracleDepth(depth, matrix, error=_NOISY if noisy else None)
    return Keyframe(image, oracle.estimate(image[None]))


def measure(
    case: Case, size: tuple[int, int], steps: list[int], *, noisy: bool
) -> list[list[float]]:
    truth = Worlds().truth(case, size)
    assert truth.world_from_camera is not None
    assert truth.visible is not None
    keyframe = photo(truth, noisy=noisy)
    frames = list(_FRAMES)
    cameras = torch.from_numpy(truth.world_from_camera[frames]).float()
    matrices = keyframe.geometry.intrinsics.expand(len(frames), 3, 3)
    wanted = torch.from_numpy(truth.frames[frames].copy()).permute(0, 3, 1, 2).float() / 255
    known = torch.from_numpy(truth.visible[frames])
    plain = WarpSettings()
    choices = [plain] + [replace(plain, memory="gaussian", gaussian_steps=n) for n in steps]
    views, seconds = [], []
    for settings in choices:
        start = time.process_time()
        view = scene_memory((keyframe,), settings).render(cameras, matrices, size, settings)
        seconds.append(time.process_time() - start)
        views.append(view)
    both = torch.stack([view.visible > 0.5 for view in views]).all(0) & known
    rows = []
    for view, spent in zip(views, seconds, strict=True):
        seen = view.visible > 0.5
        rows.append(
            [
                psnr(view.rgb, wanted, seen & known),
                psnr(view.rgb, wanted, both),
                float((seen & known).sum() / known.sum()),
                float((seen & ~known).float().mean()),
                float(valid_cells(view.visible[:, None], _FIELD).float().mean()),
                spent,
            ]
        )
    return rows


def psnr(first: Tensor, second: Tensor, where: Tensor) -> float:
    error = (first - second).square().mean(1)[where].mean()
    return float(-10 * torch.log10(error.clamp_min(1e-10)))


def main() -> None:
    torch.set_num_threads(1)
    words = sys.argv[1:]
    count = int(words[0]) if words else len(CASES)
    height, width = (int(n) for n in (words[1] if len(words) > 1 else "96x160").split("x"))
    steps = [int(n) for n in (words[2] if len(words) > 2 else "200").split(",")]
    noisy = len(words) > 3 and words[3] == "noisy"
    names = ["mesh", *(f"gaussian {n}" for n in steps)]
    total = []
    for case in CASES[:count]:
        rows = measure(case, (height, width), steps, noisy=noisy)
        total.append(rows)
        for name, row in zip(names, rows, strict=True):
            print(case.name, name, *(f"{value:.3f}" for value in row), flush=True)
    for name, row in zip(names, np.mean(np.array(total), axis=0), strict=True):
        print("mean", name, *(f"{value:.3f}" for value in row), flush=True)


if __name__ == "__main__":
    main()
