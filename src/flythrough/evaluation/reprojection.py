"""Where the points of one view lie in another, and whether they are seen there, from depth maps."""

from __future__ import annotations

import numpy as np
import torch

from flythrough.evaluation.seam import Motion, motion_from_depth, moved

_FAR = 1e4  # times the median depth: where sky is put


def view_motion(
    from_depth: np.ndarray,
    from_pose: np.ndarray,
    to_depth: np.ndarray,
    to_pose: np.ndarray,
    intrinsics: np.ndarray,
) -> Motion:
    """For each pixel of one view its place in another one, and whether its point is seen there.

    Depths [H,W] are z-depth with 0 for sky, which counts as infinitely far; poses [4,4] are
    world_from_camera; intrinsics [3,3].

    Returns:
        Motion with ``pixels`` [1,2,H,W] and ``visible`` [1,H,W].
    """
    depth = np.stack([to_depth, from_depth]).astype(np.float64)
    known = depth[depth > 0]
    far = _FAR * (float(np.median(known)) if known.size else 1.0)
    return motion_from_depth(
        torch.from_numpy(np.where(depth > 0, depth, far)),
        torch.from_numpy(np.stack([to_pose, from_pose])),
        torch.from_numpy(np.stack([intrinsics, intrinsics])),
    )


def seen_from(
    depth: np.ndarray, world_from_camera: np.ndarray, intrinsics: np.ndarray, target: int
) -> np.ndarray:
    """Whether the point at each pixel of depth maps [T,H,W] is seen in frame ``target``: bool
    [T,H,W], to the precision of the depth maps."""
    there = depth[target], world_from_camera[target]
    seen = [
        view_motion(one, pose, *there, intrinsics).visible[0].numpy()
        for one, pose in zip(depth, world_from_camera, strict=True)
    ]
    return np.stack(seen)


def brought_over(picture: np.ndarray, motion: Motion) -> tuple[np.ndarray, np.ndarray]:
    """``picture`` uint8 [H,W,3] of the other view as it must look in this one: float64 [H,W,3] in
    [0,255], and where that is known [H,W] bool."""
    pixels = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float()
    taken = moved(pixels, motion.pixels)[0].permute(1, 2, 0)
    return taken.double().numpy(), motion.visible[0].numpy()
