"""Chunks of whole runs whose denoiser several GPUs share: the time of each, through the library.

    python bench/shared_run.py FOLDER -o OUT.json --run 1:helios:auto --run 4:helios:auto

A run is GPUS:METHOD:COMPUTE[:launched][:CODEC DEVICE]; method ``helios`` goes on from a photo,
``camera`` follows a path on a flat depth, and COMPUTE is a word of ``ft.load(compute=...)``. The
first chunks prepare kernels and recordings; the median is that of the chunks after --skip. With
--touched this process uses its GPU before Flythrough does, as notebooks may.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import statistics
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

import flythrough as ft
from flythrough.bench.clock import machine

_PATH = "forward 0.6; pan right 20deg"


def timed(folder: str, run: str, chunks: int, skip: int, device: str) -> dict[str, Any]:
    """One run: seconds of every chunk and of what it was doing meanwhile."""
    gpus, method, compute, *more = run.split(":", 3)
    launched = bool(more) and more[0].split(":")[0] == "launched"
    codec = more[0].removeprefix("launched").removeprefix(":") if more else ""
    began = time.perf_counter()
    pipe = ft.load(
        folder,
        device=device,
        gpus=int(gpus),
        compute=compute,
        lora="off" if method == "camera" else "default",
        geometry="flat" if method == "camera" else "default",
        codec_device=codec or None,
        graphs=False if launched else None,
    )
    done: list[float] = []
    labels: dict[str, float] = {}
    since, doing = began, ""

    def told(index: int, label: str, share: float) -> None:
        nonlocal since, doing
        del share
        now = time.perf_counter()
        if index >= skip:
            labels[doing] = labels.get(doing, 0.0) + now - since
        since, doing = now, label
        if label == "done":
            done.append(now)

    words = {"camera": _PATH} if method == "camera" else {}
    photo = Path(str(files("flythrough"))) / "assets" / "example.jpg"
    pipe(photo, prompt="a harbour", frames=33 * chunks, callback=told, **words)
    ended = time.perf_counter()
    times = [after - before for before, after in itertools.pairwise(done)]
    usual = statistics.median(times[max(0, skip - 1) :])
    del pipe  # what no other process shares goes before the next run's weights come
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return {
        "first_chunk_done_s": round(done[0] - began, 1),
        "chunk_s": [round(value, 3) for value in times],
        "usual_chunk_s": round(usual, 3),
        "frames_per_second": round(33 / usual, 2),
        "after_last_chunk_s": round(ended - done[-1], 2),
        "label_s_per_chunk": {k: round(v / (chunks - skip), 3) for k, v in labels.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--run", action="append", required=True)
    parser.add_argument("--chunks", type=int, default=10)
    parser.add_argument("--skip", type=int, default=3)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--touched", action="store_true")
    given = parser.parse_args()
    if given.chunks <= max(1, given.skip):
        parser.error("--chunks must be more than --skip, and two at least")
    device = torch.device("cuda", 0) if given.device == "cuda" else torch.device(given.device)
    if given.touched:
        torch.zeros(1, device=device)
    found: dict[str, Any] = {"touched": given.touched, "chunks": given.chunks, "runs": {}}
    for run in given.run:
        row = timed(given.folder, run, given.chunks, given.skip, given.device)
        found["runs"][run] = row
        found["machine"] = machine(device)
        print(run, json.dumps(row), flush=True)
        given.output.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
