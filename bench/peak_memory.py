"""Peak memory of runs beside what was foretold, phase by phase, each run in a process of its own.

    python bench/peak_memory.py FOLDER -o OUT.json --run resident:helios:384x640:2 [--run ...]

A run is PLACEMENT:METHOD:HEIGHTxWIDTH:CHUNKS[:PRECISION]; method ``camera`` follows a path on a
flat depth, and a precision is a word of ``--precision``. With ``--card GIB`` the GPU has no more
memory than that, for whatever asks and for torch's allocator.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch

GIB = 2**30
OF_LABEL = {
    "": "read the prompt",
    "warp": "render the warp",
    "encode": "encode",
    "denoise": "denoise",
    "decode": "decode",
}


def smaller_card(gib: float) -> None:
    """From now on the GPU has ``gib`` GiB."""
    from flythrough.engine.build import pick_device

    pick_device("auto")  # which sets the allocator up, before the GPU is used
    real, whole = torch.cuda.mem_get_info, torch.cuda.get_device_properties
    size = int(gib * GIB)
    torch.cuda.set_per_process_memory_fraction(size / whole(0).total_memory)

    def free(device: Any = None) -> tuple[int, int]:
        return min(real(device)[0], size - torch.cuda.memory_reserved(device)), size

    class Properties:
        """The device's own but for its memory."""

        total_memory = size

        def __getattr__(self, name: str) -> Any:
            return getattr(whole(0), name)

    torch.cuda.mem_get_info = free
    torch.cuda.get_device_properties = lambda *_: Properties()  # type: ignore


def measure(folder: str, run: str) -> dict[str, Any]:
    """One run: its phases' peaks in GiB, seconds, and the plan."""
    from flythrough.engine.request import GenerateRequest, check
    from flythrough.engine.run import advance, start_job
    from flythrough.engine.run_needs import default_parts, run_needs

    placement, method, size_text, chunks, *precise = run.split(":")
    precision = precise[0] if precise else "full"
    height, width = (int(n) for n in size_text.split("x"))
    photo = Path(str(files("flythrough"))) / "assets" / "example.jpg"
    camera = method == "camera"
    on_gpu = torch.cuda.is_available()
    request = GenerateRequest(
        image=photo if camera else None,
        camera="forward 0.3; pan right 20deg" if camera else None,
        geometry="flat" if camera else "default",
        lora="off" if camera else "default",
        prompt="a quiet valley in the morning",
        model=folder,
        frames=33 * int(chunks),
        size=(height, width),
        memory=placement,  # type: ignore[arg-type]
        compute="auto" if precision == "full" else precision,  # type: ignore[arg-type]
        output=Path("/tmp/never-written.mp4"),
    )
    checked = check(request)
    started = time.perf_counter()
    parts = default_parts(checked.model, checked.method)
    needs = run_needs(
        checked.model,
        (height, width),
        checked.method,
        request.frames,
        "cuda" if on_gpu else "cpu",
        parts=replace(parts, eight_bits=precision != "full"),
    )
    plan = needs.plan(placement)  # type: ignore[arg-type]
    planned = time.perf_counter() - started
    notes: list[str] = []
    started = time.perf_counter()
    job = start_job(checked, notes.append)
    loaded = time.perf_counter() - started
    while_loading = torch.cuda.max_memory_allocated() / GIB if on_gpu else None
    peaks: dict[str, float] = {}
    current = ""

    def close(label: str) -> None:
        if on_gpu:
            torch.cuda.synchronize()
            phase = OF_LABEL[label]
            peaks[phase] = max(peaks.get(phase, 0.0), torch.cuda.max_memory_allocated() / GIB)
            torch.cuda.reset_peak_memory_stats()

    close("")

    def report(index: int, label: str, share: float) -> None:
        nonlocal current
        del index, share
        if label in OF_LABEL and label != current:
            close(current)
            current = label

    seconds, times, finite = [], [], True
    since = time.perf_counter()
    for rollout in advance(job, report):
        close(current)
        current = ""
        seconds.append(round(time.perf_counter() - since, 2))
        since = time.perf_counter()
        times.append({k: round(v, 2) for k, v in rollout.chunks[-1].timings.items()})
        finite &= bool(np.isfinite(rollout.chunks[-1].latents).all())
    foretold = {phase.name: round(phase.device_bytes / GIB, 2) for phase in plan.phases}
    top = max(peaks.values(), default=0.0)
    return {
        "run": run,
        "finite": finite,
        "peak_gib": round(top, 2),
        "foretold_gib": round(plan.device_bytes / GIB, 2),
        "ratio": round(plan.device_bytes / GIB / top, 3) if top else None,
        "phases_gib": {name: round(value, 2) for name, value in peaks.items()},
        "foretold_phases_gib": foretold,
        "reserved_gib": round(torch.cuda.max_memory_reserved() / GIB, 2) if on_gpu else None,
        "host_peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "foretold_host_gib": round(plan.host_bytes / GIB, 2),
        "blocks_grow": on_gpu and any(s["is_expandable"] for s in torch.cuda.memory_snapshot()),
        "peak_while_loading_gib": while_loading and round(while_loading, 2),
        "seconds_to_plan": round(planned, 2),
        "seconds_to_load": round(loaded, 2),
        "seconds_per_chunk": seconds,
        "timings": times,
        "tera_operations_per_chunk": round(plan.flops / 1e12, 1),
        "notes": notes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--run", action="append", required=True)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--one", action="store_true", help="in this process, result on stdout")
    parser.add_argument("--card", type=float, help="GiB that the GPU is said to have")
    given = parser.parse_args()
    if given.one:
        if given.card:
            smaller_card(given.card)
        print(json.dumps(measure(given.folder, given.run[0])))
        return
    rows = []
    for run in given.run:
        command = [sys.executable, __file__, given.folder, "--run", run, "--one"]
        command += ["--card", str(given.card)] if given.card else []
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        line = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""
        row = (
            json.loads(line) if done.returncode == 0 else {"run": run, "error": done.stderr[-2500:]}
        )
        print(json.dumps(row, indent=1), flush=True)
        rows.append(row)
        if given.output:
            device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
            result = {"device": device, "torch": torch.__version__, "card_gib": given.card}
            result["runs"] = rows
            given.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
