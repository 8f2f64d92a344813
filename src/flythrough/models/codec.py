"""The video codec that generators and training use: frames to denoiser latents and back, and files.

A thin layer over ``TAEHV`` that speaks the library's axis order and the 4k + 1 frame convention of
the Wan and Hunyuan autoencoders: the first frame is a latent of its own and each later latent
covers four frames. The tiny encoder groups frames in fours from the start, so its clip is led by
three more copies of the first frame, which lines its groups up with that convention.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from flythrough.errors import InputError, WeightsError
from flythrough.models.taehv import TAEHV, StreamState
from flythrough.models.taehv_config import TAEHVConfig, config_from_dict, config_to_dict
from flythrough.models.taehv_weights import fit_state_dict, infer_config

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
CLASS_NAME = "TAEHV"

_STILL_FRAMES = 33
# Latent frames per pass without gradients. One at a time keeps activations in a CPU's caches
# (a third faster than nine at once) and the results are the same either way.
LATENTS_PER_PASS = {"cpu": 1, "cuda": 9}


class VideoCodec:
    """Video [B,3,T,H,W] in [0,1] to normalised latents [B,C,L,h,w] and back, L = 1 + (T - 1) / 4.

    Differentiable where gradients are on and the network's parameters ask for them; long clips are
    otherwise processed in slices of bounded memory, with the same result. Inputs may have any
    floating type; outputs are float32.
    """

    def __init__(self, net: TAEHV) -> None:
        config = net.config
        if config.framing != "standard" or config.time_downscale != config.time_upscale:
            raise InputError(
                f"a codec with framing {config.framing!r}, {config.time_downscale} frames a latent "
                f"in and {config.time_upscale} out cannot keep frames and latents in step; use one "
                "with standard framing and equal rates"
            )
        self.net = net
        self.per_pass: int | None = None  # latents decoded at once; None: what suits the device

    @property
    def config(self) -> TAEHVConfig:
        """Sizes of the network."""
        return self.net.config

    @property
    def latent_channels(self) -> int:
        """Channels of a latent."""
        return self.config.latent_channels

    @property
    def spatial(self) -> int:
        """Pixels along an axis that one latent pixel covers."""
        return self.config.space_downscale

    @property
    def temporal(self) -> int:
        """Frames that a latent covers (all but the first latent)."""
        return self.config.time_downscale

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.net.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the parameters and of the arithmetic."""
        return next(self.net.parameters()).dtype

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> VideoCodec:
        """Move the network (in place, as torch modules do) and return this codec."""
        self.net.to(device=device, dtype=dtype)
        return self

    def encode(self, video: Tensor) -> Tensor:
        """Video [B,3,T,H,W] in [0,1], T = 4k + 1, to latents [B,C,k+1,H/8,W/8] float32.

        Latent 0 covers frame 0 and latent i frames 4i-3 .. 4i. Raises InputError for other lengths
        and for sides that are not multiples of ``spatial``.
        """
        if video.ndim != 5 or (video.shape[2] - 1) % self.temporal:
            raise InputError(
                f"video of shape {tuple(video.shape)} cannot be encoded; it must be "
                f"[B, 3, T, H, W] with T one more than a multiple of {self.temporal}, so cut or "
                "repeat frames."
            )
        frames = video.to(self.dtype).transpose(1, 2)
        lead = frames[:, :1].expand(-1, self.temporal - 1, -1, -1, -1)
        frames = torch.cat([lead, frames], dim=1)
        latents = self._sliced(self.net.encode_stream, frames, self.temporal)
        return latents.transpose(1, 2).float()

    def encode_still(self, image: Tensor) -> Tensor:
        """The latent [B,C,1,h,w] in which a long still of ``image`` [B,3,1,H,W] settles.

        A lone first frame and a frame with a past have different latent statistics; this is the
        latter: the last latent of the image repeated for 33 frames.
        """
        return self.encode(image.expand(-1, -1, _STILL_FRAMES, -1, -1))[:, :, -1:]

    def decode(self, latents: Tensor, *, clamp: bool = True) -> Tensor:
        """Latents [B,C,L,h,w] to video [B,3,4L-3,8h,8w] float32, in [0,1] if ``clamp``.

        Training passes ``clamp=False``: a clamped pixel has no gradient.
        """

        def step(z: Tensor, state: StreamState | None) -> tuple[Tensor, StreamState]:
            return self.net.decode_stream(z, state, clamp=clamp)

        frames = self._sliced(step, latents.to(self.dtype).transpose(1, 2), 1)
        return frames.transpose(1, 2).float()

    def decode_stream(
        self, latents: Tensor, state: StreamState | None = None
    ) -> tuple[Tensor, StreamState]:
        """Decode the next latents [B,C,l,h,w] of a stream: (video [B,3,t,H,W] in [0,1], state).

        Start with ``state=None``: the first latent gives one frame and each later one four. All
        results joined equal ``decode`` of all latents joined. States are never changed in place.
        """
        frames, state = self.net.decode_stream(latents.to(self.dtype).transpose(1, 2), state)
        return frames.transpose(1, 2).float(), state

    def _sliced(
        self,
        step: Callable[[Tensor, StreamState | None], tuple[Tensor, StreamState]],
        x: Tensor,
        unit: int,
    ) -> Tensor:
        """Stream ``x`` [B,T,...] through ``step`` in slices, or at once when gradients flow."""
        wants_gradient = x.requires_grad or next(self.net.parameters()).requires_grad
        if torch.is_grad_enabled() and wants_gradient:
            return step(x, None)[0]
        parts, state = [], None
        count = self.per_pass or LATENTS_PER_PASS.get(x.device.type, 9)
        for piece in x.split(unit * count, dim=1):
            part, state = step(piece, state)
            parts.append(part)
        return torch.cat(parts, dim=1)


