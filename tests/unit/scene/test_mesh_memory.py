"""The memory's rules: it is a value, repeats itself, and says what cannot be rendered."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from flythrough.errors import GeometryError, InputError
from flythrough.geometry.types import Geometry, ScaleKind
from flythrough.scene import raster
from flythrough.scene.memory import SceneMemory
from flythrough.scene.mesh_memory import MeshMemory
from flythrough.scene.settings import WarpSettings

SIZE = (32, 48)
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
MATRIX = torch.tensor([[40.0, 0, 24], [0, 40, 16], [0, 0, 1]])


def frame(depth: Tensor | float = 2.0, valid: Tensor | None = None) -> Geometry:
    full = torch.as_tensor(depth, dtype=torch.float32).expand(1, *SIZE).clone()
    known = full > 0 if valid is None else valid[None]
    return Geometry(
        depth=full,
        confidence=known.float(),
        valid=known,
        intrinsics=MATRIX[None],
        world_from_camera=torch.eye(4)[None],
        scale=ScaleKind.METRIC,
    )


def picture(seed: int = 0) -> Tensor:
    return torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(seed))


def path(count: int, step: float = 0.02) -> tuple[Tensor, Tensor]:
    poses = torch.eye(4).repeat(count, 1, 1)
    poses[:, 0, 3] = torch.arange(count) * step
    return poses, MATRIX.expand(count, 3, 3)


def bumpy() -> Tensor:
    rows = torch.arange(SIZE[0])[:, None]
    return 2 + 0.1 * torch.sin(rows / 8.0) + torch.arange(SIZE[1]) / 60.0


def test_extending_leaves_the_memory_alone() -> None:
    memory: SceneMemory = MeshMemory()
    one = memory.extended(picture(), frame())
    two = one.extended(picture(1), frame())
    assert isinstance(one, MeshMemory)
    assert isinstance(two, MeshMemory)
    assert [len(MeshMemory().keyframes), len(one.keyframes), len(two.keyframes)] == [0, 1, 2]


@pytest.mark.parametrize("mode", ["target_fill", "splat"])
def test_rendering_repeats_bit_for_bit_whatever_the_grouping(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = MeshMemory().extended(picture(), frame(bumpy())).extended(picture(1), frame(bumpy()))
    settings = WarpSettings(render_mode=mode, samples_per_axis=2)  # type: ignore[arg-type]
    poses, matrices = path(7)
    whole = memory.render(poses, matrices, SIZE, settings)
    again = memory.render(poses, matrices, SIZE, settings)
    monkeypatch.setitem(raster._BUDGET, "cpu", 1)
    single = memory.render(poses, matrices, SIZE, settings)
    for name in ("rgb", "depth", "visible"):
        assert torch.equal(getattr(whole, name), getattr(again, name)), name
        assert torch.equal(getattr(whole, name), getattr(single, name)), name


@pytest.mark.parametrize("device", DEVICES)
def test_ranges_of_what_is_rendered(device: str) -> None:
    memory = MeshMemory().extended(picture().to(device), frame(bumpy()).to(device))
    poses, matrices = (values.to(device) for values in path(5, 0.3))
    view = memory.render(poses, matrices, SIZE, WarpSettings())
    assert {values.device.type for values in (view.rgb, view.depth, view.visible)} == {device}
    assert len(view) == 5
    assert view.size == SIZE
    assert view.rgb.dtype == view.depth.dtype == view.visible.dtype == torch.float32
    assert view.rgb.min() >= 0
    assert view.rgb.max() <= 1
    assert torch.equal(view.depth > 0, view.visible > 0)
    assert set(view.visible.unique().tolist()) == {0.0, 1.0}


def test_a_perfectly_flat_depth_map_is_rendered() -> None:
    memory = MeshMemory().extended(picture(), frame(1.0))
    view = memory.render(*path(2, 0.05), SIZE, WarpSettings())
    assert view.visible[1].mean() > 0.8
    assert torch.allclose(view.depth[view.visible > 0], torch.tensor(1.0), atol=1e-5)


def test_a_camera_that_looks_away_sees_the_fill_colour() -> None:
    memory = MeshMemory().extended(picture(), frame())
    away = torch.diag(torch.tensor([-1.0, 1, -1, 1]))[None]
    view = memory.render(away, MATRIX[None], SIZE, WarpSettings())
    assert not view.visible.any()
    mean = (picture().mean((1, 2)) * 255).round() / 255
    assert torch.allclose(view.rgb[0], mean[:, None, None].expand(3, *SIZE), atol=1e-6)
    black = memory.render(away, MATRIX[None], SIZE, WarpSettings(fill="black"))
    assert not black.rgb.any()


def test_unsure_depth_is_used_when_nothing_else_is_left() -> None:
    nothing = torch.zeros(SIZE, dtype=torch.bool)
    memory = MeshMemory().extended(picture(), frame(bumpy(), nothing))
    view = memory.render(*path(1), SIZE, WarpSettings(top_fill=False))
    assert view.visible.mean() > 0.5


@pytest.mark.parametrize("pixels", [0, 1])
def test_too_little_depth_is_an_error(pixels: int) -> None:
    depth = torch.zeros(SIZE)
    depth[10, 10 : 10 + pixels] = 2.0
    memory = MeshMemory().extended(picture(), frame(depth))
    with pytest.raises(GeometryError, match="no connected valid surface") as caught:
        memory.render(*path(1), SIZE, WarpSettings())
    assert "\n" not in str(caught.value)


def test_a_keyframe_without_surface_is_left_out() -> None:
    good = MeshMemory().extended(picture(), frame(bumpy()))
    both = good.extended(picture(1), frame(torch.zeros(SIZE)))
    settings = WarpSettings(older_samples_per_axis=4)
    one, two = (memory.render(*path(3), SIZE, settings) for memory in (good, both))
    assert torch.equal(one.rgb, two.rgb)


def test_samples_per_axis_of_older_keyframes() -> None:
    memory = MeshMemory().extended(picture(), frame(bumpy()))
    both = memory.extended(picture(1), frame(bumpy() + 5))
    poses, matrices = path(2, 0.05)
    poses[:, 2, 3] = 0.8
    sparse = both.render(poses, matrices, SIZE, WarpSettings(render_mode="splat"))
    dense = both.render(
        poses, matrices, SIZE, WarpSettings(render_mode="splat", older_samples_per_axis=4)
    )
    few, many = ((view.depth < 4).float().mean() for view in (sparse, dense))
    assert few < 0.8 * many


def test_small_holes_take_the_colour_of_their_own_keyframe() -> None:
    """The older keyframe is red and in front; published code would fill its holes with blue."""
    red, blue = torch.zeros(3, *SIZE), torch.zeros(3, *SIZE)
    red[0], blue[2] = 1.0, 1.0
    memory = (
        MeshMemory()
        .extended(red, frame(1.0))
        .extended(blue, frame(torch.where(torch.arange(SIZE[1]) < 4, 3.0, 0.0).expand(SIZE)))
    )
    poses, matrices = path(1)
    poses[:, 2, 3] = 0.3
    settings = WarpSettings(render_mode="splat", top_fill=False)
    bare = memory.render(poses, matrices, SIZE, settings)
    ours = memory.render(poses, matrices, SIZE, replace(settings, render_mode="target_fill"))
    filled = (ours.visible > bare.visible)[0]
    assert filled.sum() > 50
    assert torch.allclose(ours.rgb[0][:, filled], torch.tensor([[1.0], [0], [0]]), atol=1e-6)
    bare, published = (
        memory.render(poses, matrices, SIZE, replace(settings, render_mode=mode, reference=True))
        for mode in ("splat", "target_fill")
    )
    filled = (published.visible > bare.visible)[0]
    assert filled.sum() > 50
    assert torch.allclose(published.rgb[0][:, filled], torch.tensor([[0.0], [0], [1]]), atol=1e-6)


def test_the_photo_is_fitted_to_the_rendering() -> None:
    memory = MeshMemory().extended(picture(), frame())
    half = MATRIX * torch.tensor([0.5, 0.5, 1])[:, None]
    view = memory.render(
        torch.eye(4)[None], half[None], (16, 24), WarpSettings(), first_is_photo=True
    )
    assert view.size == (16, 24)
    assert view.visible.min() == 1


def test_wrong_use_is_refused() -> None:
    memory = MeshMemory().extended(picture(), frame())
    poses, matrices = path(2)
    with pytest.raises(GeometryError, match="empty"):
        MeshMemory().render(poses, matrices, SIZE, WarpSettings())
    for wrong in ((poses[0], matrices), (poses, matrices[:1]), (poses[:0], matrices[:0])):
        with pytest.raises(GeometryError, match="cannot be rendered"):
            memory.render(*wrong, SIZE, WarpSettings())
    with pytest.raises(GeometryError, match="at least 1"):
        memory.render(poses, matrices, (0, 48), WarpSettings())
    with pytest.raises(GeometryError, match="at its size"):
        memory.extended(picture()[:, :10], frame())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("samples_per_axis", 0),
        ("older_samples_per_axis", 99),
        ("mesh_break", "always"),
        ("render_mode", "mesh"),
        ("fill", "noise"),
        ("keyframes", "all"),
        ("older_keyframes", -1),
        ("older_keyframes", 17),
        ("estimation", "twice"),
        ("background", "sky"),
        ("fill_radius", -1),
        ("fill_min_neighbors", 10),
        ("depth_rtol", -0.1),
        ("normal_tol_deg", 181.0),
        ("confidence", 1.0),
        ("confidence", float("nan")),
    ],
)
def test_settings_out_of_range_are_refused(name: str, value: object) -> None:
    with pytest.raises(InputError, match=name):
        WarpSettings(**{name: value})  # type: ignore[arg-type]
