"""Training of the small geometry network (Pi3X architecture) on procedural worlds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from flythrough.media.picture import contact_sheet, depth_picture
from flythrough.models.pi3x import Pi3X
from flythrough.models.pi3x_files import save_pi3x
from flythrough.training.geometry_losses import GeometryTruth, pi3x_losses
from flythrough.training.pictures import save_png, to_bytes


@dataclass(frozen=True, eq=False)
class GeometryBatch:
    """``images`` [B,N,3,H,W] in [0,1] (H, W multiples of 14) and their exact geometry."""

    images: Tensor
    truth: GeometryTruth


class GeometryTask:
    """Point map, confidence, poses and metric scale from a few views of a world.

    Args:
        model: the network.
        batches: (step, rank) -> training views.
        heldout: views of worlds never trained on.
    """

    name = "geometry"

    def __init__(
        self, model: Pi3X, batches: Callable[[int, int], GeometryBatch], heldout: GeometryBatch
    ) -> None:
        self.model, self.batches, self.heldout = model, batches, heldout
        self.modules = nn.ModuleDict({"geometry": model})

    def loss(self, step: int, rank: int) -> dict[str, Tensor]:
        batch = self.batches(step, rank)
        return dict(pi3x_losses(self.model.raw(batch.images), batch.truth))

    def preview(self, folder: Path, step: int) -> dict[str, float]:
        images, truth = self.heldout.images[:, :1], self.heldout.truth
        output = self.model(images)
        depth = output.local_points[:, 0, ..., 2].float()
        exact, valid = truth.depth[:, 0], truth.valid[:, 0]
        pictures = []
        for i in range(min(6, len(images))):
            pictures += [
                to_bytes(images[i, 0]),
                depth_picture(exact[i].cpu().numpy() * valid[i].cpu().numpy()),
                depth_picture(depth[i].cpu().numpy() * valid[i].cpu().numpy()),
            ]
        save_png(contact_sheet(pictures, columns=6), folder / f"geometry-{step:06d}.png")
        return depth_figures(depth, exact, valid)

    def export(self, folder: Path) -> None:
        save_pi3x(self.model, folder / "geometry")


def depth_figures(depth: Tensor, exact: Tensor, valid: Tensor) -> dict[str, float]:
    """AbsRel and delta < 1.25 after median scaling per image, and AbsRel without scaling."""
    relative, inlier, metric = [], [], []
    for estimate, truth, mask in zip(depth, exact, valid, strict=True):
        e, t = estimate[mask], truth[mask]
        metric.append(((e - t).abs() / t).mean())
        e = e * (t.median() / e.median())
        relative.append(((e - t).abs() / t).mean())
        inlier.append((torch.maximum(e / t, t / e) < 1.25).float().mean())
    return {
        "absrel": float(torch.stack(relative).mean()),
        "delta125": float(torch.stack(inlier).mean()),
        "absrel_metric": float(torch.stack(metric).mean()),
    }
