"""Cameras of a clip from features and depth, for models whose geometry network sees no motion.

Features of a frame, lifted with its estimated depth, are found again in the next ones; the camera
that sees them there is solved for (PnP). When too few are left the last frame that was placed takes
over. As everywhere, what moves by itself is outvoted by what stands still.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from flythrough.errors import GeometryError
from flythrough.evaluation.pose import FirstView
from flythrough.geometry.types import Geometry

_FEW = 0.5
"""Share of the inliers of a view's first frame below which the next view takes over."""
_LONGEST = 12
"""Frames after which it does so anyway."""


def placed_by_features(frames: np.ndarray, found: Geometry) -> Geometry:
    """The depth of ``found`` with cameras measured in the frames uint8 [T,H,W,3].

    All depth is of one estimate, so that its unit is the same in every view that takes over.

    Raises:
        GeometryError: a frame shares too little with the ones before it.
        InputError: OpenCV is not installed.
    """
    matrix = found.intrinsics[0].double().cpu().numpy()
    depth, valid = found.depth, found.valid
    poses = np.tile(np.eye(4), (len(frames), 1, 1))
    view, key, most = _view(frames, depth, valid, matrix, 0), 0, 0
    for n in range(1, len(frames)):
        camera, inliers = view.camera(frames[n])
        most = most or inliers
        worn = camera is None or inliers < _FEW * most or n - key >= _LONGEST
        if worn and n - 1 > key:
            key = n - 1
            view, most = _view(frames, depth, valid, matrix, key), 0
            camera, most = view.camera(frames[n])
        if camera is None:
            raise GeometryError(
                f"The camera of frame {n} cannot be found, because too few features of frame {key} "
                "are seen in it; give --camera FILE, or a clip with slower motion and more texture."
            )
        poses[n] = poses[key] @ camera
    cameras = torch.from_numpy(poses).to(found.depth)
    return replace(found, world_from_camera=cameras)


def _view(
    frames: np.ndarray,
    depth: torch.Tensor,
    valid: torch.Tensor,
    matrix: np.ndarray,
    number: int,
) -> FirstView:
    known = torch.where(valid[number], depth[number], 0.0).double().cpu().numpy()
    return FirstView(frames[number], known, matrix)
