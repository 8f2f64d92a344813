"""What ``flythrough bench`` runs: a checked request becomes rows and a dated file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from flythrough.bench.sizes import SIZES, WORLDWARP_SIZES, SizeName
from flythrough.engine.options import check_device
from flythrough.errors import InputError

if TYPE_CHECKING:
    from flythrough.bench.rows import Figures

SuiteName = Literal["helios", "wah", "warp", "vae", "nano", "worldwarp"]
RESULTS = Path("bench") / "results"


@dataclass(frozen=True, kw_only=True)
class BenchRequest:
    """What to measure: ``size`` None is the published one on a GPU, else nano; ``output`` None is a
    dated file below ``bench/results``."""

    suite: SuiteName
    size: SizeName | None = None
    device: str = "auto"
    runs: int = 5
    chunks: int = 3
    output: Path | None = None


def check_bench(request: BenchRequest) -> None:
    """Refuse what cannot be measured, before anything is loaded.

    Raises:
        InputError: unknown words, counts below one, or a size without effect.
    """
    if request.suite not in get_args(SuiteName):
        raise InputError(
            f"There is no measurement {request.suite!r}; choose {', '.join(get_args(SuiteName))}."
        )
    if request.size is not None and request.suite == "nano":
        raise InputError(
            f"--config {request.size} has no effect on the bundled model's own run; drop it."
        )
    if request.size is not None and request.size not in SIZES:
        raise InputError(f"--config {request.size} is unknown; choose {', '.join(SIZES)}.")
    for name, value in (("--runs", request.runs), ("--chunks", request.chunks)):
        if not 1 <= value <= 100:
            raise InputError(f"{name} {value} is out of range; give 1 to 100.")
    if request.suite == "worldwarp" and request.chunks != 3:
        raise InputError(
            f"--chunks {request.chunks} has no effect on worldwarp, whose parts are timed one by "
            "one; drop it."
        )
    check_device(request.device)
    if request.output is not None and request.output.suffix != ".json":
        raise InputError(f"The result {request.output} must end in .json; rename it.")
    if request.output is not None and not request.output.absolute().parent.is_dir():
        raise InputError(f"The folder {request.output.parent} does not exist; create it first.")


def run_bench(
    request: BenchRequest, on_row: Callable[[str, Figures], None]
) -> tuple[Path, dict[str, Any]]:
    """Measure; returns the file and what it holds.

    Raises:
        InputError: as :func:`check_bench`.
    """
    check_bench(request)

    from flythrough.bench import suites, worldwarp
    from flythrough.bench import warp as conditioning
    from flythrough.bench.clock import machine
    from flythrough.bench.nano import nano
    from flythrough.bench.rows import Rows
    from flythrough.engine.build import pick_device, pick_dtype

    device = pick_device(request.device)
    name: SizeName = request.size or ("published" if device.type == "cuda" else "nano")
    target = request.output
    if target is None:
        RESULTS.mkdir(parents=True, exist_ok=True)
        target = RESULTS / f"{date.today().isoformat()}-{request.suite}-{device.type}.json"
    config = {} if request.suite == "nano" else {"size": name, **asdict(SIZES[name])}
    if request.suite == "worldwarp":
        config = {"size": name, **asdict(WORLDWARP_SIZES[name])}
    header = {
        "suite": request.suite,
        "config": config,
        "runs": request.runs,
        "chunks": request.chunks,
        "machine": machine(device),
    }
    rows = Rows(header, target, on_row)
    if request.suite == "nano":
        nano(rows, device, 33 * request.chunks)
        return target, rows.data()
    if request.suite == "worldwarp":
        made = worldwarp.WorldWarpBench(rows, name, device, pick_dtype(device), request.runs)
        for part in worldwarp.PARTS.values():
            part(made)
        return target, rows.data()
    bench = suites.Bench(
        rows, SIZES[name], device, pick_dtype(device), request.runs, request.chunks
    )
    suites.ceilings(bench)
    measure: dict[str, Callable[[suites.Bench], None]] = {
        "helios": suites.helios,
        "wah": suites.wah,
        "warp": conditioning.warp,
        "vae": suites.vae,
    }
    measure[request.suite](bench)
    return target, rows.data()
