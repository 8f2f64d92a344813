"""Flawed histories for training, so that a long rollout can live with its own mistakes.

At inference the past is the model's own output and drifts; training shows pasts that are missing,
noisy, blurred or off in contrast, so that the network takes history as context rather than truth
("Easy Anti-Drifting", Helios, arXiv 2603.04379). Everything is decided per sample from one
generator on the tensors' device; the number of draws never depends on what was drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from flythrough.conditioning.history import HISTORY_SIZES, LATENT_FRAMES
from flythrough.errors import InputError

CorruptionMode = Literal["noise", "downsample", "random"]


@dataclass(frozen=True, kw_only=True)
class CorruptionSettings:
    """Probabilities and ranges; :meth:`published` gives those of Helios.

    Attributes:
        drop_text: no history and no anchor, as when a video starts from text.
        drop_to_last: of the rest, only the newest latent is left, as when it starts from an image.
        drop_old: of the rest, the oldest latents are missing, as early in a video.
        clean: history left as it is.
        mode: "noise", "downsample", or "random" (noise with probability ``noise_share``).
        sigma: largest noise level in the long, mid and short band; the anchor counts as short.
        downsample: range of the factor by which latents are shrunk and enlarged again.
        saturation_clean: share of nine-latent windows whose contrast is left alone.
        saturation: lowest and highest contrast factor, 1 between them; both sides equally often.

    Raises:
        InputError: a probability or range that is none.
    """

    drop_text: float = 0.1
    drop_to_last: float = 0.1
    drop_old: float = 0.3
    clean: float = 0.1
    mode: CorruptionMode = "noise"
    noise_share: float = 0.9
    sigma: tuple[float, float, float] = (1 / 3, 1 / 3, 1 / 3)
    downsample: tuple[float, float] = (0.9, 1.0)
    saturation_clean: float = 0.7
    saturation: tuple[float, float] = (0.7, 1.3)

    def __post_init__(self) -> None:
        shares = ("drop_text", "drop_to_last", "drop_old", "clean", "noise_share")
        for name in (*shares, "saturation_clean"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(
                    f"{name} is {getattr(self, name)}, but it is a probability; choose "
                    "one in [0, 1]"
                )
        if self.mode not in ("noise", "downsample", "random"):
            raise InputError(
                f'corruption mode {self.mode!r} is unknown; choose "noise", "downsample" or '
                '"random"'
            )
        if not all(0.0 <= sigma <= 1.0 for sigma in self.sigma):
            raise InputError(f"noise levels {self.sigma} do not lie in [0, 1]; lower them")
        if not 0.0 < self.downsample[0] <= self.downsample[1] <= 1.0:
            raise InputError(
                f"downsample range {self.downsample} is none; give 0 < low <= high <= 1"
            )
        if not 0.0 < self.saturation[0] <= 1.0 <= self.saturation[1]:
            raise InputError(
                f"saturation range {self.saturation} does not contain 1; give 0 < low <= 1 <= high"
            )

    @classmethod
    def published(cls) -> CorruptionSettings:
        """The recommended configuration of Helios' training stages."""
        return cls(
            drop_text=0.4,
            drop_to_last=0.1,
            drop_old=0.4,
            mode="random",
            saturation_clean=0.1,
            saturation=(0.3, 1.7),
        )


def drop_history(
    past: Tensor, prefix: Tensor, source: torch.Generator, settings: CorruptionSettings
) -> tuple[Tensor, Tensor]:
    """Zero the history of some samples: all of it, all but the newest latent, or the oldest part.

    What remains of the oldest part is a random whole number of nine-latent windows, none included;
    zeros are what :func:`~flythrough.conditioning.history.native_history` puts where nothing is.

    Args:
        past: [B,C,n,h,w], oldest first; prefix: [B,C,1,h,w].
    """
    batch, frames = past.shape[0], past.shape[2]
    text, last, old, pick = _uniform(source, 4, batch).unbind(0)
    windows = sum(HISTORY_SIZES) // LATENT_FRAMES
    recent = torch.floor(pick * (windows + 1)) * LATENT_FRAMES
    keep = torch.where(old < settings.drop_old, recent, torch.full_like(recent, frames))
    keep = torch.where(last < settings.drop_to_last, torch.ones_like(keep), keep)
    no_text = text >= settings.drop_text
    kept = (_ages(frames, past.device) < keep[:, None]) & no_text[:, None]
    return past * _per_frame(kept.to(past)), prefix * _per_frame(no_text[:, None].to(prefix))


