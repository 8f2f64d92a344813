"""One denoiser call on 1, 2 and 4 GPUs of one machine: correctness first, then speed, then where
time goes.

    python3 bench/gpu_parallel.py FOLDER [--seconds 200] [--config published] [--device cuda]

Starts as many processes as the largest world once; each draws the same random weights on its card,
and groups of the first 1, 2, 4 of them are measured in turn. Rows go to FOLDER/parallel.json as
soon as each is known, a row that fails is kept with its traceback, and what would begin after
--seconds is left out and named. Shortly after, everything still running is stopped. Last, the
bundled model goes the way of ``flythrough generate --gpus 2``: FOLDER/led.json.
"""

from __future__ import annotations

import argparse
import gc
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from led_rows import TOLERANCE, led
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from flythrough.bench.clock import machine, median_seconds, peaks, reset_peak, synchronise
from flythrough.bench.forwards import STAGES, packed, relative_gap, stage_inputs
from flythrough.bench.profiles import Profile
from flythrough.bench.random_model import random_denoiser
from flythrough.bench.rows import Figures, Rows, line
from flythrough.bench.sizes import SIZES, Size
from flythrough.models.fast.denoiser import FastDenoiser
from flythrough.models.fast.fp8 import quantise_blocks
from flythrough.models.fast.recordings import CudaGraphs, Recordings
from flythrough.models.fast.settings import FastSettings
from flythrough.models.fast.several_gpus import Exchange, SharedDenoiser, Waiting
from flythrough.models.fast.token_cut import TokenCut
from flythrough.models.helios import HeliosTransformer

_GRACE = 45.0
"""Seconds that rows under way have after the time is up."""
_TOLERANCE_FP8 = 0.03
"""Two roundings to 8 bits, each 0.02 from float32."""


