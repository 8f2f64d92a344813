"""Seams between chunks of the bundled model, decoded apart and led over, on held-out worlds.

Usage: python bench/seams.py [-o OUTPUT.json] [--latents FOLDER] [--sheets FOLDER]

Three sources: the codec alone (each 33 frames of the truth encoded apart), generated with the
camera path and the exact depth of the photo, and generated from the photo without a camera. Latents
are the same in all modes, so they are made once and kept in --latents. The mode "warm" (decoder
state carried over from three latents of the chunk before) is not offered by the program. The worlds
are other ones than those that the constants of ``generators/seams.py`` were chosen on (9000101 to
9000105).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from flythrough.engine.request import GenerateRequest, check
from flythrough.engine.run import advance, start_job
from flythrough.evaluation.seam import Motion, motion_from_depth, seam_score
from flythrough.generators.seams import softened
from flythrough.models.wan_codec import Codec, load_any_codec
from flythrough.rollout.chunk import CHUNK_FRAMES
from flythrough.worlds.clips import Clip, ClipSettings, clip

SIZE, FRAMES = (192, 320), 2 * CHUNK_FRAMES
WORLDS = (
    (9_000_201, "room", "orbit left 15deg"),
    (9_000_202, "street", "forward 0.5"),
    (9_000_203, "gallery", "pan right 24deg"),
)
SHEET = range(30, 37)


@dataclass(frozen=True)
class Row:
    """One video: scores, and where the truth is known PSNR (dB) of the new chunk's first four and
    of all its frames; sharpness is 1000 times the mean absolute Laplacian of luminance."""

    world: int
    source: str
    mode: str
    seam: float
    after: float
    psnr_first: float | None
    psnr_chunk: float | None
    sharp_before: float
    sharp_first: float
    sharp_rest: float


def apart(codec: Codec, latents: Tensor) -> Tensor:
    """Latents [n,16,9,h,w] to a video [1,3,33n,H,W], every chunk on its own."""
    return torch.cat([codec.decode(part[None]) for part in latents], dim=2)


def warm(codec: Codec, latents: Tensor) -> Tensor:
    """As one stream, begun three latents before each chunk; a first latent that comes later in a
    stream gives three frames too many."""
    parts = [codec.decode(latents[:1])]
    for before, part in pairwise(latents):
        joined = torch.cat([before[:, -3:], part], dim=1)
        parts.append(codec.decode(joined[None])[:, :, -CHUNK_FRAMES:])
    return torch.cat(parts, dim=2)


def smooth(apart_video: Tensor) -> Tensor:
    """What ``--seams smooth`` shows, from the chunks decoded apart."""
    parts: list[Tensor] = []
    for part in apart_video.split(CHUNK_FRAMES, dim=2):
        parts.append(_shown(softened(part, parts[-1][:, :, -2:]) if parts else part))
    return torch.cat(parts, dim=2)


def measured(world: int, source: str, mode: str, video: Tensor, truth: Clip) -> Row:
    motion = None if source == "no camera" else motion_of(truth)
    compared = source in ("codec alone", "camera")
    score = seam_score(video[0].transpose(0, 1), motion)
    sharp = 1000 * sharpness(video)
    first, exact = slice(CHUNK_FRAMES, CHUNK_FRAMES + 4), truth.rgb.transpose(0, 1)[None]
    chunk = slice(CHUNK_FRAMES, None)
    return Row(
        world,
        source,
        mode,
        round(score.score, 3),
        round(score.after, 3),
        psnr(video[:, :, first], exact[:, :, first]) if compared else None,
        psnr(video[:, :, chunk], exact[:, :, chunk]) if compared else None,
        round(float(sharp[CHUNK_FRAMES - 4 : CHUNK_FRAMES].mean()), 2),
        round(float(sharp[first].mean()), 2),
        round(float(sharp[CHUNK_FRAMES + 4 :].mean()), 2),
    )


def motion_of(truth: Clip) -> Motion:
    return motion_from_depth(truth.depth, truth.world_from_camera, truth.intrinsics)


def psnr(video: Tensor, exact: Tensor) -> float:
    return round(float(-10 * torch.log10((video - exact).square().mean())), 3)


def sharpness(video: Tensor) -> Tensor:
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    return functional.conv2d(video[0].mean(0)[:, None], kernel).abs().mean((1, 2, 3))


def generated(truth: Clip, path: str | None) -> np.ndarray:
    """Latents [n,16,9,h,w] that the bundled model makes from the world's photo."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photo = (truth.rgb[0].permute(1, 2, 0) * 255).round().byte().numpy()
        Image.fromarray(photo).save(folder / "photo.png")
        depth = truth.depth[:1].masked_fill(truth.sky[:1], 0.0).numpy()
        np.savez(folder / "depth.npz", depth=depth, sky=truth.sky[:1].numpy())
        led: dict[str, Any] = {}
        if path is not None:
            led = {"camera": path, "geometry": str(folder / "depth.npz")}
        request = GenerateRequest(
            image=folder / "photo.png",
            prompt=truth.caption,
            frames=FRAMES,
            seed=1,
            device="cpu",
            output=folder / "out.mp4",
            **led,
        )
        job = start_job(check(request), print)
        for _ in advance(job, lambda *_: None):
            pass
        return np.stack([chunk.latents for chunk in job.rollout.chunks])