def corrupt_history(
    past: Tensor, prefix: Tensor, source: torch.Generator, settings: CorruptionSettings
) -> tuple[Tensor, Tensor]:
    """Noise or blur the history and the anchor, then drift the history's contrast.

    Latents that are all zero (no history there) stay zero.

    Args:
        past: [B,C,n,h,w], oldest first; prefix: [B,C,1,h,w].
    """
    batch, frames = past.shape[0], past.shape[2]
    together = torch.cat((past, prefix), dim=2)
    present = (together != 0).flatten(3).any(dim=3).any(dim=1)
    clean, kind = _uniform(source, 2, batch).unbind(0)
    levels = _uniform(source, batch, frames + 1) * _largest(frames, together, settings)
    noise = torch.randn(together.shape, generator=source, device=source.device)
    shrink = _uniform(source, batch)
    if settings.mode == "noise":
        kind = torch.full_like(kind, -1.0)
    elif settings.mode == "downsample":
        kind = torch.full_like(kind, 2.0)
    with_noise = (clean >= settings.clean) & (kind < settings.noise_share)
    with_blur = (clean >= settings.clean) & (kind >= settings.noise_share)
    level = _per_frame(levels * with_noise[:, None])
    flawed = level * noise + (1 - level) * together
    if settings.mode != "noise":
        low, high = settings.downsample
        blurred = _blurred(together, low + (high - low) * shrink, low)
        flawed = torch.where(with_blur[:, None, None, None, None], blurred, flawed)
    flawed = (flawed * _per_frame(present.to(flawed))).to(past)
    return _drifted(flawed[:, :, :frames], source, settings), flawed[:, :, frames:]


def _drifted(past: Tensor, source: torch.Generator, settings: CorruptionSettings) -> Tensor:
    """Contrast about the mean over channels, changed per nine-latent window counted as at
    inference: from the oldest latent of a full history."""
    batch, frames = past.shape[0], past.shape[2]
    place = sum(HISTORY_SIZES) - 1 - _ages(frames, past.device)
    window = torch.div(place, LATENT_FRAMES, rounding_mode="floor")
    window = window - window.min() if frames else window
    count = frames // LATENT_FRAMES + 2
    clean, side, amount = _uniform(source, 3, batch, count).unbind(0)
    low, high = settings.saturation
    factor = torch.where(side < 0.5, low + (1 - low) * amount, 1 + (high - 1) * amount)
    factor = torch.where(clean < settings.saturation_clean, torch.ones_like(factor), factor)
    mean = past.mean(dim=1, keepdim=True)
    # Written as a change, so that a factor of 1 leaves every bit alone.
    return past + (past - mean) * _per_frame(factor[:, window] - 1).to(past)


def _largest(frames: int, like: Tensor, settings: CorruptionSettings) -> Tensor:
    """The largest noise level of every latent of [past, anchor], by the band it falls into."""
    long, mid, short = settings.sigma
    age = torch.cat((_ages(frames, like.device), _ages(1, like.device)))
    newest, middle = HISTORY_SIZES[2], HISTORY_SIZES[2] + HISTORY_SIZES[1]
    level = torch.full(age.shape, long, dtype=torch.float32, device=like.device)
    level = torch.where(age < middle, torch.full_like(level, mid), level)
    return torch.where(age < newest, torch.full_like(level, short), level)


def _blurred(latents: Tensor, factor: Tensor, lowest: float) -> Tensor:
    """Each sample shrunk by its factor [B] and enlarged again.

    Resizing is linear, so both ways together are one matrix per side; a table of them keeps the
    batch together and the factor on the device.
    """
    rows, columns = (_resize_table(side, lowest, latents.device) for side in latents.shape[-2:])
    left = rows[_table_index(factor, rows)][:, None, None]
    right = columns[_table_index(factor, columns)][:, None, None]
    return left @ latents.to(left) @ right.transpose(-1, -2)


def _table_index(factor: Tensor, table: Tensor) -> Tensor:
    """The table's matrices are for sizes side, side-1, ..."""
    side = table.shape[-1]
    return (side - torch.floor(factor * side + 1e-6)).long().clamp(0, len(table) - 1)


@lru_cache(maxsize=16)
def _resize_table(side: int, lowest: float, device: torch.device) -> Tensor:
    """[k,side,side]: shrink to side, side-1, ... (antialiased) and back, as matrices."""
    with torch.inference_mode(mode=False):
        made = []
        for size in range(side, max(1, int(lowest * side + 1e-6)) - 1, -1):
            down = _resize_matrix(side, size, antialias=True)
            made.append(_resize_matrix(size, side, antialias=True) @ down)
        return torch.stack(made).to(device)


def _resize_matrix(source: int, target: int, *, antialias: bool) -> Tensor:
    """[target,source]: bilinear resizing of one axis."""
    eye = torch.eye(source)[None, None]
    resized = interpolate(eye, (target, source), mode="bilinear", antialias=antialias)
    return resized[0, 0]


def _ages(frames: int, device: torch.device) -> Tensor:
    """0 for the newest latent, rising towards the oldest, in order of time: [n]."""
    return torch.arange(frames - 1, -1, -1, device=device)


def _per_frame(values: Tensor) -> Tensor:
    """[B,n] or [1,n] as a factor of [B,C,n,h,w]."""
    return values[:, None, :, None, None]


def _uniform(source: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=source, device=source.device)