class Silent(Exchange):
    """Sends nothing: random tokens stand for the others'. What a call then takes less is the
    time that exchanging costs."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        super().__init__(group)
        self._kept: dict[tuple[int, ...], Tensor] = {}

    def gather(self, own: Tensor) -> Waiting:
        shape = (own.shape[0], self.ranks * own.shape[1], own.shape[2])
        if shape not in self._kept:  # random, because a card is faster on zeros
            self._kept[shape] = torch.randn(shape, device=own.device).to(own.dtype)
        return lambda: self._kept[shape]


@dataclass
class Run:
    """The measurement under way in one process; only process 0 writes."""

    rows: Rows
    folder: Path
    size: Size
    device: torch.device
    net: HeliosTransformer
    groups: dict[int, dist.ProcessGroup]
    until: float
    runs: int
    rank: int

    def row(self, name: str, world: int, work: Callable[[], Figures]) -> None:
        """One row of the first ``world`` processes; all others wait, and all agree on the time."""
        late = torch.tensor([float(time.monotonic() > self.until)])
        dist.broadcast(late, 0)  # on the CPU: no card spins meanwhile
        if late.item():
            work = left_out
        if self.rank < world:
            self.rows.measure(name, work)
        dist.barrier(group=None if self.device.type == "cpu" else self.groups[0])

    def path(
        self, world: int, exchange: type[Exchange] = Exchange, *, graphs: bool = False
    ) -> FastDenoiser:
        gc.collect()  # recordings of the row before
        settings = FastSettings(graphs=graphs)
        if world == 1:
            return FastDenoiser(self.net, settings)
        return SharedDenoiser(self.net, settings, exchange(self.groups[world]))

    def inputs(
        self, stage: int, kind: str = "native", share: float = 0.86, seed: int = 0
    ) -> dict[str, Any]:
        """Equal in all processes: drawn from one seed."""
        made = stage_inputs(self.net, self.size, stage, self.device, kind, share, seed=seed)
        return packed(self.net, made)


class Crowded(CudaGraphs):
    """A GPU whose memory ends in the middle of a recording."""

    _ROOM = 256 << 20

    def __call__(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        torch.cuda.empty_cache()
        whole = torch.cuda.get_device_properties(self._device).total_memory
        most = torch.cuda.memory_reserved(self._device) + self._ROOM
        torch.cuda.set_per_process_memory_fraction(most / whole, self._device)
        try:
            return super().__call__(work)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, self._device)


def left_out() -> Figures:
    return {"left_out": "time is up"}


def equal_weights(run: Run, world: int) -> Figures:
    """Whether all processes drew the same weights."""
    sums = torch.stack([p.double().sum() for p in run.net.parameters()])
    every = [torch.empty_like(sums) for _ in range(world)]
    dist.all_gather(every, sums, group=run.groups[world])
    return {"good": all(torch.equal(one, every[0]) for one in every)}


def correctness(
    run: Run, world: int, kind: str, stage: int, tolerance: float | None = None
) -> Figures:
    """Several against one, and whether all processes hold the same bits."""
    given = run.inputs(stage, kind, 0.61)
    with torch.inference_mode():
        wanted = FastDenoiser(run.net)(**given)
        found = run.path(world)(**given).contiguous()
    every = [torch.empty_like(found) for _ in range(world)]
    dist.all_gather(every, found, group=run.groups[world])
    gap = relative_gap(found, wanted)
    same = all(torch.equal(one, found) for one in every)
    finite = bool(torch.isfinite(found).all())
    return {
        "relative_error": gap,
        "same_bits": same,
        "history_tokens": int(given["history"].tokens.shape[1]),
        "good": same and finite and gap < (tolerance or TOLERANCE[run.net.dtype]),
    }


def replayed(run: Run, world: int) -> Figures:
    """Whether recorded calls find the same bits as launched ones, for other values, another stage
    in between, and prompts that come and go; on several GPUs also where one process has no memory
    for a recording."""
    launches, path = run.path(world), run.path(world, graphs=True)
    assert path._recordings is not None
    given = [run.inputs(stage, seed=seed) for seed in range(4) for stage in (0, 1)]
    prompts = [one["encoder_hidden_states"] for one in given]

    def same(prompt: int) -> list[bool]:
        asked = [{**one, "encoder_hidden_states": prompts[prompt]} for one in given]
        return [bool(torch.equal(path(**one), launches(**one))) for one in asked]

    with torch.inference_mode():
        alike = [same(prompt) for prompt in (0, 1, 2, 0)]
        found: dict[str, Any] = {"same": alike, "good": all(map(all, alike))}
        if world > 1:
            path.forget()
            if run.rank == 0:
                path._recordings = Recordings(Crowded(run.device))
            crowded = same(3)
            found["same_without_memory"] = crowded
            found["recorded_without_memory"] = len(path._recordings._made)
            found["good"] = found["good"] and all(crowded)
    return found


def calls(
    run: Run, world: int, exchange: type[Exchange] = Exchange, *, graphs: bool = False
) -> Figures:
    """Time of a call in each stage; of it the host's, until all is queued."""
    path, found = run.path(world, exchange, graphs=graphs), dict[str, Any]()
    reset_peak(run.device)
    for stage, name in enumerate(STAGES):
        given = run.inputs(stage)
        with torch.inference_mode():
            median, every, first = median_seconds(
                partial(path, **given), run.device, run.runs, 4 if graphs else 2
            )
            synchronise(run.device)
            started = time.perf_counter()
            path(**given)
            queued = time.perf_counter() - started
            synchronise(run.device)
        found[f"{name}_ms"] = round(1e3 * median, 2)
        found[f"{name}_host_ms"] = round(1e3 * queued, 2)
        found[f"{name}_first_ms"] = round(1e3 * first, 1)
        found[f"{name}_runs_ms"] = [round(1e3 * value, 2) for value in every]
    total = sum(found[f"{stage}_ms"] for stage in STAGES) / 1000
    found["fps_222_without_decode"] = round(33 / (2 * total), 2)
    found["fps_111_without_decode"] = round(33 / total, 2)
    return {**found, **peaks(run.device)}