def latents_of(codec: Codec, truth: Clip, path: str, store: Path) -> dict[str, Tensor]:
    """Latents by source; those that take long are kept in ``store``."""
    file = store / f"{truth.seed}.npz"
    if not file.exists():
        np.savez(file, camera=generated(truth, path), free=generated(truth, None))
    known = np.load(file)
    exact = truth.rgb.transpose(0, 1)[None]
    windows = [codec.encode(part) for part in exact.split(CHUNK_FRAMES, dim=2)]
    return {
        "codec alone": torch.cat(windows),
        "camera": torch.from_numpy(known["camera"]),
        "no camera": torch.from_numpy(known["free"]),
    }


def write_sheet(rows: list[Tensor], file: Path) -> None:
    """Frames 30 to 36 of each video, one row a video."""
    strips = [torch.cat([v[0, :, i] for i in SHEET], dim=2) for v in rows]
    pixels = (torch.cat(strips, dim=1).permute(1, 2, 0) * 255).round().byte().numpy()
    Image.fromarray(pixels).save(file)


def means(rows: list[Row]) -> list[dict[str, Any]]:
    """The table: means over worlds."""
    table = []
    for source, mode in dict.fromkeys((row.source, row.mode) for row in rows):
        chosen = [asdict(r) for r in rows if (r.source, r.mode) == (source, mode)]
        line: dict[str, Any] = {"source": source, "mode": mode}
        for key in list(chosen[0])[3:]:
            values = [row[key] for row in chosen]
            line[key] = None if None in values else round(float(np.mean(values)), 3)
        table.append(line)
    return table


def _shown(video: Tensor) -> Tensor:
    """As the 8-bit frames of a chunk."""
    return (video.clamp(0, 1) * 255).round() / 255


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--latents", type=Path)
    parser.add_argument("--sheets", type=Path)
    chosen = parser.parse_args()
    store = chosen.latents or Path(tempfile.mkdtemp(prefix="seams-"))
    store.mkdir(parents=True, exist_ok=True)
    vae = Path(str(files("flythrough"))) / "assets/nano/vae"
    codec = load_any_codec(vae, torch.device("cpu"))
    rows: list[Row] = []
    for seed, kind, path in WORLDS:
        truth = clip(seed, path, FRAMES, SIZE, settings=ClipSettings(kind=kind))
        exact = truth.rgb.transpose(0, 1)[None]
        rows.append(measured(seed, "truth", "truth", exact, truth))
        for source, latents in latents_of(codec, truth, path, store).items():
            alone = _shown(apart(codec, latents))
            videos = {
                "independent": alone,
                "smooth": smooth(alone),
                "warm": _shown(warm(codec, latents)),
            }
            for mode, video in videos.items():
                rows.append(measured(seed, source, mode, video, truth))
                print(rows[-1], flush=True)
            if chosen.sheets is not None:
                chosen.sheets.mkdir(parents=True, exist_ok=True)
                name = f"{seed}-{source.replace(' ', '-')}.png"
                write_sheet(list(videos.values()), chosen.sheets / name)
    table = means(rows)
    print(*table, sep="\n")
    if chosen.output is not None:
        worlds = [{"seed": s, "kind": k, "camera": p} for s, k, p in WORLDS]
        data = {"worlds": worlds, "means": table, "rows": [asdict(row) for row in rows]}
        chosen.output.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
