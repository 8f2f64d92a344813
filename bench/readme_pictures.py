"""The README's pictures, made anew by the bundled model.

    python bench/readme_pictures.py [--output docs/media]

``example.jpg`` is the photo with frames of two paths; ``strip.jpg`` a path from two sides, frames
of its warp, and the frames that were made from them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import flythrough as ft
from flythrough.cameras.plot import plot_trajectory
from flythrough.media.picture import contact_sheet
from flythrough.media.video import read_video

PHOTO = Path(ft.__file__).parent / "assets" / "example.jpg"
PATHS = ("forward 0.5", "pan right 20deg")
LONG, LONG_FRAMES = "orbit right 15deg; forward 0.3", 66


def generate(camera: str, frames: int, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(video, warp), uint8 [T,H,W,3] each, through the command line."""
    video, warp = folder / "video.mp4", folder / "warp.mp4"
    words = ["generate", str(PHOTO), "--camera", camera, "--frames", str(frames)]
    words += ["-o", str(video), "--save-warp", str(warp)]
    subprocess.run([sys.executable, "-m", "flythrough.cli.main", *words], check=True)
    return read_video(video).frames, read_video(warp).frames


def example(folder: Path) -> np.ndarray:
    """The photo and frames of two short paths."""
    pictures = []
    for camera in PATHS:
        video, _ = generate(camera, 33, folder)
        pictures += [video[0], video[16], video[32]]
    return contact_sheet(pictures, columns=3)


def strip(folder: Path) -> np.ndarray:
    """Path, warp and output, one below the other."""
    video, warp = generate(LONG, LONG_FRAMES, folder)
    chosen = np.linspace(0, LONG_FRAMES - 1, 5).round().astype(int)
    labels = [f"warp, frame {i}" for i in chosen] + [f"made, frame {i}" for i in chosen]
    pictures = [warp[i] for i in chosen] + [video[i] for i in chosen]
    sheet = contact_sheet(pictures, columns=5, labels=labels)
    plot = plot_trajectory(ft.path(LONG, LONG_FRAMES)).convert("RGB")
    width = sheet.shape[1]
    drawn = plot.resize((width // 2, round(plot.height * width / 2 / plot.width)))
    canvas = np.full((drawn.height, width, 3), 255, np.uint8)
    left = (width - drawn.width) // 2
    canvas[:, left : left + drawn.width] = np.asarray(drawn)
    return np.concatenate([canvas, sheet])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/media"))
    target = parser.parse_args().output
    with tempfile.TemporaryDirectory() as folder:
        Image.fromarray(example(Path(folder))).save(target / "example.jpg", quality=88)
        Image.fromarray(strip(Path(folder))).save(target / "strip.jpg", quality=88)


if __name__ == "__main__":
    main()
