"""What a run takes with each placement of its weights: figures, phase by phase.

What libraries take beside tensors is added as constants that were measured on an H200.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import get_args

from flythrough.models.accounting import Need
from flythrough.models.loading import Placement
from flythrough.models.needs import PartNeed

PLACEMENTS: tuple[Placement, ...] = get_args(Placement)

SLACK = 1.03
"""Allocators need a little more than the sum of tensors."""
_LIBRARY_BYTES = {"cuda": 64 << 20, "cpu": 600 << 20}
"""Beside tensors: workspaces of the matrix library; on the CPU the Python process and libraries."""
_HOST_PROCESS_BYTES = 4 << 30
"""Host memory of a process that drives a GPU, weights apart."""


@dataclass(frozen=True)
class Phase:
    """A part of a chunk's work: the most bytes on the device while it runs, its operations."""

    name: str
    device_bytes: int
    flops: float


@dataclass(frozen=True)
class MemoryPlan:
    """What a run takes with one placement.

    ``host_bytes``: the process and the weights that wait in host memory; 0 on a CPU, whose memory
    is the host's. ``disk_bytes`` hold frames until the video is done. ``calls``: how often a chunk
    runs the denoiser. ``beside_bytes``: on the device while a chunk is decoded beside the denoising
    of the next, which is done where that fits; 0 where weights come and go, and on a CPU.
    """

    placement: Placement
    phases: tuple[Phase, ...]
    host_bytes: int
    disk_bytes: int
    calls: int
    beside_bytes: int = 0

    @property
    def device_bytes(self) -> int:
        return max(phase.device_bytes for phase in self.phases)

    def fits(self, free: int, host_free: int) -> bool:
        """Whether the plan fits."""
        return self.device_bytes * SLACK <= free and self.host_bytes <= host_free

    def fits_beside(self, free: int) -> bool:
        """Whether a chunk may be decoded beside the denoising of the next."""
        return 0 < self.beside_bytes * SLACK <= free

    @property
    def flops(self) -> float:
        """Operations of one chunk."""
        return sum(phase.flops for phase in self.phases)


@dataclass(frozen=True)
class RunNeeds:
    """What the parts of a run take, whatever the placement.

    ``eight_bits``: the denoiser's layers are made 8-bit one by one on their way to a GPU;
    ``copied_bytes``: what of it has to lie in host memory until then; ``graph_bytes``: what
    recorded calls of the denoiser keep on its GPU.
    """

    weights: dict[str, PartNeed]
    text: Need
    encode: Need
    warp: Need
    denoise: Need
    decode: Need
    frames: int
    size: tuple[int, int]
    device: str
    calls: int
    caption: Need = field(default_factory=lambda: Need(0, 0.0))
    copied_bytes: int = 0
    eight_bits: bool = False
    graph_bytes: int = 0

    @property
    def placements(self) -> tuple[Placement, ...]:
        """Those that there are: layers are streamed to GPUs, and not in 8 bits."""
        return PLACEMENTS if self.device == "cuda" and not self.eight_bits else PLACEMENTS[:2]

    def plan(self, placement: Placement) -> MemoryPlan:
        """The figures of one placement."""
        zero = PartNeed(0, 0)
        net, text = self.weights["transformer"], self.weights["text_encoder"]
        codec, geometry = self.weights["vae"], self.weights.get("geometry", zero)
        captioner = self.weights.get("captioner", zero).whole
        always = geometry.whole + self.graph_bytes + _LIBRARY_BYTES[self.device]
        host = _HOST_PROCESS_BYTES
        if placement == "resident":
            always += net.whole + text.whole + codec.whole + captioner
            host += self.copied_bytes
            own = dict.fromkeys(("text", "codec", "net"), 0)
        elif placement == "drop-text":
            always += net.whole + codec.whole
            host += max(text.whole, self.copied_bytes)  # the denoiser is read first
            streamed = text.whole if self.device == "cpu" else text.streamed
            own = {"text": streamed, "codec": 0, "net": 0}
        else:
            host += net.whole + text.whole + codec.whole
            own = {"text": text.streamed, "codec": codec.whole, "net": net.streamed}
        if placement != "resident":  # it waits in host memory while nothing is described
            host += captioner
            always += captioner if self.device == "cpu" else 0
        phases: tuple[Phase, ...] = (
            _phase("read the prompt", always + own["text"], self.text),
            _phase("render the warp", always, self.warp),
            _phase("encode", always + own["codec"], self.encode),
            _phase("denoise", always + own["net"], self.denoise),
            _phase("decode", always + own["codec"], self.decode),
        )
        if captioner:
            waits = placement != "resident" and self.device != "cpu"
            words = _phase("caption", always + (captioner if waits else 0), self.caption)
            phases = (words, *phases)
        disk = self.frames * self.size[0] * self.size[1] * 3
        host = 0 if self.device == "cpu" else host
        beside = 0
        if self.device == "cuda" and placement != "offload":
            # each of the two streams keeps its own blocks of memory
            beside = always + self.denoise.peak_bytes + self.decode.peak_bytes
        return MemoryPlan(placement, phases, host, disk, self.calls, beside)

    def without(self, parts: Iterable[str]) -> RunNeeds:
        """What is left on the run's own device when ``parts`` ("geometry", "codec") are on
        another."""
        zero, nothing, left = PartNeed(0, 0), Need(0, 0.0), self
        if "geometry" in parts:
            left = replace(left, weights={**left.weights, "geometry": zero}, warp=nothing)
        if "codec" in parts:
            left = replace(left, weights={**left.weights, "vae": zero}, encode=nothing)
            left = replace(left, decode=nothing)
        return left

    def alone(self, parts: Iterable[str], kind: str) -> int:
        """Bytes that ``parts`` ("denoiser", "geometry", "codec") take on a device of their own."""
        zero = PartNeed(0, 0)
        of = {
            "denoiser": ("transformer", (self.denoise,)),
            "geometry": ("geometry", (self.warp,)),
            "codec": ("vae", (self.encode, self.decode)),
        }
        names = set(parts)
        chosen = [of[name] for name in names]
        weights = sum(self.weights.get(name, zero).whole for name, _ in chosen)
        peak = max(need.peak_bytes for _, needs in chosen for need in needs)
        kept = self.graph_bytes if "denoiser" in names else 0
        return weights + peak + kept + _LIBRARY_BYTES[kind]


def _phase(name: str, weights: int, need: Need) -> Phase:
    return Phase(name, weights + need.peak_bytes, need.flops)
