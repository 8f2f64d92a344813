"""A user's own points and meshes as geometry, and what is said about unusable ones."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from flythrough.engine.geometry_files import glb_bytes, ply_bytes, write_geometry
from flythrough.errors import GeometryError, InputError
from flythrough.geometry.estimators.select import load_estimator
from flythrough.geometry.estimators.shape import drawn_points
from flythrough.geometry.estimators.shape_files import read_shape
from flythrough.geometry.estimators.words import is_shape, split_axes
from flythrough.geometry.types import Geometry, ScaleKind, unproject

SIZE = (30, 40)
MATRIX = torch.tensor([[33.0, 0, 19.5], [0, 34, 15.5], [0, 0, 1]])
PICTURE = torch.full((1, 3, *SIZE), 0.5)
WALL = "v -9 -9 2\nv 9 -9 2\nv 9 9 2\nv -9 9 2\nf 1 2 3\nf 1 3 4\n"


def geometry() -> Geometry:
    source = torch.Generator().manual_seed(2)
    depth = 1 + 3 * torch.rand(1, *SIZE, generator=source)
    valid = torch.rand(1, *SIZE, generator=source) > 0.2
    return Geometry(
        depth=depth,
        confidence=valid.float(),
        valid=valid,
        intrinsics=MATRIX[None],
        world_from_camera=torch.eye(4)[None],
        scale=ScaleKind.METRIC,
    )


@pytest.mark.parametrize("suffix", [".ply", ".glb"])
def test_what_flythrough_writes_reads_back_to_the_same_depth(suffix: str, tmp_path: Path) -> None:
    written, file = geometry(), tmp_path / f"points{suffix}"
    write_geometry(written, np.zeros((*SIZE, 3), np.uint8), file)
    read = load_estimator(str(file)).estimate(PICTURE)
    assert torch.equal(read.depth[written.valid], written.depth[written.valid])
    assert torch.equal(read.intrinsics, written.intrinsics)
    assert (read.confidence[written.valid] == 1).all()
    assert (read.confidence[read.valid & ~written.valid] == 0.5).all()
    assert read.scale is ScaleKind.SCALE_INVARIANT


def test_the_stated_camera_is_scaled_to_the_picture(tmp_path: Path) -> None:
    file = tmp_path / "points.ply"
    write_geometry(geometry(), np.zeros((*SIZE, 3), np.uint8), file)
    larger = load_estimator(str(file)).estimate(torch.zeros(1, 3, 60, 80))
    assert torch.allclose(larger.intrinsics[0, :2], 2 * MATRIX[:2])
    assert larger.valid.float().mean() > 0.9
    with pytest.raises(GeometryError, match="same view"):
        load_estimator(str(file)).estimate(torch.zeros(1, 3, 60, 60))


@pytest.mark.parametrize("statement", ["1 2 3", "nan 30 20 15 40 30", "30 30 20 15 0 30"])
def test_a_broken_camera_statement_is_refused(statement: str, tmp_path: Path) -> None:
    file = tmp_path / "points.ply"
    line = f"flythrough camera fx fy cx cy width height: {statement}"
    file.write_bytes(ply_bytes(np.ones((3, 3), np.float32), np.zeros((3, 3), np.uint8), line))
    with pytest.raises(InputError, match=r"points\.ply"):
        read_shape(str(file))


def test_a_mesh_is_drawn_whole(tmp_path: Path) -> None:
    file = tmp_path / "wall.obj"
    file.write_text(WALL)
    found = read_shape(str(file)).estimate(PICTURE, intrinsics=MATRIX)
    assert torch.allclose(found.depth, torch.full((1, *SIZE), 2.0))
    assert found.valid.all()


def test_axes_come_from_the_format_or_the_suffix(tmp_path: Path) -> None:
    points = unproject(torch.full((1, *SIZE), 2.0), MATRIX[None])[0].reshape(-1, 3).numpy()
    colours = np.zeros((len(points), 3), np.uint8)
    (tmp_path / "a.ply").write_bytes(ply_bytes(points, colours))
    (tmp_path / "a.glb").write_bytes(glb_bytes(points, colours))
    for name in ("a.ply", "a.ply:opencv", "a.glb", "a.glb:opengl"):
        found = read_shape(str(tmp_path / name)).estimate(PICTURE, intrinsics=MATRIX)
        assert (found.depth == 2).all(), name
    for name in ("a.ply:opengl", "a.glb:opencv"):
        with pytest.raises(GeometryError, match=r"behind the camera.*:opencv or :opengl"):
            read_shape(str(tmp_path / name)).estimate(PICTURE, intrinsics=MATRIX)


def test_words() -> None:
    assert split_axes("a.PLY:opengl") == ("a.PLY", "opengl")
    assert split_axes("a.npy:opengl") == ("a.npy:opengl", None)
    assert split_axes("C:/a.glb") == ("C:/a.glb", None)
    assert is_shape("a.obj:opencv")
    assert not is_shape("depth.npz")


def test_a_sparse_cloud_fills_the_picture() -> None:
    source = torch.Generator().manual_seed(4)
    spread = torch.tensor([80.0, 60.0, 0.0])
    points = torch.rand(3000, 3, generator=source, dtype=torch.float64) * spread
    points = (points - spread / 2) / 30 * 2 + torch.tensor([0.0, 0.0, 2.0])
    camera = torch.tensor([[300.0, 0, 200], [0, 300, 150], [0, 0, 1]], dtype=torch.float64)
    depth, filled = drawn_points(points, camera, (300, 400))
    assert (depth > 0).double().mean() > 0.95
    assert filled.double().mean() < 0.4
    assert (depth[depth > 0] == 2).all()


def test_holes_are_closed_with_depth_that_exists_and_edges_do_not_grow() -> None:
    depth = torch.zeros(1, *SIZE)
    depth[:, 5:25, 5:35] = 3.0
    depth[:, 5:25, 20:35] = 1.0
    depth[:, 12, 12] = 0
    depth[:, 18, 20] = 0
    points = unproject(depth, MATRIX[None])[0][depth[0] > 0].double()
    drawn, filled = drawn_points(points, MATRIX.double(), SIZE)
    assert set(drawn.float().unique().tolist()) == {0.0, 1.0, 3.0}
    assert filled[12, 12]
    assert filled[18, 20]
    assert int(filled.sum()) == 2


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.ply", b"", "cannot be read"),
        ("a.ply", b"ply\nformat ascii 1.0\nelement vertex 3\n", "cannot be read"),
        ("a.glb", b"junk", "cannot be read"),
        ("a.obj", b"junk", "holds no vertex"),
        ("a.obj", b"v nan 0 1\nv 1 0 1\n", "NaN or infinite"),
        ("a.obj", b"v 0 0 -1\nv 1 0 -2\n", "behind the camera"),
        ("a.obj", b"v 500 0 1\nv 600 0 1\n", "falls into the picture"),
        ("missing.ply", None, "no 3D file"),
    ],
)
def test_unusable_files_are_one_sentence(
    name: str, content: bytes | None, said: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(GeometryError, match=said) as caught:
        read_shape(str(tmp_path / name)).estimate(PICTURE)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_without_trimesh_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wall.obj").write_text(WALL)
    monkeypatch.setitem(sys.modules, "trimesh", None)
    with pytest.raises(GeometryError, match=r"pip install 'flythrough\[mesh\]'"):
        read_shape(str(tmp_path / "wall.obj"))