def gathered(exchange: Exchange, own: Tensor) -> Tensor:
    """The tokens of all processes, waited for."""
    return exchange.gather(own)()


def gathers(run: Run, world: int) -> Figures:
    """Gathering the keys of one block, nothing beside it: time, and bytes a second that one card
    receives."""
    width = int(run.net.config["num_attention_heads"] * run.net.config["attention_head_dim"])
    exchange, found = Exchange(run.groups[world]), dict[str, Any]()
    for stage, name in enumerate(STAGES):
        given = run.inputs(stage)
        tokens = given["history"].tokens.shape[1] + given["hidden_states"][0, 0].numel() // 4
        share = TokenCut(0, tokens, world).share
        own = torch.randn(1, share, width, device=run.device).to(run.net.dtype)
        median, _, _ = median_seconds(partial(gathered, exchange, own), run.device, 20, 5)
        found[f"{name}_us"] = round(1e6 * median, 1)
        received = (world - 1) * own.numel() * own.element_size()
        found[f"{name}_gb_s"] = round(received / median / 1e9, 1)
    return found


def profile(run: Run, world: int, stage: int, name: str) -> Figures:
    """Kernel time of one call: exchanging, all else, and the wall clock. Exchanging that is hidden
    counts in the first and not in the last."""
    path, given = run.path(world), run.inputs(stage)
    wall = 0.0

    def call() -> None:
        nonlocal wall
        started = time.perf_counter()
        path(**given)
        synchronise(run.device)
        wall = time.perf_counter() - started

    seen = Profile(call, run.device)
    if run.rank == 0:
        (run.folder / f"profile-{name}.txt").write_text(seen.table(30))
    taken = {"exchange": 0.0, "else": 0.0}
    for kernel, milliseconds in seen.kernels().items():
        sends = any(word in kernel.lower() for word in ("nccl", "gloo", "all_gather"))
        taken["exchange" if sends else "else"] += milliseconds
    return {
        "wall_ms": round(1e3 * wall, 2),
        "exchange_kernels_ms": round(taken["exchange"], 2),
        "other_kernels_ms": round(taken["else"], 2),
        "exposed_ms": round(1e3 * wall - taken["else"], 2),
    }


def measured(run: Run, worlds: list[int]) -> None:
    several = [world for world in worlds if world > 1]
    for world in several:
        run.row(f"equal weights, {world}", world, partial(equal_weights, run, world))
        for kind, stage in (("native", 0), ("warp", 0), ("native", 2)):
            name = f"correct, {world} GPUs, {kind}, {STAGES[stage]}"
            run.row(name, world, partial(correctness, run, world, kind, stage))
    both_calls(run, worlds, "")
    for world in several:
        name = f"calls without exchange, {world} GPUs"
        run.row(name, world, partial(calls, run, world, Silent))
        run.row(f"gather, {world} GPUs", world, partial(gathers, run, world))
        for stage in (2, 0):
            name = f"{STAGES[stage]}-{world}"
            run.row(f"profile {name}", world, partial(profile, run, world, stage, name))
    quantise_blocks(run.net.blocks)
    for world in several:
        name = f"correct fp8, {world} GPUs, warp, {STAGES[0]}"
        run.row(name, world, partial(correctness, run, world, "warp", 0, _TOLERANCE_FP8))
    both_calls(run, worlds, " fp8")
    for world in several:
        name = f"calls fp8 without exchange, {world} GPUs"
        run.row(name, world, partial(calls, run, world, Silent))
    summary = gains(run.rows.found, worlds)
    run.row("gains", 1, lambda: summary)


