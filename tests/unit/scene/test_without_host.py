"""What works on rendered frames asks the device nothing: the host would wait for each answer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from flythrough.geometry.align import depth_scale
from flythrough.geometry.quantile import masked_quantile, quantile
from flythrough.geometry.types import Geometry, ScaleKind
from flythrough.models.history_tokens import kept_positions
from flythrough.scene.atlas import background_atlas
from flythrough.scene.fill import close_small_holes, fill_colour
from flythrough.scene.keyframe_choice import cells_in_view, most_added
from flythrough.scene.mesh_memory import over_atlas
from flythrough.scene.raster import Splat
from flythrough.scene.rendered import RenderedView
from flythrough.scene.settings import WarpSettings
from flythrough.scene.surface import Keyframe, mesh_of

SIZE = (32, 48)
MATRIX = torch.tensor([[40.0, 0, 24], [0, 40, 16], [0, 0, 1]])[None]
CAMERAS = torch.eye(4).repeat(3, 1, 1)
ASKED = {"_local_scalar_dense", "nonzero", "equal", "masked_select", "is_nonzero"}


class Asked(TorchDispatchMode):
    """Counts operations that a GPU would make the host wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        masks = name in ("index", "index_put", "index_put_") and any(
            isinstance(at, Tensor) and at.dtype == torch.bool for at in args[1] if at is not None
        )
        self.count += name in ASKED or masks
        return func(*args, **(kwargs or {}))


def keyframe(seed: int) -> Keyframe:
    source = torch.Generator().manual_seed(seed)
    depth = 2 + 1e-4 * torch.rand(1, *SIZE, generator=source)
    geometry = Geometry(
        depth=depth,
        confidence=torch.rand(1, *SIZE, generator=source),
        valid=torch.rand(1, *SIZE, generator=source) > 0.1,
        intrinsics=MATRIX,
        world_from_camera=CAMERAS[:1],
        scale=ScaleKind.METRIC,
    )
    return Keyframe(torch.rand(3, *SIZE, generator=source), geometry)


def splat() -> Splat:
    seen = torch.rand(3, *SIZE) > 0.3
    return Splat(torch.rand(3, *SIZE, 3), seen.float(), seen, torch.rand(3, *SIZE, 2), seen.long())


def view() -> RenderedView:
    return RenderedView(torch.rand(3, 3, *SIZE), torch.rand(3, *SIZE), torch.zeros(3, *SIZE))


@pytest.mark.parametrize("part", ["holes", "background", "scale", "cells", "choice", "mesh"])
def test_nothing_is_asked(part: str) -> None:
    keys = [keyframe(n) for n in range(4)]
    first, second = (key.geometry for key in keys[:2])
    drawn, shown = splat(), view()
    intrinsics = MATRIX.expand(3, 3, 3)
    work: dict[str, Any] = {
        "holes": lambda: (
            close_small_holes(drawn, [keys[0].image, keys[1].image], radius=1, min_neighbors=4),
            fill_colour(keys[0].image, "mean_first_frame"),
        ),
        "background": lambda: over_atlas(
            shown, background_atlas(keys), CAMERAS, intrinsics, seen=True
        ),
        "scale": lambda: second.with_depth_scaled(
            depth_scale(first.depth[0], first.valid[0], second.depth[0], second.valid[0]).scale
        ).placed(CAMERAS[:1]),
        "cells": lambda: cells_in_view(keys[0], CAMERAS, intrinsics, SIZE),
        "choice": lambda: most_added(keys[1:3], keys[:1], 1, CAMERAS, intrinsics, SIZE),
        "mesh": lambda: mesh_of(keys[3], WarpSettings(top_fill=False)),
    }
    with Asked() as asked:
        work[part]()
    # A mesh says whether it has any cell, once; a choice is handed over in one transfer.
    assert asked.count == (1 if part == "mesh" else 0)
    with Asked() as again:
        work["mesh" if part == "mesh" else "cells"]()
    assert again.count == 0


def test_masked_quantiles_are_those_of_the_chosen_values() -> None:
    source = torch.Generator().manual_seed(1)
    for dtype in (torch.float32, torch.float64):
        values = torch.rand(31, 17, generator=source, dtype=dtype)
        for keep in (0.5, 0.02):
            among = torch.rand(31, 17, generator=source) < keep
            for share in (0.0, 0.1, 0.5, 0.95, 1.0):
                found = masked_quantile(values, among, share)
                assert torch.equal(found, quantile(values[among], share))
    assert torch.isinf(masked_quantile(values, among & False, 0.5))


def test_kept_positions_are_in_order() -> None:
    source = torch.Generator().manual_seed(2)
    keeps = [torch.rand(1, n, generator=source) > 0.4 for n in (1, 50, 7000)]
    keeps.append(torch.ones(2, 9, dtype=torch.bool))
    keeps.append(torch.zeros(1, 9, dtype=torch.bool))
    for keep, found in zip(keeps, kept_positions(keeps), strict=True):
        if keep.all():
            assert found is None
        else:
            assert torch.equal(found, keep[0].nonzero()[:, 0])
    assert kept_positions([]) == []
