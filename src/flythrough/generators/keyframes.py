"""The scene seen so far, as keyframes derived from a rollout, rendered into the next cameras.

Keyframes are the photo and the last frame of the newest chunk. Their cameras are the ones that were
asked for, so nothing drifts by re-estimation; the new keyframe's depth is scaled to agree with what
the photo's geometry shows from there (Warp-as-History section 3, corrected as in its 13.3).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from flythrough.generators.warp import WarpClip
from flythrough.geometry.align import depth_scale
from flythrough.geometry.estimator import Estimator
from flythrough.geometry.types import Geometry
from flythrough.rollout.chunk import Chunk, ChunkRequest
from flythrough.rollout.rollout import Rollout
from flythrough.scene.mesh_memory import MeshMemory
from flythrough.scene.settings import WarpSettings


class KeyframeMemory:
    """Derives the scene memory of a rollout and renders warps from it.

    Args:
        estimator: depth for the photo and, unless ``photo_only``, for boundary frames.
        settings: how meshes are cut, sampled and filled.
        photo_only: keep the photo as the only keyframe (its depth was given, not estimated).
        notify: told, once each, what had to be done without.
    """

    def __init__(
        self,
        estimator: Estimator,
        settings: WarpSettings,
        device: torch.device,
        photo_only: bool = False,
        notify: Callable[[str], None] | None = None,
    ) -> None:
        self.estimator, self.settings = estimator, settings
        self._notify, self._said = notify, set[str]()
        self.device, self.photo_only = device, photo_only
        self._estimated = lru_cache(maxsize=2)(self._estimate)

    def photo_geometry(self, rollout: Rollout) -> Geometry:
        """Geometry of the photo at the origin, estimated once."""
        assert rollout.start is not None
        return self._geometry(rollout.start.image, rollout.start.intrinsics)

    def warp(self, rollout: Rollout, request: ChunkRequest) -> WarpClip:
        """What the request's cameras see of the memory."""
        assert rollout.start is not None
        assert request.world_from_camera is not None
        assert request.intrinsics is not None
        cameras = self._tensor(request.world_from_camera)
        intrinsics = self._tensor(request.intrinsics)
        memory = self._photo_memory(rollout)
        if rollout.chunks and not self.photo_only:
            memory = self._with_boundary(memory, rollout, rollout.chunks[-1])
        view = memory.render(
            cameras, intrinsics, rollout.size, self.settings, first_is_photo=request.index == 0
        )
        if not bool((view.visible > 0.5).flatten(1).any(1).all()):
            self._say(
                f"chunk {request.index + 1}: some cameras see nothing of what is known; those "
                "frames are invented."
            )
        return WarpClip(rgb=view.rgb, visible=view.visible)

    def _say(self, text: str) -> None:
        if self._notify is not None and text not in self._said:
            self._said.add(text)
            self._notify(text)

    def say_again(self) -> None:
        """Another video begins: what was said of the last one may be said of it too."""
        self._said.clear()

    def _photo_memory(self, rollout: Rollout) -> MeshMemory:
        assert rollout.start is not None
        image = self._image(rollout.start.image)
        return MeshMemory().extended(image, self.photo_geometry(rollout))

    def _with_boundary(self, memory: MeshMemory, rollout: Rollout, chunk: Chunk) -> MeshMemory:
        request = chunk.request
        assert request.world_from_camera is not None
        assert request.intrinsics is not None
        pose = self._tensor(request.world_from_camera[-1:])
        intrinsics = self._tensor(request.intrinsics[-1:])
        frame = chunk.frames[-1]
        own = self._geometry(frame, request.intrinsics[-1]).placed(pose)
        known = memory.render(pose, intrinsics, rollout.size, self.settings)
        seen = known.visible[0] > 0.5
        fitted = depth_scale(known.depth[0], seen, own.depth[0], own.valid[0])
        if fitted.status != "ok":
            self._say(
                f"chunk {request.index + 1}: its last frame shares too little with what is known "
                f"({fitted.status.replace('_', ' ')}), so its depth keeps the network's own scale."
            )
        return memory.extended(self._image(frame), own.with_depth_scaled(fitted.scale))

    def _geometry(self, image: np.ndarray, intrinsics: np.ndarray) -> Geometry:
        return self._estimated(image.tobytes(), image.shape, intrinsics.tobytes())

    def _estimate(self, pixels: bytes, shape: tuple[int, ...], intrinsics: bytes) -> Geometry:
        array = np.frombuffer(pixels, dtype=np.uint8).reshape(shape)
        matrix = np.frombuffer(intrinsics, dtype=np.float64).reshape(1, 3, 3)
        images = self._image(array)[None]
        return self.estimator.estimate(images, intrinsics=self._tensor(matrix))

    def _image(self, array: np.ndarray) -> Tensor:
        return self._tensor(array).permute(2, 0, 1) / 255

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.array(array)).to(self.device, torch.float32)
