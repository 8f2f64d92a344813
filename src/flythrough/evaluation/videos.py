"""The videos of rows that a model makes or helps to make. One model serves all rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from flythrough.engine.request import GenerateRequest, check
from flythrough.engine.run import Job, advance, start_job
from flythrough.engine.sessions import Sessions
from flythrough.evaluation.judged_model import ModelChoice
from flythrough.evaluation.rows import Row
from flythrough.evaluation.truth import EXACT, Case, Truth
from flythrough.rollout.chunk import ChunkRequest

_FULL = Row("full", "", "generated")

Notify = Callable[[str], None]
Report = Callable[[float], None]
"""Told the finished share of one video."""


class VideoMaker:
    """Makes rows' videos of held-out clips.

    Args:
        choice: the model; ``lora`` is the adapter of the rows that use one.
        inputs: folder for the photo and its depth, written once a clip.
        notify: told about fallbacks.
        helper: the row whose session lends its codec and scene memory to references.
    """

    def __init__(
        self, choice: ModelChoice, inputs: Path, notify: Notify, helper: Row = _FULL
    ) -> None:
        self._helper = helper
        self.model, self.lora = choice.model, choice.lora
        self.geometry, self.device = choice.geometry, choice.device
        self.inputs = inputs
        self._said: set[str] = set()
        self._tell = notify
        self._sessions = Sessions(choice.device, "auto", self._notify)

    def video(self, row: Row, truth: Truth, report: Report) -> np.ndarray:
        """The frames uint8 [T,H,W,3] of ``row``."""
        if row.name == "codec":
            return self._coded(truth)
        if row.name == "warp":
            return self._warped(truth)
        return self._generated(row, truth, report)

    def digest(self, row: Row, case: Case) -> str:
        """Nothing beside what the study's configuration says."""
        del row, case
        return ""

    def _generated(self, row: Row, truth: Truth, report: Report) -> np.ndarray:
        job = self._job(truth, row, self.geometry)
        count = job.plan.chunks
        for _ in advance(job, lambda index, _, share: report((index + share) / count)):
            pass
        return np.stack(list(job.rollout.frames()))[: len(truth)]

    def _coded(self, truth: Truth) -> np.ndarray:
        job = self._job(truth, self._helper, self.geometry)
        model, many = job.session.model, job.plan.window.frames
        frames = truth.frames[_padded(len(truth), many)]
        pixels = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 255
        with torch.inference_mode():
            parts = [
                _as_bytes(
                    model.codec.decode(model.codec.encode(part.to(model.device)))[0].movedim(0, -1)
                )
                for part in pixels.split(many, dim=2)
            ]
        return np.concatenate(parts)[: len(truth)]

    def _warped(self, truth: Truth) -> np.ndarray:
        """The photo's mesh from the cameras asked for; what it does not show is filled as for the
        model."""
        job = self._job(truth, self._helper, self.geometry)
        memory, start = job.session.memory, job.rollout.start
        assert memory is not None
        assert start is not None
        assert job.plan.median_depth is not None
        path = truth.trajectory().resolve(
            start.intrinsics, truth.size, job.plan.median_depth, job.plan.metric
        )
        assert path.intrinsics is not None
        parts: list[np.ndarray] = []
        window = job.plan.window
        step = window.frames - 1
        later = 1 + _padded(len(truth) - 1, step)
        with torch.inference_mode():
            for run in later.reshape(-1, step):
                part = np.array([0, *run])  # an empty rollout shows the photo first
                request = ChunkRequest(
                    index=0,
                    world_from_camera=path.world_from_camera[part],
                    intrinsics=path.intrinsics[part],
                    window=window,
                )
                rgb = memory.warp(job.rollout, request).rgb[1 if parts else 0 :]
                parts.append(_as_bytes(rgb.permute(0, 2, 3, 1)))
        return np.concatenate(parts)[: len(truth)]

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
        assert truth.depth is not None
        with replacing(file) as partial, partial.open("wb") as opened:
            np.savez(opened, depth=truth.depth[0], intrinsics=truth.intrinsics)
        return file

    def _notify(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._tell(text)


def _padded(count: int, chunk: int) -> np.ndarray:
    """Frame numbers of whole chunks that hold ``count`` frames; the last frame is held."""
    whole = -(-count // chunk) * chunk
    return np.minimum(np.arange(whole), count - 1)


def _as_bytes(pixels: torch.Tensor) -> np.ndarray:
    return (pixels.float().clamp(0, 1) * 255).round().byte().cpu().contiguous().numpy()
