"""The scene seen so far, as keyframes derived from a rollout, rendered into the next cameras.

Keyframes are the photo and the last frames of chunks. Their cameras are the ones that were asked
for, so nothing drifts by re-estimation; a keyframe's depth is scaled to agree with what earlier
keyframes show from there (Warp-as-History section 3, corrected as in its 13.3). Drawn are the
photo, the newest, and the older ones that add most to that for the next cameras.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from flythrough.generators.joint_keyframes import (
    Boundary,
    joint_keyframes,
    published_view,
)
from flythrough.generators.warp import WarpClip
from flythrough.geometry.align import depth_scale, status_of
from flythrough.geometry.estimator import Estimator
from flythrough.geometry.joint import check_views
from flythrough.geometry.types import Geometry
from flythrough.models.placing import current
from flythrough.models.uploads import uploaded
from flythrough.rollout.chunk import Chunk, ChunkRequest
from flythrough.rollout.rollout import Rollout
from flythrough.scene.keyframe_choice import cells_in_view, drawn_keyframes, most_added
from flythrough.scene.memory import SceneMemory
from flythrough.scene.mesh import NoSurfaceError
from flythrough.scene.mesh_memory import MeshMemory
from flythrough.scene.rendered import RenderedView
from flythrough.scene.settings import WarpSettings
from flythrough.scene.splat_memory import scene_memory
from flythrough.scene.surface import Keyframe, repaired

_POOL = 16
"""Newest chunks whose last frames are kept to choose from."""
_REMEMBERED = 4

Keyframes = tuple[Keyframe, ...]


class KeyframeMemory:
    """Derives the scene memory of a rollout and renders warps from it.

    What is remembered between calls only saves time: every warp is a function of the rollout and
    the request.

    Args:
        estimator: depth for the photo and, unless ``photo_only``, for boundary frames.
        settings: how meshes are cut, sampled and filled, and which keyframes are drawn.
        photo_only: keep the photo as the only keyframe (its depth was given, not estimated).
        notify: told, once each, what had to be done without.

    Raises:
        GeometryError: keyframes shall be estimated together but the estimator takes too few views.
    """

    def __init__(
        self,
        estimator: Estimator,
        settings: WarpSettings,
        device: torch.device,
        photo_only: bool = False,
        notify: Callable[[str], None] | None = None,
    ) -> None:
        if settings.estimation == "joint" and not photo_only:
            check_views(estimator, settings.older_keyframes + 2)
        self.estimator, self.settings = estimator, settings
        self._notify, self._said = notify, set[str]()
        self.device, self.photo_only = device, photo_only
        self._photo_known = lru_cache(maxsize=2)(self._first)
        self._known: OrderedDict[tuple[str, ...], Keyframes] = OrderedDict()
        self._scene: tuple[Keyframes, SceneMemory] | None = None
        self._fits: list[tuple[str, Tensor]] = []

    def photo_geometry(self, rollout: Rollout) -> Geometry:
        """Geometry of the photo at the origin, estimated once.

        Raises:
            GeometryError: it has no surface that could be rendered, whatever was tried.
        """
        return self._photo(rollout).geometry

    def warp(self, rollout: Rollout, request: ChunkRequest) -> WarpClip:
        """What the request's cameras see of the memory."""
        assert request.world_from_camera is not None
        assert request.intrinsics is not None
        with current(self.device):
            view = self._view(rollout, request.world_from_camera, request.intrinsics)
            blind = ~(view.visible > 0.5).flatten(1).any(1).all()
        if self._tell_fits(blind) and self.settings.memory != "none":  # asked for otherwise
            self._say(
                f"chunk {request.index + 1}: some cameras see nothing of what is known; those "
                "frames are invented."
            )
        return WarpClip(rgb=view.rgb, visible=view.visible)

    def known_share(self, rollout: Rollout, poses: np.ndarray, matrices: np.ndarray) -> np.ndarray:
        """[T] share of the picture that all keyframes so far let each camera see, from a rendering
        of an eighth of the size; ``matrices`` [T,3,3] are in pixels of the full size."""
        height, width = rollout.size[0] // 8, rollout.size[1] // 8
        scale = np.diag([width / rollout.size[1], height / rollout.size[0], 1.0])
        coarse = replace(self.settings, samples_per_axis=1, background="none", reference=False)
        view = MeshMemory(self.keyframes(rollout)).render(
            self._tensor(poses), self._tensor(scale @ matrices), (height, width), coarse
        )
        return np.asarray(view.visible.flatten(1).mean(1).cpu().numpy())

    def cells_seen(self, rollout: Rollout, poses: np.ndarray, matrices: np.ndarray) -> np.ndarray:
        """[T] share of the picture's 16-pixel cells with points of any keyframe, hidden or not:
        less exact than :meth:`known_share` and nearly free."""
        cameras, intrinsics = self._tensor(poses), self._tensor(matrices)
        held = [
            cells_in_view(keyframe, cameras, intrinsics, rollout.size)
            for keyframe in self.keyframes(rollout)
        ]
        return np.asarray(torch.stack(held).any(0).float().mean(1).cpu().numpy())

    def keyframes(self, rollout: Rollout) -> Keyframes:
        """The photo and the last frames of the newest chunks, oldest first, in the photo's world
        and unit: those from which the drawn ones are chosen."""
        known = self._derived(rollout)
        if self._fits:
            self._tell_fits(torch.zeros((), dtype=torch.bool, device=self.device))
        return known

    def _derived(self, rollout: Rollout) -> Keyframes:
        if self.photo_only or not rollout.chunks:
            return (self._photo(rollout),)
        if self.settings.estimation == "joint":
            return self._joint(rollout)
        return self._folded(rollout)

    def _view(self, rollout: Rollout, poses: np.ndarray, matrices: np.ndarray) -> RenderedView:
        settings = self.settings
        later = bool(rollout.chunks)
        if later and not self.photo_only and settings.reference and settings.estimation == "joint":
            boundaries = self._boundaries(rollout)
            return published_view(self.estimator, self._photo(rollout), boundaries, poses, settings)
        cameras, intrinsics = self._tensor(poses), self._tensor(matrices)
        size = rollout.size
        if settings.memory == "none":
            nothing = scene_memory((self._photo(rollout),), settings)
            return nothing.render(cameras, intrinsics, size, settings, first_is_photo=not later)
        known = self._derived(rollout)
        drawn = drawn_keyframes(known, settings, cameras, intrinsics, size)
        if self._scene is None or not _same(self._scene[0], drawn):
            self._scene = drawn, scene_memory(drawn, settings)
        return self._scene[1].render(cameras, intrinsics, size, settings, first_is_photo=not later)

    def _folded(self, rollout: Rollout) -> Keyframes:
        """The photo and boundary frames, each fitted to those before it. Where no older ones are
        drawn only the newest is needed."""
        assert rollout.start is not None
        chunks = rollout.chunks if self.settings.older_keyframes else rollout.chunks[-1:]
        names = (rollout.start.digest(), *(chunk.digest() for chunk in chunks))
        done = next((n for n in range(len(names), 1, -1) if names[:n] in self._known), 1)
        known = self._known[names[:done]] if done > 1 else (self._photo(rollout),)
        for chunk in chunks[done - 1 :]:
            known = self._grown(known, chunk)
            known = (known[0], *known[1:][-_POOL:])
        self._known[names] = known
        self._known.move_to_end(names)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return known

    def _grown(self, known: Keyframes, chunk: Chunk) -> Keyframes:
        """``known`` and the last frame of ``chunk``, its depth fitted to what they show there."""
        boundary = self._boundary(chunk)
        camera, matrix = boundary.camera
        own = self.estimator.estimate(boundary.image[None], intrinsics=matrix).placed(camera)
        what = f"chunk {chunk.request.index + 1}: its last frame"
        usable = self._if_usable(Keyframe(boundary.image, own), what)
        if not usable:
            return known
        own = usable[0].geometry
        older = most_added(
            known[1:], known[:1], self.settings.older_keyframes, camera, matrix, own.size
        )
        around = MeshMemory((known[0], *(known[1 + place] for place in older)))
        bare = replace(self.settings, background="none")
        shown = around.render(camera, matrix, own.size, bare)
        seen = shown.visible[0] > 0.5
        fitted = depth_scale(shown.depth[0], seen, own.depth[0], own.valid[0])
        self._fits.append((what, fitted.facts))
        return (*known, replace(usable[0], geometry=own.with_depth_scaled(fitted.scale)))

    def _joint(self, rollout: Rollout) -> Keyframes:
        found = joint_keyframes(self.estimator, self._photo(rollout), self._boundaries(rollout))
        newest = len(rollout.chunks)
        self._fits.append((f"chunk {newest}: the joint estimate", found.fitted.facts))
        kept = [found.keyframes[0]]
        for number, keyframe in enumerate(reversed(found.keyframes[1:])):
            what = f"chunk {newest - number}: its last frame"
            kept[1:1] = self._if_usable(keyframe, what)
        return tuple(kept)

    def _boundaries(self, rollout: Rollout) -> list[Boundary]:
        """The newest boundary frames, oldest first, as many as are drawn."""
        count = self.settings.older_keyframes + 1
        return [self._boundary(chunk) for chunk in rollout.chunks[-count:]]

    def _boundary(self, chunk: Chunk) -> Boundary:
        request = chunk.request
        assert request.world_from_camera is not None
        assert request.intrinsics is not None
        image = self._image(chunk.frames[-1])
        return Boundary(image, request.world_from_camera[-1], request.intrinsics[-1])

    def _photo(self, rollout: Rollout) -> Keyframe:
        assert rollout.start is not None
        image, matrix = rollout.start.image, rollout.start.intrinsics
        return self._photo_known(image.tobytes(), image.shape, matrix.tobytes())

    def _first(self, pixels: bytes, shape: tuple[int, ...], intrinsics: bytes) -> Keyframe:
        image = self._image(np.frombuffer(pixels, dtype=np.uint8).reshape(shape))
        matrix = self._tensor(np.frombuffer(intrinsics, dtype=np.float64).reshape(1, 3, 3))
        geometry = self.estimator.estimate(image[None], intrinsics=matrix)
        return self._surfaced(Keyframe(image, geometry), "the photo")

    def _surfaced(self, keyframe: Keyframe, what: str) -> Keyframe:
        return repaired(keyframe, self.settings, lambda text: self._say(f"{what}: {text}."))

    def _if_usable(self, keyframe: Keyframe, what: str) -> Keyframes:
        """The keyframe as far as it has a surface, or nothing."""
        try:
            return (self._surfaced(keyframe, what),)
        except NoSurfaceError:
            self._say(f"{what} has no depth that could be used and is not remembered.")
            return ()

    def _tell_fits(self, flag: Tensor) -> bool:
        """Say how depths were fitted since the last time; ``flag`` (a bool on the device) comes
        back in the same transfer, the only one a warp waits for after it is rendered."""
        fits, self._fits = self._fits, []
        *facts, last = torch.cat([*(facts for _, facts in fits), flag.double()[None]]).tolist()
        for number, (what, _) in enumerate(fits):
            scale, count, outside = facts[3 * number : 3 * number + 3]
            status = status_of((scale, count, outside))
            if status == "no_valid_overlap":
                self._say(
                    f"{what} shows nothing of what is known; its depth keeps the network's own "
                    "scale."
                )
            elif status == "clamped":
                self._say(
                    f"{what} differs more than tenfold in scale from what is known; its depth is "
                    f"taken times {scale:g} only."
                )
        return bool(last)

    def _say(self, text: str) -> None:
        if self._notify is not None and text not in self._said:
            self._said.add(text)
            self._notify(text)

    def say_again(self) -> None:
        """Another video begins: what was said of the last one may be said of it too."""
        self._said.clear()

    def _image(self, array: np.ndarray) -> Tensor:
        return self._tensor(array).permute(2, 0, 1) / 255

    def _tensor(self, array: np.ndarray) -> Tensor:
        return uploaded(array, self.device)


def _same(some: Keyframes, others: Keyframes) -> bool:
    """Whether they are the very same keyframes, so that a fit to them can be used again."""
    return len(some) == len(others) and all(a is b for a, b in zip(some, others, strict=True))
