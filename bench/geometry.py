"""Pi3X at its published size on this machine: the recorded outputs, seconds and memory.

    python bench/geometry.py OUT.json [--config tiny]

The weights are those of the recorded run (drawn by a rule, 5.4 GB), so that what is timed is also
what is compared: float32 against the recorded numbers, then the mixed precision that the estimator
uses. Sizes are those of a 384x640 video, of which the tiny network sees fewer pixels; four views
are a later chunk's keyframes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from flythrough.models.pi3x import Pi3X
from flythrough.models.pi3x_config import Pi3XConfig
from flythrough.models.pi3x_estimator import Pi3XEstimator

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "parity"))

_TINY_PIXELS = 96 * 160


def network(device: torch.device, tiny: bool) -> Pi3X:
    """The recorded run's network."""
    import test_pi3x as recorded

    if tiny:
        return recorded.network(multimodal=True).to(device)
    with torch.device("meta"):
        net = Pi3X(Pi3XConfig(multimodal=True))
    net = net.to_empty(device=device).eval().requires_grad_(False)
    net.restore_constants()
    for key, value in net.state_dict().items():
        if not key.startswith("image_"):
            value.copy_(recorded.recipe(key, tuple(value.shape), recorded.LARGE_SEED))
    return net


def deviations(net: Pi3X, device: torch.device) -> dict[str, float]:
    """Largest difference from each recorded output, as a share of its largest value."""
    import test_pi3x as recorded

    found = {}
    for name in ("n1_noprior", "n2_all"):
        images, priors, golden = recorded.read(name, recorded.LARGE)
        if priors is not None:
            moved = {
                k: v.to(device) if isinstance(v, torch.Tensor) else v
                for k, v in vars(priors).items()
            }
            priors = type(priors)(**moved)
        out = net(images.to(device), priors)
        for key, value in golden.items():
            if hasattr(out, key):
                ours = getattr(out, key).float().cpu()
                found[f"{name}/{key}"] = float((ours - value).abs().max() / value.abs().max())
    return found


def timed(net: Pi3X, views: int, device: torch.device, *, tiny: bool) -> dict[str, Any]:
    """Median seconds of an estimate from pictures of 384x640, and what it allocated."""
    cuda = device.type == "cuda"
    estimator = Pi3XEstimator(net, pixel_limit=_TINY_PIXELS if tiny else None)
    images = torch.rand(views, 3, 384, 640, device=device)
    seconds = []
    for _ in range(2 if tiny else 6):
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        geometry = estimator.estimate(images)
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    row: dict[str, Any] = {"views": views, "seconds": statistics.median(seconds[1:])}
    row["first_seconds"] = seconds[0]
    row["finite"] = bool(torch.isfinite(geometry.depth).all())
    if cuda:
        row["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("--config", choices=["published", "tiny"], default="published")
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tiny = given.config == "tiny"
    net = network(device, tiny)
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "parameters": sum(p.numel() for p in net.parameters()),
    }
    with torch.no_grad():
        if not tiny:
            result["float32 against recorded"] = deviations(net, device)
            if device.type == "cuda":
                with torch.autocast("cuda", torch.bfloat16):
                    result["bfloat16 against recorded"] = deviations(net, device)
        result["estimates"] = [timed(net, n, device, tiny=tiny) for n in (1, 2, 4)]
    given.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
