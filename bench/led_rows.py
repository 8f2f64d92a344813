"""The row of ``gpu_parallel.py`` that goes the way of ``--gpus``: one process leads others."""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import Any

import torch

from flythrough.bench.clock import machine, median_seconds
from flythrough.bench.forwards import STAGES, packed, relative_gap, stage_inputs
from flythrough.bench.rows import Figures, Rows, line
from flythrough.bench.sizes import SIZES
from flythrough.engine.team import LeadingDenoiser, team_of
from flythrough.models.catalog import find_model
from flythrough.models.fast.denoiser import FastDenoiser
from flythrough.models.loading import load_transformer
from flythrough.rollout.spec import RolloutSpec

TOLERANCE = {torch.bfloat16: 0.02, torch.float32: 1e-4}
"""Relative error, root mean square, that another order of rounding can explain at full depth."""
_SPEC: dict[str, Any] = {
    **{"method": "helios", "model": "nano", "model_digest": "nano", "height": 192, "width": 320},
    **{"fps": 16.0, "seed": 0, "prompt": "random"},
}


def led(given: argparse.Namespace, gpus: int) -> None:
    """The way of ``--gpus``: this process leads, others follow; the bundled model, one against
    several, in FOLDER/led.json."""
    device = torch.device("cuda", 0) if given.device == "cuda" else torch.device("cpu")
    rows = Rows({"machine": machine(device)}, given.folder / "led.json", forgive=True)
    folder, size = find_model("nano"), SIZES["tiny" if given.config == "tiny" else "nano"]
    dtype = torch.bfloat16 if given.device == "cuda" else torch.float32

    def work() -> Figures:
        loaded: Any = load_transformer(folder.path / "transformer", dtype, device)
        net, spec = loaded.eval().requires_grad_(False), RolloutSpec(**_SPEC, lora="off")
        inputs = [
            packed(net, stage_inputs(net, size, stage, device, kind))
            for stage, kind in ((0, "warp"), (1, "native"), (2, "native"))
        ]
        found: dict[str, Any] = {}
        with torch.inference_mode():
            wanted = [FastDenoiser(net)(**one) for one in inputs]
            started = time.perf_counter()
            team = team_of(gpus, device)
            team.load(spec, folder, "fast")
            found["start_s"] = round(time.perf_counter() - started, 1)
            leading = LeadingDenoiser(team, net)
            gaps = [relative_gap(leading(**one), w) for one, w in zip(inputs, wanted, strict=True)]
            found["relative_errors"] = gaps
            for stage, name in enumerate(STAGES):
                median, _, _ = median_seconds(
                    partial(leading, **inputs[stage]), device, given.runs, 2
                )
                found[f"{name}_ms"] = round(1e3 * median, 2)
            alone = FastDenoiser(net)
            median, _, _ = median_seconds(lambda: alone(**inputs[2]), device, given.runs, 2)
            found["full_alone_ms"] = round(1e3 * median, 2)
        found["good"] = max(gaps) < TOLERANCE[dtype]
        team.end()
        return found

    rows.measure(f"led, {gpus} GPUs, nano", work)
    print(line("led", rows.found[f"led, {gpus} GPUs, nano"]), flush=True)
