"""Several GPUs for one run: this process leads, the others only run its denoiser along.

Everything but the denoiser stays as it is on one GPU: conditioning, sampling, decoding and writing
happen here alone, so processes cannot drift apart. Each call of the denoiser is announced to the
others (``team_follower.py``), with what they do not have yet: the history of a stage, a prompt.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from flythrough.engine.team_wire import Wire, all_well, send
from flythrough.engine.words import Compute
from flythrough.errors import FaultError, InputError
from flythrough.models.adapters import active_loras
from flythrough.models.catalog import ModelFolder
from flythrough.models.fast.settings import FastSettings
from flythrough.models.fast.several_gpus import Exchange, SharedDenoiser
from flythrough.models.helios import HeliosTransformer
from flythrough.models.history_tokens import HISTORY_TENSORS, History, PackedHistory
from flythrough.rollout.spec import RolloutSpec

if TYPE_CHECKING:
    from torch._C._distributed_c10d import TCPStore

_PATIENCE = timedelta(days=7)
"""Followers wait this long for the next call: the user of a live rollout may be thinking."""
_START = timedelta(minutes=5)
"""All processes have to be there within this time."""
_EXCHANGE = timedelta(minutes=5)
"""Cards wait this long for each other within a call, compiling included."""
_LOOK = 0.1
"""Seconds between two looks at processes that are starting."""
_FOLLOWER = ("-m", "flythrough.engine.team_follower")
KEPT = 2
"""Histories and prompts that followers keep: guidance alternates between two prompts."""


def store_at(port: int, gpus: int, *, leads: bool = False) -> TCPStore:
    """Where the processes of a run find each other; the leading one holds it, at a free port if
    ``port`` is 0."""
    return dist.TCPStore(  # type: ignore[attr-defined]
        "127.0.0.1", port, gpus, leads, timeout=_START, wait_for_workers=False
    )


def join(rank: int, gpus: int, device: torch.device, store: TCPStore) -> Wire:
    """Enter the processes that meet at ``store``; a follower says first that it is there.

    Raises:
        RuntimeError: not all came within five minutes.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store.set(_here(rank), "")
    # Headers have a group of their own: only for them is a long silence no fault.
    dist.init_process_group("gloo", store=store, rank=rank, world_size=gpus, timeout=_EXCHANGE)
    headers = dist.new_group(backend="gloo", timeout=_PATIENCE)
    if device.type != "cuda":
        return Wire(device, headers, None)
    return Wire(device, headers, dist.new_group(backend="nccl", timeout=_EXCHANGE))


def _here(rank: int) -> str:
    return f"process {rank} is there"


@dataclass(eq=False)
class Kept:
    """What followers have been sent under numbers, newest last."""

    numbers: list[tuple[int, object]] = field(default_factory=list)
    next: int = 0

    def number(self, value: object) -> tuple[int, bool]:
        """The number of ``value``, and whether it is new."""
        for number, known in self.numbers:
            if known is value:
                return number, False
        self.next += 1
        self.numbers = [*self.numbers[1 - KEPT :], (self.next, value)]
        return self.next, True


