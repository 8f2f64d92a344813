"""TAEHV: a tiny convolutional video autoencoder (``madebyollin/taehv``) with the published keys.

Two stacks of 2-D convolutions run frame by frame; time enters through a one-frame memory in each
residual block and through 1x1 convolutions that merge or split pairs of frames. It stands in for
the Wan / Hunyuan video autoencoders: its latents are the *normalised* ones that the denoiser sees,
so no per-channel mean or deviation is applied around it.

Video is [N, T, 3, H, W] in [0, 1] and latents are [N, L, C, H / s, W / s] throughout this module,
with s = 8 * patch_size for the usual three stages.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from flythrough.errors import InputError
from flythrough.models.taehv_config import NANO_CONFIG, TAEHVConfig
from flythrough.models.taehv_layers import (
    MemBlock,
    Memories,
    SoftClamp,
    SuperMemBlock,
    TGrow,
    TPool,
    conv,
    run,
)

__all__ = ["NANO_CONFIG", "TAEHV", "StreamState", "TAEHVConfig"]

_H3_CHUNK = 17  # frames that the H3 variant encodes together
_H3_LEAD = 3  # black frames in front of each of them


@dataclass(frozen=True, eq=False)
class StreamState:
    """What one side of the codec remembers between slices of a clip.

    ``memories`` has one entry a layer (see ``taehv_layers.run``); ``to_trim`` counts raw frames
    that are still to be dropped at the start of the stream. States are values: an old one stays
    good, so a stream can be branched or rewound.
    """

    memories: Memories
    to_trim: int


class TAEHV(nn.Module):
    """The autoencoder; parameters are named as in the published weight files.

    ``encode_frames`` and ``decode_frames`` are differentiable and run the clip in one piece;
    ``encode_stream`` and ``decode_stream`` give the same numbers slice by slice.
    """

    def __init__(self, config: TAEHVConfig | None = None) -> None:
        super().__init__()
        self.config = config or TAEHVConfig()
        self.encoder = _build_encoder(self.config)
        self.decoder = _build_decoder(self.config)

    def encode_frames(self, video: Tensor) -> Tensor:
        """Video [N,T,3,H,W] in [0,1] to latents [N,ceil(T/4),C,h,w].

        If T is not a multiple of the temporal stride the last frame is repeated until it is, as
        published; H and W must be multiples of 8 * patch_size.
        """
        if self.config.framing == "h3":
            return self._encode_h3(video)
        short = -video.shape[1] % self.config.time_downscale
        return self.encode_stream(_repeat_last(video, short))[0]

    def decode_frames(self, latents: Tensor, *, clamp: bool = True) -> Tensor:
        """Latents [N,L,C,h,w] to video [N,4L-3,3,H,W], in [0,1] if ``clamp``."""
        raw = self.decode_raw(latents, clamp=clamp)[0]
        if self.config.framing == "h3":
            return _trim_h3(raw)
        if self.config.framing == "cogvideox" and latents.shape[1] % 2 == 0:
            return raw
        return raw[:, self.config.time_upscale - 1 :]

    def encode_stream(
        self, video: Tensor, state: StreamState | None = None
    ) -> tuple[Tensor, StreamState]:
        """Encode the next frames of a stream: [N,t,3,H,W] -> ([N,l,C,h,w], state).

        Frames that do not fill a latent yet wait in the state, so l may be zero.
        """
        self._check_video(video)
        memories = state.memories if state is not None else None
        x = functional.pixel_unshuffle(_fold(video), self.config.patch_size)
        z, memories = run(self.encoder, x, video.shape[0], memories)
        if z.shape[0] == 0:  # still collecting the first latent's frames
            height, width = (side // self.config.space_downscale for side in video.shape[3:])
            z = z.new_zeros(0, self.config.latent_channels, height, width)
        return _unfold(z, video.shape[0]), StreamState(memories, 0)

    def decode_stream(
        self, latents: Tensor, state: StreamState | None = None, *, clamp: bool = True
    ) -> tuple[Tensor, StreamState]:
        """Decode the next latents of a stream: [N,l,C,h,w] -> ([N,t,3,H,W] in [0,1], state).

        The first latent of a stream gives 1 frame, every later one 4. Joined results equal
        ``decode_frames`` of the joined latents (standard framing). Values may leave [0, 1] if
        ``clamp`` is off.
        """
        trim = state.to_trim if state is not None else self.config.time_upscale - 1
        memories = state.memories if state is not None else None
        raw, memories = self.decode_raw(latents, memories, clamp=clamp)
        dropped = min(trim, raw.shape[1])
        return raw[:, dropped:], StreamState(memories, trim - dropped)

    def decode_raw(
        self, latents: Tensor, memories: Memories | None = None, *, clamp: bool = True
    ) -> tuple[Tensor, Memories]:
        """Every decoded frame [N,4l,3,H,W] in [0,1], before the start of the stream is trimmed."""
        if latents.ndim != 5 or latents.shape[2] != self.config.latent_channels:
            raise InputError(
                f"latents of shape {tuple(latents.shape)} do not fit this codec, which needs "
                f"[N, L, {self.config.latent_channels}, h, w]; check which codec made them"
            )
        x, memories = run(self.decoder, _fold(latents), latents.shape[0], memories)
        frames = functional.pixel_shuffle(x, self.config.patch_size)
        if clamp:
            frames = frames.clamp(0, 1)
        return _unfold(frames, latents.shape[0]), memories

    def _check_video(self, video: Tensor) -> None:
        multiple = self.config.space_downscale
        if video.ndim != 5 or video.shape[2] != 3 or video.shape[1] < 1:
            raise InputError(
                f"video of shape {tuple(video.shape)} cannot be encoded; it must be "
                "[N, T, 3, H, W] with at least one frame"
            )
        if video.shape[3] % multiple or video.shape[4] % multiple:
            raise InputError(
                f"frames of {video.shape[3]}x{video.shape[4]} pixels (height x width) cannot be "
                f"encoded because both sides must be multiples of {multiple}; crop or resize them"
            )

    def _encode_h3(self, video: Tensor) -> Tensor:
        """17-frame chunks, each behind three black frames; the tail's empty latents are dropped."""
        video = _repeat_last(video, -video.shape[1] % _H3_CHUNK)
        black = torch.zeros_like(video[:, :_H3_LEAD])
        chunks = video.split(_H3_CHUNK, dim=1)
        latents = [self.encode_stream(torch.cat([black, chunk], dim=1))[0] for chunk in chunks]
        return torch.cat(latents, dim=1)[:, :-3]


