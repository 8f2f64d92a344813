"""Training of the small video codec (TAEHV architecture) as a whole autoencoder.

Besides reconstruction, the latents are shaped for a pyramid diffusion model: zero mean and unit
deviation per channel, noise-tolerant decoding, and halved latents that decode to the halved video
(a scale-consistency term in the spirit of EQ-VAE, Kouzelis et al. 2025), because the pyramid
sampler starts from latents at a quarter of the size.

Errors alone make soft pictures; ``detail`` asks for as much fine structure as the truth has at each
place. ``keep_encoder`` trains the decoder alone, so that every network that was trained on this
codec's latents stays good.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from flythrough import seeds
from flythrough.media.picture import contact_sheet
from flythrough.models.codec import VideoCodec, save_codec
from flythrough.models.taehv import TAEHV
from flythrough.training.image_losses import (
    chroma,
    detail_loss,
    detail_ratio,
    gradient_loss,
    multi_scale_ssim,
    psnr,
)
from flythrough.training.photos import PhotoClips
from flythrough.training.pictures import save_png, to_bytes

_ZOOM = (0.6, 0.95)
ClipSource = Callable[[int, int], Tensor]


@dataclass(frozen=True, kw_only=True)
class CodecSettings:
    """Weights of the loss terms, and shape of a step: crops of ``size`` of pictures of ``view``."""

    size: tuple[int, int] = (192, 320)
    view: tuple[int, int] = (192, 320)
    frames: int = 13
    batch: int = 12
    seed: int = 0
    chroma: float = 1.0
    gradient: float = 0.5
    ssim: float = 0.25
    statistics: float = 0.05
    scale: float = 0.25
    latent_noise: float = 0.1
    detail: float = 0.0
    keep_encoder: bool = False


class CodecTask:
    """Reconstruct world clips and drifting photographs through 16-channel latents.

    Args:
        model: the network to train.
        worlds: (step, rank) -> clips [B,3,T,H,W] in [0,1] on the device, or None.
        photos: drifting stills, or None to train on worlds alone.
        heldout: clips [B,3,T,H,W] never trained on, by name, for the figures.
    """

    name = "codec"

    def __init__(
        self,
        model: TAEHV,
        settings: CodecSettings,
        worlds: ClipSource | None,
        photos: PhotoClips | None,
        heldout: dict[str, Tensor],
    ) -> None:
        self.model, self.settings = model, settings
        self.worlds, self.photos, self.heldout = worlds, photos, heldout
        self.modules = nn.ModuleDict({"codec": model})
        if settings.keep_encoder:
            model.encoder.requires_grad_(False)

    def loss(self, step: int, rank: int) -> dict[str, Tensor]:
        s = self.settings
        clips = [] if self.worlds is None else [self.worlds(step, rank)]
        if self.photos is not None:
            source = seeds.generator(s.seed, "photo-clips", step, rank)
            count = s.batch - sum(len(c) for c in clips)
            clips.append(photo_crops(self.photos, count, s, source))
        video = torch.cat(clips)
        latents = encode_video(self.model, video)
        noise = torch.randn_like(latents) * torch.rand_like(latents[:, :1, :1, :1, :1])
        decoded = decode_video(self.model, latents + s.latent_noise * noise)
        losses = self._reconstruction(decoded, video)
        losses["statistics"] = latent_statistics(latents)
        losses["scale"] = self._scale_consistency(latents, video, step)
        losses["total"] = (
            losses["l1"]
            + s.chroma * losses["chroma"]
            + s.gradient * losses["gradient"]
            + s.ssim * losses["ssim"]
            + s.statistics * losses["statistics"]
            + s.scale * losses["scale"]
        )
        if s.detail:
            losses["detail"] = detail_loss(_as_images(decoded), _as_images(video))
            losses["total"] = losses["total"] + s.detail * losses["detail"]
        return losses

    def _reconstruction(self, decoded: Tensor, video: Tensor) -> dict[str, Tensor]:
        images, truth = _as_images(decoded), _as_images(video)
        return {
            "l1": (images - truth).abs().mean(),
            "chroma": (chroma(images) - chroma(truth)).abs().mean(),
            "gradient": gradient_loss(images, truth),
            "ssim": 1 - multi_scale_ssim(images, truth),
        }

    def _scale_consistency(self, latents: Tensor, video: Tensor, step: int) -> Tensor:
        factor = 2 if step % 3 else 4
        small = decode_video(self.model, _shrunk(latents, factor))
        return (_as_images(small) - _as_images(_shrunk(video, factor))).abs().mean()

    def preview(self, folder: Path, step: int) -> dict[str, float]:
        figures, rows = {}, []
        for name, video in self.heldout.items():
            decoded = decode_video(self.model, encode_video(self.model, video)).clamp(0, 1)
            figures[f"psnr_{name}"] = float(psnr(_as_images(decoded), _as_images(video)).mean())
            colours = chroma(_as_images(decoded)), chroma(_as_images(video))
            figures[f"chroma_psnr_{name}"] = float(psnr(*colours).mean())
            ssim = multi_scale_ssim(_as_images(decoded), _as_images(video), scales=1)
            figures[f"ssim_{name}"] = float(ssim)
            figures[f"detail_{name}"] = detail_ratio(_as_images(decoded), _as_images(video))
            for index in range(min(3, len(video))):
                rows += [to_bytes(video[index, :, -1]), to_bytes(decoded[index, :, -1])]
        save_png(contact_sheet(rows, columns=6), folder / f"codec-{step:06d}.png")
        return figures

    def export(self, folder: Path) -> None:
        save_codec(VideoCodec(self.model), folder / "vae")


def photo_crops(
    photos: PhotoClips, count: int, settings: CodecSettings, source: torch.Generator
) -> Tensor:
    """Crops [count,3,T,h,w] of drifting photographs as they come to a user's run: drawn at twice
    the size of the view and averaged down, so that fine detail is neither aliased nor magnified."""
    height, width = settings.view
    large = photos.clips(count, settings.frames, (2 * height, 2 * width), source, zoom=_ZOOM)
    clips = functional.avg_pool3d(large, (1, 2, 2))
    return random_crops(clips, settings.size, source)


def random_crops(video: Tensor, size: tuple[int, int], source: torch.Generator) -> Tensor:
    """One window [B,C,T,h,w] of each clip [B,C,T,H,W]."""
    pieces = []
    for clip in video:
        top = int(torch.randint(clip.shape[-2] - size[0] + 1, (1,), generator=source))
        left = int(torch.randint(clip.shape[-1] - size[1] + 1, (1,), generator=source))
        pieces.append(clip[..., top : top + size[0], left : left + size[1]])
    return torch.stack(pieces)


def encode_video(model: TAEHV, video: Tensor) -> Tensor:
    """[B,3,T,H,W] in [0,1], T = 4k+1 -> latents [B,16,k+1,h,w], differentiable."""
    return VideoCodec(model).encode(video)


def decode_video(model: TAEHV, latents: Tensor) -> Tensor:
    """Latents [B,16,L,h,w] -> [B,3,4L-3,H,W], differentiable."""
    return VideoCodec(model).decode(latents, clamp=False)


def latent_statistics(latents: Tensor) -> Tensor:
    """Penalty that is zero when every channel has mean 0 and deviation 1 over the batch."""
    flat = latents.float().transpose(0, 1).flatten(1)
    return (flat.mean(1).square() + (flat.std(1) - 1).square()).mean()


def _as_images(video: Tensor) -> Tensor:
    return video.transpose(1, 2).flatten(0, 1)


def _shrunk(video: Tensor, factor: int) -> Tensor:
    return functional.avg_pool3d(video, (1, factor, factor))
