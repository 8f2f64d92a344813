"""The bundled model through the whole engine: photo and camera path in, video file out."""

from __future__ import annotations

import tempfile
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from flythrough.bench.clock import peaks, seconds
from flythrough.bench.rows import Figures, Rows
from flythrough.models.catalog import BUNDLED

if TYPE_CHECKING:
    from flythrough.engine.run import Job


def nano(rows: Rows, device: torch.device, frames: int = 66, model: str = BUNDLED) -> None:
    """One row: seconds from request to file, and what each chunk spent them on."""
    from flythrough.engine.request import GenerateRequest, check
    from flythrough.engine.run import advance, start_job, write_result

    def work() -> Figures:
        with tempfile.TemporaryDirectory() as folder:
            request = GenerateRequest(
                image=Path(str(files("flythrough"))) / "assets" / "example.jpg",
                camera="forward 0.4; pan right 20deg",
                frames=frames,
                model=model,
                device=str(device),
                output=Path(folder) / "out.mp4",
            )
            jobs: list[Job] = []
            loaded = seconds(lambda: jobs.append(start_job(check(request), lambda _: None)), device)
            job, taken = jobs[0], []
            steps = advance(job, lambda *_: None)
            for _ in range(job.plan.chunks):
                taken.append(seconds(lambda: next(steps), device))
            output = Path(folder) / "out.mp4"
            wrote = seconds(lambda: write_result(job.rollout, job.plan, output), device)
            timings = [chunk.timings for chunk in job.rollout.chunks]
        return {
            "frames": frames,
            "load_s": round(loaded, 2),
            "chunks_s": [round(value, 2) for value in taken],
            "sum_s": round(loaded + sum(taken) + wrote, 2),
            "write_s": round(wrote, 2),
            "timings_s": [{k: round(v, 2) for k, v in t.items()} for t in timings],
            **peaks(device),
        }

    rows.measure("nano, camera, with file", work)