def both_calls(run: Run, worlds: list[int], kind: str) -> None:
    """Calls that are launched, and recorded ones."""
    for world in worlds:
        run.row(f"calls{kind}, {world} GPUs", world, partial(calls, run, world))
        if run.device.type == "cuda":
            name = f"replayed bits{kind}, {world} GPUs"
            run.row(name, world, partial(replayed, run, world))
            name = f"replayed calls{kind}, {world} GPUs"
            run.row(name, world, partial(calls, run, world, graphs=True))


def gains(rows: dict[str, Figures], worlds: list[int]) -> Figures:
    """How many times as fast as one that launches its calls, stage by stage and as a [2,2,2]
    chunk."""
    found: dict[str, Any] = {}
    for kind in ("calls", "replayed calls", "calls fp8", "replayed calls fp8"):
        one = rows.get(f"{kind.removeprefix('replayed ')}, 1 GPUs", {})
        for world in worlds:
            other = rows.get(f"{kind}, {world} GPUs", {})
            if one is other or "quarter_ms" not in one or "quarter_ms" not in other:
                continue
            for stage in STAGES:
                ratio = one[f"{stage}_ms"] / other[f"{stage}_ms"]
                found[f"{kind} {world} {stage}"] = round(ratio, 3)
            key = "fps_222_without_decode"
            found[f"{kind} {world} chunk"] = round(other[key] / one[key], 3)
    return found


def worker(rank: int, port: int, given: argparse.Namespace, worlds: list[int]) -> None:
    started, until = time.monotonic(), given.until - time.time() + time.monotonic()
    cuda = given.device == "cuda"
    device = torch.device("cuda", rank) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if cuda else "gloo",
        rank=rank,
        world_size=max(worlds),
        timeout=timedelta(seconds=120),
    )
    groups = {world: dist.new_group(list(range(world))) for world in worlds}
    groups[0] = dist.new_group(backend="gloo")
    size = SIZES[given.config]
    net = random_denoiser(size.transformer, device, torch.bfloat16 if cuda else torch.float32)

    def shown(name: str, figures: Figures) -> None:
        print(f"[{time.monotonic() - started:6.1f}] {line(name, figures)}", flush=True)

    first = rank == 0
    settings = {name: str(value) for name, value in vars(given).items()}
    nccl = {name: value for name, value in os.environ.items() if "NCCL_" in name}
    header: dict[str, Any] = {
        "config": settings,
        "machine": machine(device),
        "worlds": worlds,
        "nccl": nccl,
    }
    if cuda:
        header["nccl_version"] = torch.cuda.nccl.version()
    target = given.folder / "parallel.json" if first else None
    rows = Rows(header, target, shown if first else None, forgive=True)
    run = Run(rows, given.folder, size, device, net, groups, until, given.runs, rank)
    measured(run, worlds)
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--config", default="published", choices=list(SIZES))
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--worlds", default="1,2,4")
    parser.add_argument("--seconds", type=float, default=200)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--no-led", action="store_true", help="leave out FOLDER/led.json")
    given = parser.parse_args()
    given.until = time.time() + given.seconds
    given.folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("NCCL_NVLS_ENABLE", "0")
    os.environ.setdefault("NCCL_GRAPH_REGISTER", "0")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    os.environ.setdefault("TORCH_NCCL_HIGH_PRIORITY", "1")
    worlds = sorted({int(word) for word in given.worlds.split(",")})
    if given.device == "cuda":
        worlds = [world for world in worlds if world <= torch.cuda.device_count()]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = spawn(worker, (port, given, worlds), nprocs=max(worlds), join=False)
    assert context is not None
    while not context.join(timeout=1):
        if time.time() > given.until + _GRACE:
            for process in context.processes:
                process.kill()
            raise SystemExit(f"stopped {_GRACE:.0f} s after the time was up; rows so far are kept")
    if max(worlds) > 1 and time.time() < given.until and not given.no_led:
        signal.alarm(120)  # ends this process, should cards wait for each other for good
        led(given, 2)


if __name__ == "__main__":
    main()
