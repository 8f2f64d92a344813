"""What each part of a model folder weighs, and what running it takes, without loading anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flythrough.disk import read_json
from flythrough.errors import WeightsError
from flythrough.models.accounting import Need, needed_by, weight_bytes
from flythrough.models.codec import LATENTS_PER_PASS, VideoCodec
from flythrough.models.depth_input import depth_input
from flythrough.models.expected import meta_network
from flythrough.models.helios import HeliosTransformer
from flythrough.models.history_tokens import History
from flythrough.models.monocular_files import MonocularFolder
from flythrough.models.st_diff import StDiff
from flythrough.models.wan_codec import Codec, codec_of

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
            in float32 all the same, the codec all.

    Raises:
        WeightsError: a configuration describes no network that can be used.
    """

    def __init__(
        self, folder: Path, device: str, dtype: torch.dtype, denoiser: str = "transformer"
    ) -> None:
        self.folder, self.dtype = folder, dtype
        self._transformer = _meta(folder, denoiser)
        assert isinstance(self._transformer, HeliosTransformer | StDiff)
        _cast(self._transformer, dtype, keep=tuple(self._transformer._keep_in_fp32_modules))
        self._text = _cast(_meta(folder, "text_encoder"), dtype)
        self._codec_net = _cast(_meta(folder, "vae"), torch.float32)
        self.codec: Codec = codec_of(self._codec_net)
        if isinstance(self.codec, VideoCodec):
            self.codec.per_pass = LATENTS_PER_PASS[device]
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
        return {
            name: PartNeed(weight_bytes(net), _streamed(net))
            for name, net in parts.items()
            if net is not None
        }

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

        return needed_by(run, [net])

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

        return needed_by(run, [net])

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


def depth_need(folder: MonocularFolder, size: tuple[int, int]) -> tuple[PartNeed, Need]:
    """Weights of a monocular depth network, which are float32 everywhere, and what it takes to
    look at one picture of ``size`` (height, width)."""
    net = meta_network("depth", folder.config)[1].eval().requires_grad_(False)
    inner = depth_input(folder.path, folder.config).inner_size(*size)
    need = needed_by(lambda: net(torch.empty(1, 3, *inner)).predicted_depth, [net])
    return PartNeed(weight_bytes(net), _streamed(net)), need


def _meta(folder: Path, part: str) -> nn.Module:
    file = folder / part / "config.json"
    try:
        config = read_json(file)
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(f"{file} cannot be read ({error}); restore the file.") from error
    return meta_network(part, config)[1].eval().requires_grad_(False)


def _cast(net: nn.Module, dtype: torch.dtype, keep: tuple[str, ...] = ()) -> nn.Module:
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
