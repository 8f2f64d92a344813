"""What each part of a model folder weighs, and what running it takes, without loading anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flythrough.disk import read_json
from flythrough.errors import WeightsError
from flythrough.models.accounting import Need, needed_by, needed_by_layers, weight_bytes
from flythrough.models.adapters import attach_lora
from flythrough.models.codec import LATENTS_PER_PASS, VideoCodec
from flythrough.models.depth_input import depth_input
from flythrough.models.expected import meta_network
from flythrough.models.fast.fp8 import saved_bytes
from flythrough.models.fast.wan_codec import FastWanCodec
from flythrough.models.headers import read_header
from flythrough.models.helios import HeliosTransformer
from flythrough.models.history_tokens import History
from flythrough.models.lora_files import read_lora
from flythrough.models.monocular_files import MonocularFolder
from flythrough.models.parts import LAYOUTS, weights_of
from flythrough.models.pi3x import Pi3X
from flythrough.models.pi3x_estimator import network_size
from flythrough.models.pi3x_priors import Priors
from flythrough.models.st_diff import StDiff
from flythrough.models.taehv import TAEHV
from flythrough.models.taehv_weights import infer_config
from flythrough.models.ttt3r import TTT3R
from flythrough.models.ttt3r_folder import StreamingFolder
from flythrough.models.ttt3r_frames import framing
from flythrough.models.wan_codec import codec_of

_CHUNK_FRAMES = 33


@dataclass(frozen=True)
class PartNeed:
    """A network's weights in bytes.

    ``whole``: all of them; ``streamed``: the most that lies on the device at a time when layers
    come one by one, each while its predecessor runs.
    """

    whole: int
    streamed: int


class ModelNeeds:
    """Measures the networks of a folder on the meta device.

    Args:
        folder: a complete model folder.
        device: cpu or cuda, the kind that the run is for.
        denoiser: the part that is run: ``transformer``, or ``st_diff``.
        dtype: of the denoiser's and the text encoder's weights once loaded; the denoiser keeps some
            in float32 all the same.
        codec: a TAEHV folder or file in place of the folder's own codec.
        codec_dtype: what the codec computes in; its fast path where it has one for that type.
        adapters: files or folders of adapters that run beside the denoiser's weights.
        eight_bits: the denoiser's large weights are 8-bit.
        stored_as: the type that the denoiser will be stored in, where ``folder`` has no weights.
        card_bytes: memory of the GPU, if another one than that of this machine is meant.

    Raises:
        WeightsError: a configuration describes no network that can be used, or an adapter does not
            fit the denoiser.
    """

    def __init__(
        self,
        folder: Path,
        device: str,
        dtype: torch.dtype,
        denoiser: str = "transformer",
        *,
        codec: Path | None = None,
        codec_dtype: torch.dtype = torch.float32,
        adapters: Sequence[Path] = (),
        eight_bits: bool = False,
        stored_as: str | None = None,
        card_bytes: int | None = None,
    ) -> None:
        self.folder, self.dtype = folder, dtype
        self._transformer = _meta(folder, denoiser)
        assert isinstance(self._transformer, HeliosTransformer | StDiff)
        self._stored_as = stored_as
        self._numbers = sum(p.numel() for p in self._transformer.parameters())  # adapters apart
        cast(self._transformer, dtype, keep=tuple(self._transformer._keep_in_fp32_modules))
        for number, file in enumerate(adapters):
            assert isinstance(self._transformer, HeliosTransformer)
            attach_lora(self._transformer, read_lora(file), f"adapter{number}")
            _to_meta(self._transformer, dtype)  # PEFT moves only the first one
        self.eight_bits = eight_bits
        self._saved = saved_bytes(self._transformer.blocks) if eight_bits else 0
        self._denoiser = denoiser
        self._text = cast(_meta(folder, "text_encoder"), dtype)
        own = _meta(folder, "vae") if codec is None else _meta_taehv(codec)
        self.codec = codec_of(cast(own, codec_dtype), codec_dtype)
        self._codec_net: nn.Module = self.codec.net
        if isinstance(self.codec, VideoCodec):
            self.codec.per_pass = LATENTS_PER_PASS[device]
        elif isinstance(self.codec, FastWanCodec):
            self.codec.card_bytes = card_bytes
        geometry = folder / "geometry"
        self._geometry = _meta(folder, "geometry") if geometry.is_dir() else None

    def weights(self) -> dict[str, PartNeed]:
        """By part: transformer, text_encoder, vae and, if the folder has one, geometry."""
        parts = {
            "transformer": self._transformer,
            "text_encoder": self._text,
            "vae": self._codec_net,
            "geometry": self._geometry,
        }
        found = {
            name: PartNeed(weight_bytes(net), _streamed(net))
            for name, net in parts.items()
            if net is not None
        }
        whole = found["transformer"]
        found["transformer"] = replace(whole, whole=whole.whole - self._saved)
        return found

    def copied_bytes(self) -> int:
        """Host memory that reading the denoiser's files takes: tensors of another type than the
        run's are converted, the others stay pages of their file, which give way."""
        own = "BF16" if self.dtype == torch.bfloat16 else "F32"
        if self._stored_as is not None:
            return 0 if self._stored_as == own else self._numbers * self.dtype.itemsize
        files = weights_of(self.folder / self._denoiser, LAYOUTS["transformer"].weights).files
        stored = [tensor for file in files for tensor in read_header(file).values()]
        return sum(t.count * self.dtype.itemsize for t in stored if t.dtype != own)

    def text(self, tokens: int) -> Need:
        """Encoding one prompt of ``tokens`` tokens: scores of one layer in float32 and one feed-
        forward at a time (transformers' encoder cannot be run on shapes alone)."""
        config: Any = self._text.config
        width, hidden, heads = int(config.d_model), int(config.d_ff), int(config.num_heads)
        size = self.dtype.itemsize
        rows = tokens * (6 * width + 3 * hidden) * size
        scores = heads * tokens**2 * (2 * size + 6)
        numbers = sum(p.numel() for p in self._text.parameters()) - width * int(config.vocab_size)
        return Need(rows + scores, 2.0 * numbers * tokens)

    def denoise(
        self, size: tuple[int, int], scale: int, history: Callable[[tuple[int, int]], History]
    ) -> Need:
        """One call on nine latents at ``1 / scale`` of the full latent ``size`` of a chunk, with
        every history token seen; ``history`` makes it for a latent size."""
        net = self._transformer
        assert isinstance(net, HeliosTransformer)
        rows, columns = size[0] // scale, size[1] // scale
        frames = (_CHUNK_FRAMES - 1) // self.codec.temporal + 1
        text = (1, 512, int(net.config["text_dim"]))

        def run() -> Tensor:
            packed = net.pack_history(history(size))
            noisy = torch.empty(1, self.codec.latent_channels, frames, rows, columns)
            return net(
                noisy.to(self.dtype),
                torch.empty(1),
                torch.empty(text, dtype=self.dtype),
                indices_hidden_states=torch.arange(frames)[None],
                history=packed,
            ).float()

        return needed_by_layers(run, net)

    def denoise_tokens(self, size: tuple[int, int], frames: int, text_length: int) -> Need:
        """One call of an ST-Diff on ``frames`` latents of ``size``, with three noise levels."""
        net = self._transformer
        assert isinstance(net, StDiff)
        rows, columns = size
        text = (1, text_length, int(net.config["text_dim"]))
        level = torch.empty(1, frames * (rows // 2) * (columns // 2), dtype=torch.long)

        def run() -> Tensor:
            noisy = torch.empty(1, self.codec.latent_channels, frames, rows, columns)
            words = torch.empty(text, dtype=self.dtype)
            return net.at_levels(noisy, torch.empty(3), level.to(noisy.device), words).float()

        return needed_by_layers(run, net)

    def encode(self, size: tuple[int, int], chunk_frames: int = _CHUNK_FRAMES) -> Need:
        """A chunk of frames of ``size`` (height, width) to latents."""
        clip = (1, 3, chunk_frames, *size)
        return needed_by(lambda: self.codec.encode(torch.empty(clip)), [self._codec_net])

    def decode(self, size: tuple[int, int], chunk_frames: int = _CHUNK_FRAMES) -> Need:
        """A chunk of latents to frames of ``size`` in 8 bit."""
        frames = (chunk_frames - 1) // self.codec.temporal + 1
        factor = self.codec.spatial
        shape = (1, self.codec.latent_channels, frames, size[0] // factor, size[1] // factor)

        def run() -> Tensor:
            clip = self.codec.decode(torch.empty(shape))[0]
            return (clip.clamp(0, 1) * 255).round().byte()

        return needed_by(run, [self._codec_net])

    def geometry(self, size: tuple[int, int], views: int, pixel_limit: int | None = None) -> Need:
        """The model's own geometry network looking at ``views`` pictures of ``size`` with known
        focal lengths, in float32: on a GPU, where it runs in bfloat16, it takes less."""
        net = self._geometry
        assert isinstance(net, Pi3X)
        own = net.config.pixel_limit
        limit = own if pixel_limit is None else min(own, pixel_limit)
        inner = network_size(*size, limit)

        def run() -> object:
            priors = None
            if net.config.multimodal:
                priors = Priors(intrinsics=torch.empty(1, views, 3, 3))
            return net(torch.empty(1, views, 3, *inner), priors)

        return needed_by(run, [net])


def depth_need(folder: MonocularFolder, size: tuple[int, int]) -> tuple[PartNeed, Need]:
    """Weights of a monocular depth network, which are float32 everywhere, and what it takes to
    look at one picture of ``size`` (height, width)."""
    net = meta_network("depth", folder.config)[1].eval().requires_grad_(False)
    inner = depth_input(folder.path, folder.config).inner_size(*size)
    need = needed_by(lambda: net(torch.empty(1, 3, *inner)).predicted_depth, [net])
    return PartNeed(weight_bytes(net), _streamed(net)), need


def streaming_need(folder: StreamingFolder, size: tuple[int, int]) -> tuple[PartNeed, Need]:
    """Weights of a streaming geometry network, float32 everywhere, and what it takes to look at
    one frame of ``size`` (height, width)."""
    with torch.device("meta"):
        net = TTT3R(folder.config).eval().requires_grad_(False)
    outer = framing(size, folder.config.long_side).outer

    def run() -> Tensor:
        features = net.encode(torch.empty(1, 3, *outer))
        return net.step(features, net.start(), outer, everything=False)[0].points

    return PartNeed(weight_bytes(net), _streamed(net)), needed_by(run, [net])


def _meta(folder: Path, part: str, kind: str | None = None) -> nn.Module:
    """The network in ``folder``/``part``, which is a ``kind`` (None: what the part is called)."""
    file = folder / part / "config.json"
    try:
        config = read_json(file)
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(f"{file} cannot be read ({error}); restore the file.") from error
    return meta_network(kind or part, config)[1].eval().requires_grad_(False)


def _meta_taehv(source: Path) -> nn.Module:
    """The TAEHV of a codec folder, or of a published file, whose shapes say what it is."""
    if source.is_dir():
        return _meta(source.parent, source.name, "vae")
    shapes = {name: tensor.shape for name, tensor in read_header(source).items()}
    with torch.device("meta"):
        net = TAEHV(infer_config({name: torch.empty(shape) for name, shape in shapes.items()}))
    return net.eval().requires_grad_(False)


def _to_meta(net: nn.Module, dtype: torch.dtype) -> None:
    """Parameters that are elsewhere, in ``dtype``."""
    for module in net.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.is_meta:
                shape = torch.empty_like(parameter, device="meta", dtype=dtype)
                module._parameters[name] = nn.Parameter(shape, requires_grad=False)


def cast(net: nn.Module, dtype: torch.dtype, keep: tuple[str, ...] = ()) -> nn.Module:
    """Floating parameters in ``dtype``, except those below a module or of a name in ``keep``;
    shared ones stay shared."""
    made: dict[int, nn.Parameter] = {}
    for module_name, module in net.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.is_floating_point():
                continue
            path = f"{module_name}.{name}".split(".")
            kind = torch.float32 if any(word in path for word in keep) else dtype
            if id(parameter) not in made:
                made[id(parameter)] = nn.Parameter(parameter.to(kind), requires_grad=False)
            module._parameters[name] = made[id(parameter)]
    return net


def _streamed(net: nn.Module) -> int:
    """Two successive layers at a time, and what is no layer's all the time."""
    layers = {id(m.weight): m for m in net.modules() if isinstance(m, _LAYERS)}  # ties once
    sizes = [weight_bytes(layer) for layer in layers.values()]
    pairs = [a + b for a, b in pairwise(sizes)] or sizes or [0]
    return max(pairs) + weight_bytes(net) - sum(sizes)


_LAYERS = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d)
