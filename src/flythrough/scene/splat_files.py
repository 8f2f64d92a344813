"""Splats as PLY in the layout that viewers and trainers of 3D Gaussians read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from flythrough.disk import replacing
from flythrough.errors import GeometryError
from flythrough.scene.splats import SH_REST, Splats

_NAMES = (
    *("x", "y", "z", "nx", "ny", "nz"),
    *(f"f_dc_{n}" for n in range(3)),
    *(f"f_rest_{n}" for n in range(3 * SH_REST)),
    "opacity",
    *(f"scale_{n}" for n in range(3)),
    *(f"rot_{n}" for n in range(4)),
)


def write_splats(path: Path, splats: Splats) -> None:
    """Write N Gaussians: logits, log-scales and harmonics (a channel at a time) as they are, in
    OpenCV axes; the file appears whole or not at all."""
    count = len(splats)
    rest = splats.sh_rest.transpose(1, 2).reshape(count, -1)
    columns = [
        splats.means,
        torch.zeros_like(splats.means),
        splats.sh0[:, 0],
        rest,
        splats.opacity_logits[:, None],
        splats.log_scales,
        splats.quaternions,
    ]
    rows = torch.cat(columns, dim=1).detach().cpu().numpy().astype("<f4")
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {count}",
        *(f"property float {name}" for name in _NAMES),
        "end_header",
    ]
    with replacing(path) as partial:
        partial.write_bytes("\n".join(header).encode() + b"\n" + rows.tobytes())


def read_splats(path: Path) -> Splats:
    """The Gaussians of such a file, on the CPU.

    Raises:
        GeometryError: it cannot be read, or has other properties.
    """
    try:
        head, body = path.read_bytes().split(b"end_header\n", 1)
        lines = head.decode("ascii").splitlines()
        count = int(next(line for line in lines if line.startswith("element vertex")).split()[2])
        names = tuple(line.split()[-1] for line in lines if line.startswith("property float "))
        if names != _NAMES or "format binary_little_endian 1.0" not in lines:
            raise ValueError("its properties are not those of degree 3")
        rows = np.frombuffer(body, "<f4", count * len(_NAMES)).reshape(count, -1)
    except (OSError, ValueError, StopIteration, IndexError) as error:
        raise GeometryError(
            f"{path} is no file of 3D Gaussians ({error}); give a binary PLY as flythrough export "
            "writes it."
        ) from error
    values = torch.from_numpy(rows.copy())
    parts = values.split([3, 3, 3, 3 * SH_REST, 1, 3, 4], dim=1)
    return Splats(
        means=parts[0],
        log_scales=parts[5],
        quaternions=parts[6],
        opacity_logits=parts[4][:, 0],
        sh0=parts[2][:, None],
        sh_rest=parts[3].reshape(count, 3, SH_REST).transpose(1, 2).contiguous(),
    )
