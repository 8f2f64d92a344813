"""Edges and normals give the published utilities' recorded masks; scale alignment its factors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from flythrough.errors import GeometryError
from flythrough.geometry.align import depth_scale
from flythrough.geometry.edges import (
    depth_edge,
    depth_normal_edge,
    normal_edge,
    points_to_normals,
)
from flythrough.geometry.quantile import quantile

GOLDEN = Path(__file__).parents[2] / "golden" / "geometry_edges"
SCALES = json.loads((GOLDEN / "depth_scale.json").read_text())
FLIPPED = 3


@pytest.fixture(scope="module")
def stored() -> dict[str, Tensor]:
    return {key: value[0] for key, value in load_file(GOLDEN / "edges_normals.safetensors").items()}


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("atol0.5", {"atol": 0.5}),
        ("atol0.5_rtol0.1_k5", {"atol": 0.5, "rtol": 0.1, "kernel": 5}),
        ("rtol0.03", {"rtol": 0.03}),
        ("rtol0.03_mask", {"rtol": 0.03, "mask": True}),
    ],
)
def test_depth_edge(stored: dict[str, Tensor], case: str, options: dict[str, float]) -> None:
    mask = stored["mask"] if options.pop("mask", False) else None
    found = depth_edge(stored["depth"], mask=mask, **options)  # type: ignore[arg-type]
    assert (found != stored[f"depth_edge.{case}"]).sum() <= FLIPPED


@pytest.mark.parametrize("case", ["", "_mask", "_nonfinite"])
def test_normals(stored: dict[str, Tensor], case: str) -> None:
    points = stored["points_nonfinite" if case == "_nonfinite" else "points"]
    normals, known = points_to_normals(points, stored["mask"] if case == "_mask" else None)
    assert torch.allclose(normals, stored[f"points_to_normals{case}.normals"], atol=1e-5)
    assert torch.equal(known, stored[f"points_to_normals{case}.mask"])


def test_normal_edge(stored: dict[str, Tensor]) -> None:
    normals, _ = points_to_normals(stored["points"])
    masked, known = points_to_normals(stored["points"], stored["mask"])
    found = {
        "5deg": normal_edge(normals),
        "5deg_mask": normal_edge(masked, mask=known),
        "20deg_k5": normal_edge(normals, tol_deg=20, kernel=5),
    }
    for case, edges in found.items():
        assert (edges != stored[f"normal_edge.{case}"]).sum() <= FLIPPED, case


def test_depth_normal_edge(stored: dict[str, Tensor]) -> None:
    points, mask = stored["points"], stored["mask"]
    found = {
        "default": depth_normal_edge(points),
        "mask": depth_normal_edge(points, mask=mask),
        "rtol0.1_tol15_k5": depth_normal_edge(points, rtol=0.1, tol_deg=15, kernel=5, mask=mask),
        "nonfinite": depth_normal_edge(stored["points_nonfinite"]),
        "depth_arg": depth_normal_edge(points, stored["depth_alt"], mask=mask),
    }
    for case, edges in found.items():
        assert (edges != stored[f"depth_normal_edge.{case}"]).sum() <= FLIPPED, case


def test_a_slanted_plane_is_not_cut_but_a_step_is() -> None:
    columns = torch.arange(20.0).expand(1, 16, 20)
    rows = torch.arange(16.0)[:, None].expand(1, 16, 20)
    slant = torch.stack((columns, rows, 2 + 0.5 * columns), dim=-1)
    assert not depth_normal_edge(slant).any()
    assert depth_edge(slant[..., 2], rtol=0.03).any()
    step = torch.stack((columns, rows, torch.where(columns < 10, 2.0, 6.0)), dim=-1)
    cut = depth_normal_edge(step)
    assert cut[:, :, 9:11].all()
    assert not cut[:, :, :8].any()
    assert not cut[:, :, 12:].any()


@pytest.mark.parametrize("case", sorted(SCALES))
def test_depth_scale(case: str) -> None:
    expected = SCALES[case]
    with np.load(GOLDEN / "depth_scale.npz") as file:
        maps = {key: torch.from_numpy(file[key]) for key in file.files}
    if case.startswith("clamp"):
        near, far = maps["exact.reference"] / 50, maps["exact.reference"]
        pair = (far, near) if case == "clamp_high" else (near, far)
        reference, current, case = *pair, "exact"
    else:
        reference, current = maps[f"{case}.reference"], maps[f"{case}.current"]
    found = depth_scale(
        reference,
        maps.get(f"{case}.reference_valid", torch.ones_like(reference, dtype=torch.bool)),
        current,
        maps.get(f"{case}.current_valid", torch.ones_like(current, dtype=torch.bool)),
    )
    assert found.status == expected["status"]
    assert float(found.scale) == pytest.approx(expected["scale"], rel=1e-5)
    assert abs(found.count - expected["count"]) <= FLIPPED


def test_depth_scale_refuses_a_mask_of_another_shape() -> None:
    with pytest.raises(GeometryError, match="mask"):
        depth_scale(
            torch.ones(4, 4),
            torch.ones(4, 5, dtype=torch.bool),
            torch.ones(4, 4),
            torch.ones(4, 4, dtype=torch.bool),
        )


def test_quantile_interpolates() -> None:
    values = torch.tensor([4.0, 1.0, 3.0, 2.0])
    assert float(quantile(values, 0.5)) == 2.5
    assert float(quantile(values, 0.0)) == 1.0
    assert float(quantile(values, 1.0)) == 4.0
    assert float(quantile(values[:1], 0.7)) == 4.0
