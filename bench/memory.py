"""Memory of a long run on the bundled model: resident and anonymous bytes after every chunk, and
the device's where there is a GPU.

Usage: python bench/memory.py [CHUNKS] [OUTPUT.json]
"""

from __future__ import annotations

import json
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

import torch

from flythrough.engine.request import GenerateRequest, check
from flythrough.engine.run import advance, start_job


def status() -> dict[str, float]:
    """VmRSS and RssAnon of this process, and what its tensors take on the GPU, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    found = {name: int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon")}
    if torch.cuda.is_available():
        found["device"] = torch.cuda.memory_allocated() / 2**20
        found["device_peak"] = torch.cuda.max_memory_allocated() / 2**20
        torch.cuda.reset_peak_memory_stats()
    return found


def main() -> None:
    chunks = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with tempfile.TemporaryDirectory() as folder:
        request = GenerateRequest(
            image=Path(str(files("flythrough"))) / "assets" / "example.jpg",
            camera="forward 0.5; pan right 40deg",
            frames=33 * chunks,
            output=Path(folder) / "out.mp4",
        )
        job = start_job(check(request), print)
        rows = []
        for rollout in advance(job, lambda *_: None):
            rows.append({"chunk": len(rollout.chunks), **status()})
            print(rows[-1], flush=True)
    if len(sys.argv) > 2:
        Path(sys.argv[2]).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
