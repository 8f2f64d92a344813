"""WorldWarp at true size on one GPU: correctness first, then seconds of every part of a chunk.

    python bench/gpu_worldwarp.py FOLDER [--config published] [--device cuda] [--seconds 520]

Rows go to FOLDER/worldwarp.json as soon as each is known; a part that fails is a row with its
traceback. No weights are read: all are random, drawn on the device. Parts that would begin after
--seconds are left out and named.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from flythrough.bench.clock import machine, seconds
from flythrough.bench.rows import Figures, Rows, line
from flythrough.bench.sizes import WORLDWARP_SIZES
from flythrough.bench.worldwarp import PARTS, WorldWarpBench


def part(work: Callable[[], object], device: torch.device) -> Figures:
    """The seconds that one part takes, with all its rows."""
    return {"part_s": round(seconds(work, device), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--config", default="published", choices=list(WORLDWARP_SIZES))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=520)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--parts", default=",".join(PARTS))
    given = parser.parse_args()
    started = time.monotonic()
    given.folder.mkdir(parents=True, exist_ok=True)
    device = torch.device(given.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    config = {**vars(given), "size": asdict(WORLDWARP_SIZES[given.config])}

    def shown(name: str, figures: Figures) -> None:
        print(f"[{time.monotonic() - started:6.1f}] {line(name, figures)}", flush=True)

    header = {"config": config, "machine": machine(device)}
    rows = Rows(header, given.folder / "worldwarp.json", shown, forgive=True)
    bench = WorldWarpBench(rows, given.config, device, dtype, given.runs)
    for name in given.parts.split(","):
        if time.monotonic() - started > given.seconds and name != "summary":
            rows.measure(f"part {name}", lambda: {"left_out": "time is up"})
            continue
        rows.measure(f"part {name}", partial(part, partial(PARTS[name], bench), device))


if __name__ == "__main__":
    main()