def save_codec(
    codec: VideoCodec, folder: str | Path, *, dtype: torch.dtype = torch.float16
) -> None:
    """Write ``config.json`` and the weights (in ``dtype``) to ``folder``, replacing older ones.

    Tools of the diffusers family read from the file that no mean or deviation has to be applied
    around this codec's latents.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    channels = codec.latent_channels
    values: dict[str, Any] = {"_class_name": CLASS_NAME, **config_to_dict(codec.config)}
    values |= {"latents_mean": [0.0] * channels, "latents_std": [1.0] * channels}
    state = {k: v.detach().to("cpu", dtype).contiguous() for k, v in codec.net.state_dict().items()}
    temporary = target / f"{WEIGHTS_FILE}.part"
    save_file(state, temporary, metadata={"format": "pt"})
    temporary.chmod(0o644)
    temporary.replace(target / WEIGHTS_FILE)
    (target / CONFIG_FILE).write_text(json.dumps(values, indent=2) + "\n")


def load_codec(
    path: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> VideoCodec:
    """Read a codec folder (``save_codec``), or a published TAEHV ``.safetensors`` file.

    A lone file has no configuration, so sizes are taken from its shapes. The codec comes back in
    evaluation mode, without gradients and with channels-last weights.

    Raises:
        WeightsError: a file is missing or unreadable, the folder holds another kind of codec, or
            weights and configuration do not fit (the keys are named).
    """
    source = Path(path)
    config: TAEHVConfig | None = None
    file = source
    if source.is_dir() or not source.suffix:
        config = _read_config(source / CONFIG_FILE)
        file = source / WEIGHTS_FILE
    state = _read_weights(file)
    net = TAEHV(config or infer_config(state))
    net.load_state_dict(fit_state_dict(net, state))
    net = net.to(device=device, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return VideoCodec(net.eval().requires_grad_(False))


def _read_config(file: Path) -> TAEHVConfig:
    try:
        values = json.loads(file.read_text())
        name = values.get("_class_name", CLASS_NAME)
        if name != CLASS_NAME:
            raise WeightsError(
                f"{file} describes a {name}, but the codec must be a {CLASS_NAME}; point to a "
                "folder with a codec of that kind"
            )
        return config_from_dict(values)
    except OSError as error:
        raise WeightsError(
            f"there is no codec configuration {file}; give a codec folder with {CONFIG_FILE} and "
            f"{WEIGHTS_FILE}"
        ) from error
    except (json.JSONDecodeError, AttributeError, TypeError) as error:
        raise WeightsError(
            f"{file} is no codec configuration ({error}); restore the file"
        ) from error


def _read_weights(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except OSError as error:
        raise WeightsError(
            f"there is no codec weight file {file}; download or copy the codec again"
        ) from error
    except SafetensorError as error:
        raise WeightsError(
            f"{file} is not a readable safetensors file ({error}); download or copy it again"
        ) from error