def _trim_h3(raw: Tensor) -> Tensor:
    group = _H3_CHUNK + _H3_LEAD
    count, frames = raw.shape[0], raw.shape[1]
    padded = functional.pad(raw, (0, 0, 0, 0, 0, 0, 0, -frames % group))
    kept = padded.reshape(count, -1, group, *raw.shape[2:])[:, :, _H3_LEAD:].flatten(1, 2)
    return kept[:, :-12]


def _repeat_last(video: Tensor, times: int) -> Tensor:
    if times == 0:
        return video
    return torch.cat([video, video[:, -1:].expand(-1, times, -1, -1, -1)], dim=1)


def _fold(x: Tensor) -> Tensor:
    """[N,T,C,H,W] to time-major [T*N,C,H,W] in channels-last storage."""
    folded = x.transpose(0, 1).reshape(-1, *x.shape[2:])
    return folded.contiguous(memory_format=torch.channels_last)


def _unfold(x: Tensor, batch: int) -> Tensor:
    return x.reshape(x.shape[0] // batch, batch, *x.shape[1:]).transpose(0, 1)


def _build_encoder(config: TAEHVConfig) -> nn.Sequential:
    width = config.encoder_width
    layers: list[nn.Module] = [conv(3 * config.patch_size**2, width), nn.ReLU(inplace=True)]
    for halve in config.encoder_time_downscale:
        layers += [TPool(width, 2 if halve else 1), conv(width, width, stride=2, bias=False)]
        layers += [MemBlock(width) for _ in range(3)]
    return nn.Sequential(*layers, conv(width, config.latent_channels))


def _build_decoder(config: TAEHVConfig) -> nn.Sequential:
    stages = _super_stages if config.variant == "super" else _base_stages
    return nn.Sequential(*stages(config), conv(config.decoder_widths[3], 3 * config.patch_size**2))


def _base_stages(config: TAEHVConfig) -> list[nn.Module]:
    widths = config.decoder_widths
    layers: list[nn.Module] = [SoftClamp(), conv(config.latent_channels, widths[0])]
    layers.append(nn.ReLU(inplace=True))
    for i, (space, time) in enumerate(
        zip(config.decoder_space_upscale, config.decoder_time_upscale, strict=True)
    ):
        layers += [MemBlock(widths[i]) for _ in range(3)]
        layers.append(nn.Upsample(scale_factor=2 if space else 1, mode="nearest"))
        layers.append(TGrow(widths[i], 2 if time else 1))
        layers.append(conv(widths[i], widths[i + 1], bias=False))
    return [*layers, nn.ReLU(inplace=True)]


def _super_stages(config: TAEHVConfig) -> list[nn.Module]:
    widths = config.decoder_widths
    layers: list[nn.Module] = [nn.Conv2d(config.latent_channels, widths[0], 1, bias=False)]
    for i, (space, time) in enumerate(
        zip(config.decoder_space_upscale, config.decoder_time_upscale, strict=True)
    ):
        scale, out = (2 if space else 1), widths[i + 1]
        layers += [SuperMemBlock(widths[i]) for _ in range(3)]
        layers += [conv(widths[i], out * scale**2), nn.ReLU(inplace=True)]
        layers += [nn.PixelShuffle(scale), TGrow(out, 2 if time else 1)]
    return layers
