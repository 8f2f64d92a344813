"""The video of each row: generated, rendered, or spoilt on purpose. One model serves all rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from flythrough import seeds
from flythrough.cameras import pose as se3
from flythrough.engine.request import GenerateRequest, check
from flythrough.engine.run import Job, advance, start_job
from flythrough.engine.sessions import Sessions
from flythrough.evaluation.rows import Row
from flythrough.evaluation.suite import EXACT, Truth
from flythrough.rollout.chunk import CHUNK_FRAMES, ChunkRequest

LATE = 8
SHUFFLED = 0.3

_FULL = Row("full", "", "generated")

Notify = Callable[[str], None]
Report = Callable[[float], None]
"""Told the finished share of one video."""


class VideoMaker:
    """Makes rows' videos of held-out clips.

    Args:
        model: name or folder; ``lora`` the adapter of the rows that use one.
        geometry: ``exact`` (the photo's true depth) or what ``--geometry`` of generate takes.
        inputs: folder for the photo and its depth, written once a clip.
        notify: told about fallbacks.
    """

    def __init__(
        self, model: str, lora: str, geometry: str, device: str, inputs: Path, notify: Notify
    ) -> None:
        self.model, self.lora, self.geometry, self.device = model, lora, geometry, device
        self.inputs = inputs
        self._said: set[str] = set()
        self._tell = notify
        self._sessions = Sessions(device, "auto", self._notify)

    def video(self, row: Row, truth: Truth, report: Report) -> np.ndarray:
        """The frames uint8 [T,H,W,3] of ``row``."""
        if row.kind == "generated":
            return self._generated(row, truth, report)
        makers: dict[str, Callable[[Truth], np.ndarray]] = {
            "truth": lambda truth: truth.frames,
            "codec": self._coded,
            "warp": lambda truth: self._warped(truth, truth.world_from_camera, self.geometry),
            "still": lambda truth: truth.frames[np.zeros(len(truth), int)],
            "half": lambda truth: self._warped(truth, halved(truth.world_from_camera), EXACT),
            "reversed": lambda truth: self._warped(
                truth, se3.inverse(truth.world_from_camera), EXACT
            ),
            "shifted": lambda truth: truth.frames[np.maximum(np.arange(len(truth)) - LATE, 0)],
            "shuffled": lambda truth: truth.frames[shuffled(len(truth), truth.case.seed)],
        }
        return makers[row.name](truth)

    def _generated(self, row: Row, truth: Truth, report: Report) -> np.ndarray:
        job = self._job(truth, row, self.geometry)
        count = job.plan.chunks
        for _ in advance(job, lambda index, _, share: report((index + share) / count)):
            pass
        return np.stack(list(job.rollout.frames()))[: len(truth)]

    def _coded(self, truth: Truth) -> np.ndarray:
        model = self._job(truth, _FULL, EXACT).session.model
        pixels = torch.from_numpy(truth.frames).permute(3, 0, 1, 2)[None].float() / 255
        with torch.inference_mode():
            parts = [
                model.codec.decode(model.codec.encode(part.to(model.device)))
                for part in pixels.split(CHUNK_FRAMES, dim=2)
            ]
        return _as_bytes(torch.cat(parts, dim=2)[0].permute(1, 2, 3, 0))

    def _warped(self, truth: Truth, poses: np.ndarray, geometry: str) -> np.ndarray:
        """The photo's mesh from cameras [T,4,4] in metres; what it does not show is filled as for
        the model."""
        job = self._job(truth, _FULL, geometry)
        memory, start = job.session.memory, job.rollout.start
        assert memory is not None
        assert start is not None
        assert job.plan.median_depth is not None
        path = truth.trajectory(poses).resolve(
            start.intrinsics, truth.size, job.plan.median_depth, job.plan.metric
        )
        assert path.intrinsics is not None
        parts = []
        with torch.inference_mode():
            for first in range(0, len(truth), CHUNK_FRAMES):
                part = slice(first, first + CHUNK_FRAMES)
                request = ChunkRequest(
                    index=0,
                    world_from_camera=path.world_from_camera[part],
                    intrinsics=path.intrinsics[part],
                )
                rgb = memory.warp(job.rollout, request).rgb
                parts.append(_as_bytes(rgb.permute(0, 2, 3, 1)))
        return np.concatenate(parts)

    def _job(self, truth: Truth, row: Row, geometry: str) -> Job:
        request = GenerateRequest(
            image=self._photo(truth),
            prompt=truth.caption,
            model=self.model,
            frames=len(truth),
            size=truth.size,
            device=self.device,
        )
        if row.camera:
            depth = str(self._depth(truth)) if geometry == EXACT else geometry
            request = replace(request, camera=truth.trajectory(), geometry=depth, lora=self.lora)
        switches = dict(row.switches)
        stages = switches.pop("warp_stages", None)
        checked = check(replace(request, **switches))
        if stages is not None:
            defaults = replace(checked.model.defaults, warp_stages=stages)
            checked = replace(checked, model=replace(checked.model, defaults=defaults))
        return start_job(checked, self._notify, self._sessions)

    def _photo(self, truth: Truth) -> Path:
        from flythrough.media.image import write_picture

        file = self.inputs / f"{truth.case.name}.png"
        self.inputs.mkdir(parents=True, exist_ok=True)
        write_picture(file, truth.frames[0])
        return file

    def _depth(self, truth: Truth) -> Path:
        from flythrough.disk import replacing

        file = self.inputs / f"{truth.case.name}-depth.npz"
        self.inputs.mkdir(parents=True, exist_ok=True)
        with replacing(file) as partial, partial.open("wb") as opened:
            np.savez(opened, depth=truth.depth[0], intrinsics=truth.intrinsics)
        return file

    def _notify(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._tell(text)


def halved(world_from_camera: np.ndarray) -> np.ndarray:
    """Half of every rotation and of every way from the first camera, [T,4,4]."""
    start = np.broadcast_to(np.eye(4), world_from_camera.shape)
    return se3.interpolate(start, world_from_camera, np.full(len(world_from_camera), 0.5))


def shuffled(count: int, seed: int) -> np.ndarray:
    """Frame numbers [T] of which 30 % (not the first) have changed places, none keeping its own."""
    source = seeds.generator(seed, "shuffled control")
    many = max(2, math.ceil(SHUFFLED * (count - 1)))
    moved = 1 + torch.randperm(count - 1, generator=source)[:many].numpy()
    order = np.arange(count)
    order[moved] = np.roll(moved, 1)
    return order


def _as_bytes(pixels: torch.Tensor) -> np.ndarray:
    return (pixels.float().clamp(0, 1) * 255).round().byte().cpu().contiguous().numpy()
