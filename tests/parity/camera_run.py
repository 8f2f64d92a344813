"""The recorded camera run: its photo, path and geometry, and the warps of its chunks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from fake_views import FakeViews
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional

from flythrough.cameras import pose
from flythrough.generators.keyframes import KeyframeMemory
from flythrough.generators.warp import WarpClip
from flythrough.geometry.joint import without_edges
from flythrough.rollout.chunk import Chunk, ChunkRequest
from flythrough.rollout.rollout import Rollout, Start
from flythrough.rollout.spec import RolloutSpec
from flythrough.scene.mesh_memory import MeshMemory
from flythrough.scene.rendered import RenderedView
from flythrough.scene.settings import WarpSettings
from flythrough.scene.surface import Keyframe

PUBLISHED = WarpSettings(
    reference=True, estimation="joint", background="atlas", older_keyframes=16, keyframes="joint"
)
INNER, OUTPUT = (70, 154), (64, 128)

Picture = np.ndarray[Any, Any]
Stored = dict[str, Tensor]


def unit(picture: Tensor) -> Tensor:
    return picture.permute(2, 0, 1).float() / 255


class CameraRun:
    """The recorded run, with pictures at the size that the published renderer works at.

    Args:
        step: scene units of a unit of the path; None: a tenth of the photo's median depth.
    """

    def __init__(self, stored: Stored, step: float | None = None) -> None:
        cropped = ImageOps.fit(
            Image.fromarray(stored["image"].numpy()),
            (OUTPUT[1], OUTPUT[0]),
            Image.Resampling.LANCZOS,
        )
        self.cropped = np.array(cropped)
        self.photo = self.inner(torch.from_numpy(self.cropped))
        self.geometry = FakeViews().estimate(torch.zeros(1, 3, *INNER))
        self.matrix = self.geometry.intrinsics[0].double().numpy()
        depth = float(without_edges(self.geometry).median_depth())
        poses = stored["poses"].double().numpy()
        poses[:, :3, 3] *= 0.1 * depth if step is None else step
        self.poses = pose.relative_to_first(poses)

    @staticmethod
    def inner(picture: Tensor) -> Picture:
        """Published pictures go through [-1,1] and are resized as clips; another way round, one
        pixel in a thousand is a level off."""
        signed = 2 * unit(picture) - 1
        large = functional.interpolate(
            ((signed + 1) / 2)[None, :, None], (1, *INNER), mode="trilinear"
        )[0, :, 0]
        return (large * 255 + 0.5).floor().byte().permute(1, 2, 0).numpy()

    def rollout(self) -> Rollout:
        spec = RolloutSpec(
            method="warp-as-history",
            model="fake",
            model_digest="",
            height=INNER[0],
            width=INNER[1],
            fps=16.0,
            seed=0,
            prompt="",
            geometry="default",
            lora="off",
            settings={},
        )
        return Rollout(spec, Start(self.photo, self.matrix))

    def request(self, index: int) -> ChunkRequest:
        part = self.poses[33 * index : 33 * index + 33]
        return ChunkRequest(index, "", part, np.repeat(self.matrix[None], 33, 0))

    def appended(self, rollout: Rollout, boundary: Tensor) -> Rollout:
        """With a chunk whose last frame is ``boundary`` uint8 [H,W,3] of the output's size."""
        index = len(rollout.chunks)
        frames = np.repeat(self.inner(boundary)[None], 33, 0)
        latents = np.zeros((16, 9, 8, 19), np.float32)
        return rollout.appended(Chunk(self.request(index), latents, frames))


class CameraWarps:
    """Warps of the recorded run as the published renderer makes them (a ``WarpSource``).

    Args:
        keyframes: off: later chunks start afresh from the boundary frame and its own depth.
    """

    def __init__(
        self,
        run: CameraRun,
        settings: WarpSettings = PUBLISHED,
        *,
        keyframes: bool = True,
    ) -> None:
        self.run, self.settings, self.keyframes = run, settings, keyframes
        self.memory = KeyframeMemory(FakeViews(), settings, torch.device("cpu"))
        self.made: list[WarpClip] = []

    def warp(self, rollout: Rollout, request: ChunkRequest) -> WarpClip:
        """The clip as the published sampler takes it: after the first chunk, visibility begins with
        the boundary frame while colours do not, so that it is a frame late."""
        view = self.view([chunk.frames[-1] for chunk in rollout.chunks])
        visible = view.visible
        if request.index:
            visible = torch.cat([torch.ones(1, *OUTPUT), visible])[:33]
        self.made.append(WarpClip(rgb=view.rgb, visible=visible))
        return self.made[-1]

    def view(self, boundaries: list[Picture]) -> RenderedView:
        """The 33 frames after those boundary frames, uint8 [64,128,3], at the output's size."""
        pictures = [torch.from_numpy(np.array(picture)) for picture in boundaries]
        if pictures and not self.keyframes:
            return self._alone(pictures[-1], len(pictures)).resized(OUTPUT)
        rollout = self.run.rollout()
        for picture in pictures:
            rollout = self.run.appended(rollout, picture)
        clip = self.memory.warp(rollout, self.run.request(len(pictures)))
        none = torch.zeros_like(clip.visible)
        return RenderedView(clip.rgb, none, clip.visible).resized(OUTPUT)

    def _alone(self, boundary: Tensor, index: int) -> RenderedView:
        picture = unit(torch.from_numpy(self.run.inner(boundary)))
        first = 33 * index - 1
        poses = pose.relative_to_first(self.run.poses[first : first + 34])[1:]
        return MeshMemory((Keyframe(picture, self.run.geometry),)).render(
            torch.from_numpy(poses),
            self.run.geometry.intrinsics.expand(33, 3, 3),
            INNER,
            replace(self.settings, background="none"),
        )