class Team:
    """The other processes of a run, from their start to :meth:`end`.

    Raises:
        InputError: this process belongs to a process group already.
        FaultError: a process did not come up.
    """

    def __init__(self, gpus: int, device: torch.device) -> None:
        if dist.is_initialized():
            raise InputError(
                f"--gpus {gpus} starts its own processes, but this one belongs to a process group "
                "of torch.distributed already; start it without torchrun or drop --gpus."
            )
        self.gpus = gpus
        self.device = torch.device("cuda", 0) if device.type == "cuda" else device
        os.environ.setdefault("NCCL_NVLS_ENABLE", "0")  # multicast is not set up everywhere
        # NCCL registers memory of recorded exchanges, in a way that does not suit memory that grows
        # in place (pytorch/pytorch#158029); read once, and a later run may record.
        os.environ.setdefault("NCCL_GRAPH_REGISTER", "0")
        os.environ.setdefault("TORCH_NCCL_HIGH_PRIORITY", "1")  # or it waits for whole products
        if sys.platform == "linux":  # headers never leave the machine
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        self._others: list[subprocess.Popen[bytes]] = []
        try:
            store = store_at(0, gpus, leads=True)
            self._start(store.port)
            self._meet(store)
            self.wire = join(0, gpus, self.device, store)
        except BaseException as error:
            self._give_up()
            if isinstance(error, FaultError) or not isinstance(error, Exception):
                raise
            raise FaultError(
                f"The processes of --gpus {gpus} could not join ({type(error).__name__}: {error}); "
                "try again or drop --gpus."
            ) from error
        self.ended = False
        self.leader: LeadingDenoiser | None = None  # whose weights the others have
        atexit.register(self.end)

    def _start(self, port: int) -> None:
        folders = [folder for folder in sys.path if folder]
        shared = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
        if self.device.type == "cpu":
            shared["OMP_NUM_THREADS"] = str(max(1, torch.get_num_threads() // self.gpus))
        for rank in range(1, self.gpus):
            words = [str(rank), str(self.gpus), self.device.type, str(port)]
            started = subprocess.Popen([sys.executable, *_FOLLOWER, *words], env=shared)
            self._others.append(started)

    def _meet(self, store: TCPStore) -> None:
        """Wait until all others are there: who joins waits for them without looking whether they
        still live."""
        until = time.monotonic() + _START.total_seconds()
        while not store.check([_here(rank) for rank in range(1, self.gpus)]):
            if lost := self._lost():
                raise FaultError(
                    f"The process for GPU {lost[0]} ended while it started and said why above; "
                    "free its GPU or use fewer --gpus."
                )
            if time.monotonic() > until:
                raise FaultError(
                    f"The processes of --gpus {self.gpus} did not all start within "
                    f"{_START.total_seconds():.0f} seconds; try again or use fewer --gpus."
                )
            time.sleep(_LOOK)

    def _give_up(self) -> None:
        """Leave nothing behind of a start that failed."""
        for other in self._others:
            other.kill()
            other.wait()
        if dist.is_initialized():
            dist.destroy_process_group()

    def _lost(self) -> list[int]:
        """The numbers of processes that have ended."""
        return [number for number, other in enumerate(self._others, 1) if other.poll() is not None]

    def load(
        self, spec: RolloutSpec, folder: ModelFolder, compute: Compute, graphs: bool = False
    ) -> None:
        """Let the others load the denoiser with the adapters of ``spec``; ``graphs``: they record
        its calls.

        Raises:
            FaultError: one of them could not; it said why.
        """
        header = {"do": "load", "spec": spec.to_dict(), "folder": str(folder.path.resolve())}
        self.tell({**header, "compute": compute, "graphs": graphs})
        if not all_well(False, self.wire):
            raise FaultError(
                "A process on another GPU could not load the denoiser and said why above; free "
                "its memory or use fewer --gpus."
            )

    def drop(self) -> None:
        """Let the others give up their weights, before memory is planned anew."""
        self.lead(None)
        self.tell({"do": "drop"})
        all_well(False, self.wire)

    def lead(self, leader: LeadingDenoiser | None) -> None:
        """From now on ``leader`` leads; recordings of the one before are given up."""
        if self.leader is not None:
            self.leader.forget()
        self.leader = leader

    @property
    def lost(self) -> bool:
        """Whether it has ended, or one of the others has."""
        return self.ended or bool(self._lost())

    def tell(self, header: dict[str, Any], tensors: dict[str, Tensor] | None = None) -> None:
        """Send a message to all others.

        Raises:
            FaultError: one of them has ended.
        """
        if lost := self._lost():
            raise FaultError(
                f"The process on GPU {lost[0]} has ended, so the run cannot go on; what is stored "
                "can be continued with `flythrough continue`."
            )
        send(header, tensors or {}, self.wire)

    def end(self, *, abruptly: bool = False) -> None:
        """Let all others end, and leave the group; ``abruptly`` if a call was broken off, so that
        they may be waiting for something that never comes."""
        if self.ended:
            return
        lost, self.ended = self.lost, True
        self.lead(None)  # recordings go before what they exchange through
        if abruptly or lost:
            for other in self._others:
                other.kill()
        else:
            send({"do": "end"}, {}, self.wire)
        for other in self._others:
            try:
                other.wait(timeout=20)
            except subprocess.TimeoutExpired:
                other.kill()
        dist.destroy_process_group()


class LeadingDenoiser(SharedDenoiser):
    """The fast denoiser whose calls the other processes of ``team`` make along."""

    def __init__(
        self, team: Team, transformer: HeliosTransformer, settings: FastSettings | None = None
    ) -> None:
        super().__init__(transformer, settings, Exchange(team.wire.cards))
        self.team = team
        team.lead(self)
        self._histories, self._prompts_sent, self._indices = Kept(), Kept(), Kept()

    @torch.no_grad()
    def __call__(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        *,
        indices_hidden_states: Tensor,
        history: History | PackedHistory | None = None,
    ) -> Tensor:
        if self.team.leader is not self:
            raise FaultError(
                "Another model has been loaded onto the other GPUs since; begin anew with this one."
            )
        if isinstance(history, History):
            history = self.pack_history(history)
        header: dict[str, Any] = {"do": "call", "active": active_loras(self.net)}
        tensors = {"hidden_states": hidden_states, "timestep": timestep}
        kept = (
            ("prompt", self._prompts_sent, encoder_hidden_states),
            ("indices", self._indices, indices_hidden_states),
        )
        for name, slot, value in kept:
            header[name], new = slot.number(value)
            if new:
                tensors[name] = value
        if history is not None:
            header["history"], new = self._histories.number(history)
            if new:
                header["dropped"] = history.dropped
                for name in HISTORY_TENSORS:
                    if (part := getattr(history, name)) is not None:
                        tensors[f"history.{name}"] = part
        try:
            self.team.tell(header, tensors)
            return super().__call__(
                hidden_states,
                timestep,
                encoder_hidden_states,
                indices_hidden_states=indices_hidden_states,
                history=history,
            )
        except BaseException:
            self.team.end(abruptly=True)
            raise


def still_leads(denoiser: object) -> bool:
    """Whether a denoiser needs no other process, or its processes are there and have its weights:
    another model may have taken them over, or a fault have ended them."""
    if not isinstance(denoiser, LeadingDenoiser):
        return True
    return denoiser.team.leader is denoiser and not denoiser.team.lost


_running: Team | None = None


def team_of(gpus: int, device: torch.device) -> Team:
    """The team of this process, started if there is none of that size."""
    global _running  # noqa: PLW0603 - a process has one process group
    known = _running
    if known is not None and (known.gpus != gpus or known.device.type != device.type):
        known.end()
    if known is None or known.lost:
        if known is not None:
            known.end()
        known = _running = Team(gpus, device)
    return known


def drop_weights() -> None:
    """Free what other processes hold, if there are any."""
    if _running is not None and not _running.lost:
        _running.drop()
