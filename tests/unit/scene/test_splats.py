"""Gaussians: projection against a published rasteriser's numbers, compositing against brute force,
the fit, the memory and the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from flythrough.errors import GeometryError, InputError
from flythrough.geometry.types import Geometry, ScaleKind
from flythrough.scene import splat_raster
from flythrough.scene.mesh import NoSurfaceError
from flythrough.scene.mesh_memory import MeshMemory
from flythrough.scene.settings import WarpSettings
from flythrough.scene.splat_files import read_splats, write_splats
from flythrough.scene.splat_fit import FitSettings, fitted
from flythrough.scene.splat_memory import GaussianMemory, closed, scene_memory
from flythrough.scene.splat_projection import project
from flythrough.scene.splat_raster import draw
from flythrough.scene.splat_render import renderer
from flythrough.scene.splats import SH_CONSTANT, Splats, splats_from
from flythrough.scene.ssim import Ssim
from flythrough.scene.surface import Keyframe
from flythrough.worlds.clips import ClipSettings, clip

GOLDEN = Path(__file__).parents[2] / "golden" / "splats" / "projection.npz"
SIZE = (32, 48)
BRIEF = WarpSettings(memory="gaussian", gaussian_steps=60)


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    with np.load(GOLDEN) as archive:
        return {name: torch.from_numpy(archive[name]) for name in archive.files}


@pytest.fixture(scope="module")
def splats(golden: dict[str, torch.Tensor]) -> Splats:
    return Splats(**{name: golden[name] for name in Splats.__dataclass_fields__})


def keyframe(image: torch.Tensor, depth: torch.Tensor, matrix: torch.Tensor) -> Keyframe:
    geometry = Geometry(
        depth=depth,
        confidence=torch.ones_like(depth),
        valid=depth > 0,
        intrinsics=matrix[None],
        world_from_camera=torch.eye(4)[None],
        scale=ScaleKind.METRIC,
    )
    return Keyframe(image, geometry)


@pytest.fixture(scope="module")
def photo() -> Keyframe:
    """A slanted, wavy wall with a smooth texture."""
    y, x = torch.meshgrid(torch.arange(SIZE[0]) / 32, torch.arange(SIZE[1]) / 32, indexing="ij")
    depth = 2 + 0.5 * x + 0.1 * torch.sin(4 * y)
    image = torch.stack([torch.sin(5 * x + y), torch.cos(6 * y), torch.sin(4 * x * y)]) * 0.4 + 0.5
    return keyframe(image, depth[None], torch.tensor([[42.0, 0, 24], [0, 42, 16], [0, 0, 1]]))


@pytest.fixture(scope="module")
def room() -> Keyframe:
    """A view of a procedural world."""
    made = clip(9_000_104, "static", 1, (40, 64), settings=ClipSettings(kind="room"))
    depth = made.depth.masked_fill(made.sky, 0.0)
    return keyframe(made.rgb[0], depth, made.intrinsics[0].float())


@pytest.fixture(scope="module")
def memory(photo: Keyframe) -> GaussianMemory:
    made = GaussianMemory((photo,), BRIEF)
    assert len(made.splats)
    return made


def psnr(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(-10 * (first - second).square().mean().log10())


def test_projection_and_colours_are_the_published_rasterisers(
    golden: dict[str, torch.Tensor], splats: Splats
) -> None:
    found = project(splats, golden["camera"], golden["matrix"], (60, 90))
    index = found.index
    # That one keeps Gaussians a little further outside the picture.
    assert set(index.tolist()) <= set(golden["seen"].nonzero()[:, 0].tolist())
    assert len(index) > 25
    assert torch.allclose(found.table[:, :2], golden["centre"][index], atol=1e-4)
    assert torch.allclose(found.table[:, 2:5], golden["conic"][index], rtol=1e-3, atol=1e-5)
    assert torch.allclose(found.depth, golden["depth"][index], atol=1e-5)
    assert torch.allclose(found.table[:, 7:], golden["colour"][index], atol=1e-5)


def brute_force(splats: Splats, camera: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """[H,W,5] colour, alpha and mean depth, Gaussian after Gaussian over the whole picture. A pixel
    ends before the Gaussian that would leave no light, as in the common rasterisers."""
    found = project(splats, camera, matrix, (60, 90))
    table = found.table[found.depth.argsort()].double()
    y, x = torch.meshgrid(torch.arange(60) + 0.5, torch.arange(90) + 0.5, indexing="ij")
    light, total = torch.ones(60, 90).double(), torch.zeros(60, 90, 5).double()
    open_ = torch.ones(60, 90, dtype=torch.bool)
    for row in table:
        dx, dy = x - row[0], y - row[1]
        power = 0.5 * (row[2] * dx * dx + row[4] * dy * dy) + row[3] * dx * dy
        alpha = (row[5] * torch.exp(-power)).clamp_max(0.999)
        alpha = torch.where(alpha < 1 / 255, 0.0, alpha)
        open_ = open_ & (light * (1 - alpha) > 1e-4)
        alpha = torch.where(open_, alpha, 0.0)
        weight = (alpha * light)[..., None]
        total = total + weight * torch.cat([row[7:], row[5:6] * 0 + 1, row[6:7]])
        light = light * (1 - alpha)
    depth = total[..., 4:] / total[..., 3:4].clamp_min(1e-10)
    return torch.cat([total[..., :4], depth], dim=-1)


def joined(view: splat_raster.SplatView) -> torch.Tensor:
    return torch.cat([view.rgb, view.alpha[..., None], view.depth[..., None]], dim=-1)


@pytest.mark.parametrize("solid", [False, True])
def test_drawing_and_its_gradients_equal_brute_force(
    golden: dict[str, torch.Tensor], splats: Splats, monkeypatch: pytest.MonkeyPatch, solid: bool
) -> None:
    monkeypatch.setattr(splat_raster, "_PAIRS", 4000)  # several bands
    if solid:
        splats = replace(splats, opacity_logits=splats.opacity_logits.abs() + 6)
    camera, matrix = golden["camera"], golden["matrix"]
    weights = torch.randn(60, 90, 5, generator=torch.Generator().manual_seed(1)).double()
    grads = []
    for make in (
        lambda s: joined(draw(s, camera, matrix, (60, 90))).double(),
        lambda s: brute_force(s, camera, matrix),
    ):
        own = splats.trainable()
        picture = make(own)
        (picture * weights).sum().backward()
        grads.append((picture.detach(), {k: v.grad for k, v in own.tensors().items()}))
    assert torch.allclose(grads[0][0], grads[1][0], atol=2e-4)
    for name, value in grads[0][1].items():
        expected = grads[1][1][name]
        assert (value - expected).norm() < 2e-3 * expected.norm(), name


def test_a_gaussian_behind_the_camera_is_not_drawn(splats: Splats) -> None:
    behind = replace(splats, means=splats.means * torch.tensor([1.0, 1, -1]))
    view = draw(behind, torch.eye(4), torch.tensor([[80.0, 0, 45], [0, 80, 30], [0, 0, 1]]), SIZE)
    assert float(view.alpha.max()) == 0.0
    assert renderer(torch.device("cpu")) == "torch"


def test_the_start_shows_every_pixel_in_its_colour(photo: Keyframe) -> None:
    made = splats_from([photo])
    assert len(made) == SIZE[0] * SIZE[1]
    colours = made.sh0[:, 0] * SH_CONSTANT + 0.5
    assert torch.allclose(colours, photo.image.permute(1, 2, 0).reshape(-1, 3), atol=1e-6)
    assert torch.allclose(made.means, photo.geometry.points_world()[0].reshape(-1, 3))
    spacing = photo.geometry.depth[0].flatten() / photo.geometry.intrinsics[0, 0, 0]
    ratio = made.log_scales.exp()[:, 0] / spacing
    assert float(ratio.max()) <= 0.6 + 1e-4  # a few pixels wide at most, also on slanted walls
    wide = splats_from([photo], widest=float("inf")).log_scales.exp()[:, 0] / spacing
    assert 0.9 < float(wide.median()) < 2.0
    few = splats_from([photo, photo], per_source=300, most=500)
    assert len(few) == 500
    assert torch.equal(few.means, splats_from([photo, photo], per_source=300, most=500).means)


def test_near_and_unsure_pixels(photo: Keyframe) -> None:
    near = replace(photo, geometry=photo.geometry.scaled(0.05))
    assert len(splats_from([near])) > 0.9 * SIZE[0] * SIZE[1]
    unsure = replace(photo.geometry, confidence=torch.zeros_like(photo.geometry.confidence))
    with pytest.raises(NoSurfaceError):
        splats_from([replace(photo, geometry=unsure)])


def test_similarity_is_the_known_measure() -> None:
    generator = torch.Generator().manual_seed(3)
    first, noise = (torch.rand(3, 24, 30, generator=generator) for _ in range(2))
    second = (first + 0.2 * noise).clamp(0, 1)
    expected = structural_similarity(
        first.numpy(),
        second.numpy(),
        channel_axis=0,
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )[1][:, 5:-5, 5:-5].mean()
    assert float(Ssim(second)(first)) == pytest.approx(float(expected), abs=1e-5)
    assert float(Ssim(first)(first)) == pytest.approx(1.0)


def test_the_fit_shows_the_source_at_30_db(room: Keyframe) -> None:
    camera, matrix, size = torch.eye(4), room.geometry.intrinsics[0], room.geometry.size
    start = draw(splats_from([room]), camera, matrix, size)
    made = fitted([room], FitSettings(steps=150))
    with torch.inference_mode():
        end = draw(made, camera, matrix, size)
    assert psnr(start.rgb.permute(2, 0, 1), room.image) < 24
    assert psnr(end.rgb.permute(2, 0, 1), room.image) > 30
    error = (end.depth / room.geometry.depth[0] - 1).abs().median()
    assert float(error) < 0.02


def test_the_unit_of_length_does_not_matter(photo: Keyframe) -> None:
    geometry = replace(photo.geometry, scale=ScaleKind.SCALE_INVARIANT)
    one = fitted([replace(photo, geometry=geometry)], FitSettings(steps=4))
    large = replace(photo, geometry=geometry.scaled(50.0))
    other = fitted([large], FitSettings(steps=4)).scaled(1 / 50)
    assert torch.allclose(one.means, other.means, atol=1e-3)
    assert torch.allclose(one.log_scales, other.log_scales, atol=1e-2)


def test_either_memory_shows_the_same_scene(photo: Keyframe, memory: GaussianMemory) -> None:
    poses = torch.eye(4).repeat(2, 1, 1)
    poses[1, 0, 3] = 0.1
    matrices = photo.geometry.intrinsics.expand(2, 3, 3)
    meshes = scene_memory((photo,), WarpSettings())
    assert isinstance(meshes, MeshMemory)
    expected = meshes.render(poses, matrices, SIZE, WarpSettings())
    found = memory.render(poses, matrices, SIZE, BRIEF)
    both = (found.visible > 0.5) & (expected.visible > 0.5)
    assert float(both.float().mean()) > 0.6
    where = both[:, None].expand_as(found.rgb)
    assert psnr(found.rgb[where], expected.rgb[where]) > 22
    ratio = (found.depth / expected.depth)[both]
    assert float((ratio - 1).abs().median()) < 0.03
    assert (found.depth[found.visible < 0.5] == 0).all()
    first = memory.render(poses, matrices, SIZE, BRIEF, first_is_photo=True)
    assert torch.equal(first.rgb[0], photo.image)


def test_what_no_source_saw_is_not_visible(photo: Keyframe, memory: GaussianMemory) -> None:
    turned = torch.eye(4)
    turned[:3, :3] = torch.tensor([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    aside = memory.render(turned[None], photo.geometry.intrinsics, SIZE, BRIEF)
    assert float(aside.visible.mean()) < 0.2
    back = torch.eye(4)
    back[2, 3] = -1.0  # the frame around the photo is new
    shown = memory.render(back[None], photo.geometry.intrinsics, SIZE, BRIEF)
    assert float(shown.visible[0, 0].mean()) == 0
    assert float(shown.visible[0, 14:18, 20:28].mean()) > 0.5


def test_single_pixels_between_seen_ones_are_closed() -> None:
    layers = torch.arange(2.0 * 8 * 9).reshape(2, 8, 9)
    seen = torch.ones(8, 9, dtype=torch.bool)
    seen[1, 2] = False  # between seen ones
    seen[4:, 5:] = False  # a large hole that reaches the border
    spoilt = layers.masked_fill(~seen, -1000.0)
    made, shown = closed(spoilt, seen)
    assert torch.equal(made[:, seen], layers[:, seen])
    assert bool(shown[1, 2])
    assert torch.allclose(made[:, 1, 2], layers[:, 1, 2])  # the mean of a slope is its middle
    assert bool(shown[4, 5])  # the corner has five seen neighbours
    shown[1, 2] = shown[4, 5] = False
    assert torch.equal(shown, seen)
    assert not closed(layers, torch.zeros_like(seen))[1].any()


def test_a_nearer_camera_sees_no_pinholes(room: Keyframe) -> None:
    made = GaussianMemory((room,), replace(BRIEF, gaussian_steps=10))
    nearer = torch.eye(4)
    nearer[:3, 3] = torch.tensor([0.05, 0.0, 0.2]) * room.geometry.depth.median()
    seen = made.render(nearer[None], room.geometry.intrinsics, room.geometry.size, BRIEF).visible
    around = torch.nn.functional.avg_pool2d(seen, 3, 1, divisor_override=1)[0]
    inner = seen[0, 1:-1, 1:-1]
    assert float(inner.mean()) > 0.94  # 0.927 with the holes
    assert int(((inner == 0) & (around == 8)).sum()) == 0


def test_a_memory_is_a_value(photo: Keyframe, memory: GaussianMemory) -> None:
    grown = memory.extended(photo.image, photo.geometry)
    assert len(grown.keyframes) == 2
    assert len(memory.keyframes) == 1
    assert isinstance(scene_memory((photo,), BRIEF), GaussianMemory)
    with pytest.raises(GeometryError, match="empty"):
        GaussianMemory().render(torch.eye(4)[None], photo.geometry.intrinsics, SIZE, BRIEF)
    for other in ({"reference": True}, {"background": "atlas"}):
        with pytest.raises(InputError, match="no effect"):
            WarpSettings(memory="gaussian", **other)


def test_splats_survive_their_file(splats: Splats, tmp_path: Path) -> None:
    write_splats(tmp_path / "scene.ply", splats)
    back = read_splats(tmp_path / "scene.ply")
    for name, value in splats.tensors().items():
        assert torch.equal(getattr(back, name), value.float()), name
    (tmp_path / "scene.ply").write_bytes(b"ply\nend_header\n")
    with pytest.raises(GeometryError, match="no file of 3D Gaussians"):
        read_splats(tmp_path / "scene.ply")
