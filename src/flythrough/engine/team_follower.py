"""A process that shares the denoiser of a run: ``python -m flythrough.engine.team_follower``.

Started by ``engine/team.py``; it ends when it is told to, or when the process that leads is gone.
"""

from __future__ import annotations

import gc
import signal
import sys
import traceback
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flythrough.engine.acceleration import fast_denoiser
from flythrough.engine.attached import attach_adapters, detach_adapters
from flythrough.engine.build import pick_dtype
from flythrough.engine.team import KEPT, join, store_at
from flythrough.engine.team_wire import Wire, all_well, receive
from flythrough.engine.words import EIGHT_BITS
from flythrough.errors import FlythroughError
from flythrough.models.adapters import active_loras, attached_loras, set_lora_active
from flythrough.models.catalog import find_model
from flythrough.models.fast.denoiser import FastDenoiser
from flythrough.models.fast.several_gpus import Exchange, SharedDenoiser
from flythrough.models.helios import HeliosTransformer
from flythrough.models.history_tokens import PackedHistory
from flythrough.models.loading import load_transformer
from flythrough.rollout.spec import RolloutSpec


class Follower:
    """The denoiser of one GPU, and what it was sent before."""

    def __init__(self, wire: Wire) -> None:
        self.device, self._exchange = wire.device, Exchange(wire.cards)
        self._source: tuple[str, str] | None = None
        self._shared: FastDenoiser | None = None
        self.drop()

    def forget(self) -> None:
        """What was sent under numbers, and what was made of it."""
        if self._shared is not None:
            self._shared.forget()
        self._shared = None
        self._kept: dict[str, dict[int, Any]] = {"prompt": {}, "indices": {}, "history": {}}

    def drop(self) -> None:
        """Everything; its memory is free then."""
        self.forget()
        self._net: HeliosTransformer | None = None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def load(self, header: Mapping[str, Any]) -> None:
        """The denoiser of a rollout; weights that are here already stay."""
        spec, folder = RolloutSpec.from_dict(header["spec"]), find_model(header["folder"])
        compute = header["compute"]
        source = str(folder.path), compute
        self.forget()
        if self._net is None or self._source != source:
            self.drop()
            path = Path(folder.path) / "transformer"
            home = torch.device("cpu") if compute in EIGHT_BITS else self.device
            loaded = load_transformer(path, pick_dtype(self.device), home)
            self._net, self._source = loaded.eval().requires_grad_(False), source
        detach_adapters(self._net)
        attach_adapters(spec, folder, self._net, _unsaid)
        make = partial(SharedDenoiser, exchange=self._exchange)
        self._shared = fast_denoiser(
            self._net, compute, self.device, _unsaid, make, graphs=header["graphs"]
        )

    def call(self, header: Mapping[str, Any], tensors: dict[str, Tensor]) -> None:
        """Make one call along; the leading process uses its result."""
        assert self._net is not None
        assert self._shared is not None
        for name in attached_loras(self._net):
            wanted = name in header["active"]
            if wanted != (name in active_loras(self._net)):
                set_lora_active(self._net, name, wanted)
        parts = {
            name.removeprefix("history."): value
            for name, value in tensors.items()
            if name.startswith("history.")
        }
        if parts:
            history = PackedHistory(**parts, dropped=bool(header["dropped"]))
            self._keep("history", header["history"], history)
        for name in ("prompt", "indices"):
            if name in tensors:
                self._keep(name, header[name], tensors[name])
        known = self._kept["history"][header["history"]] if "history" in header else None
        with torch.inference_mode():
            self._shared(
                tensors["hidden_states"],
                tensors["timestep"],
                self._kept["prompt"][header["prompt"]],
                indices_hidden_states=self._kept["indices"][header["indices"]],
                history=known,
            )

    def _keep(self, name: str, number: int, value: Any) -> None:
        kept = self._kept[name]
        kept[number] = value
        while len(kept) > KEPT:
            del kept[min(kept)]


def serve(wire: Wire) -> None:
    """Do what the leading process says until it says to end, or is gone."""
    follower = Follower(wire)
    while True:
        try:
            header, tensors = receive(wire)
        except RuntimeError:  # the leading process is gone
            return
        if header["do"] == "end":
            follower.forget()
            return
        if header["do"] == "call":
            follower.call(header, tensors)
            continue
        fault = None
        try:
            if header["do"] == "drop":
                follower.drop()
            else:
                follower.load(header)
        except (FlythroughError, RuntimeError) as error:
            fault = error
            print(f"flythrough, {wire.device}: {error}", file=sys.stderr)  # noqa: T201
        all_well(fault is not None, wire)


def _unsaid(text: str) -> None:
    """The leading process says it."""
    del text


def main() -> None:
    rank, gpus, kind, port = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    device = torch.device(kind, rank) if kind == "cuda" else torch.device(kind)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the leading process stops and says so
    try:
        serve(join(rank, gpus, device, store_at(port, gpus)))
    except RuntimeError:
        traceback.print_exc(limit=-2)
        sys.exit(1)


if __name__ == "__main__":
    main()
