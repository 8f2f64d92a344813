"""Other renderers: what the self-check sees, and the real ones where they are installed."""

from __future__ import annotations

import gc
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from fake_scene import FakeRenderer

from flythrough.cameras import pose as se3
from flythrough.cameras.source import trajectory_from
from flythrough.errors import FaultError, InputError
from flythrough.evaluation.pose import FirstView, pose_track
from flythrough.evaluation.renderers import source
from flythrough.evaluation.renderers.clips import renderer_clips
from flythrough.evaluation.renderers.source import RENDERERS, Known, Rendered, self_check
from flythrough.evaluation.truth import Case
from flythrough.media.fitting import default_intrinsics

SIZE = (48, 80)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRenderer:
    made = FakeRenderer()
    monkeypatch.setitem(source.RENDERERS, "fake", Known("Fake", "nothing", lambda: made))
    source.renderer.cache_clear()
    return made


def test_a_rendered_clip_has_all_that_measures_need(fake: FakeRenderer) -> None:
    del fake
    truth = Rendered("fake").truth(Case(1, "wall", "truck right 0.1", "fake", frames=5), SIZE)
    assert truth.median_depth == pytest.approx(4, abs=0.01)
    assert truth.world_from_camera is not None
    np.testing.assert_allclose(truth.world_from_camera[-1, :3, 3], [0.4, 0, 0], atol=1e-6)
    assert truth.visible is not None
    assert truth.visible[0].all()
    assert not truth.visible[-1, :, -1].any()  # came in at the right
    assert 0.7 < truth.visible[-1].mean() < 0.97


def test_the_other_path_is_drawn(fake: FakeRenderer) -> None:
    del fake
    case = Case(1, "wall", "truck right 0.1", "fake", frames=5)
    truth = Rendered("fake").truth(case, SIZE)
    assert truth.world_from_camera is not None
    again = Rendered("fake").along(case, truth.world_from_camera, SIZE)
    assert again is not None
    np.testing.assert_array_equal(again, truth.frames)


def test_cameras_that_do_not_mean_what_they_say_are_found_out(fake: FakeRenderer) -> None:
    fake.flipped = True
    with pytest.raises(FaultError, match="as its own cameras and depth say"):
        Rendered("fake").truth(Case(1, "wall", "truck right 0.15", "fake", frames=5), SIZE)


@pytest.mark.parametrize("name", RENDERERS)
def test_a_missing_renderer_names_the_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source.renderer.cache_clear()
    first = "pyglet" if name == "miniworld" else name
    monkeypatch.setitem(sys.modules, first, None)
    with pytest.raises(InputError, match=r'pip install "flythrough\[renderers\]"'):
        renderer_clips([name])


def test_an_unknown_renderer_is_named() -> None:
    with pytest.raises(InputError, match="'unreal' is unknown; choose among miniworld"):
        renderer_clips(["unreal"])


SCENES = [
    ("miniworld", "objects", "truck right 0.15"),
    ("miniworld", "sidewalk", "orbit left 8deg"),
    ("pybullet", "table", "truck right 0.15"),
    ("pybullet", "table", "roll 6deg; forward 0.1"),
    ("mujoco", "clutter", "crane up 0.1; pan left 8deg"),
    ("mujoco", "blocks", "orbit left 8deg"),
    ("vizdoom", "basic", "forward 0.3"),
    ("vizdoom", "my-way-home", "pan right 15deg"),
]


def test_a_level_leaves_nothing_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if find_spec("vizdoom") is None:
        pytest.skip('vizdoom is not installed (pip install "flythrough[renderers]")')
    from flythrough.evaluation.renderers.doom_maps import Doom

    monkeypatch.chdir(tmp_path)
    doom = Doom()
    size = (96, 160)
    doom.views("basic", 12, np.eye(4)[None], default_intrinsics(*size, 60.0), size)
    del doom
    gc.collect()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "scene", "path"), SCENES)
def test_one_view_brought_over_by_depth_equals_the_other(name: str, scene: str, path: str) -> None:
    """The geometric self-check: axes, units, field of view and depth belong together."""
    if find_spec(name) is None:
        pytest.skip(f'{name} is not installed (pip install "flythrough[renderers]")')
    source.renderer.cache_clear()
    size = (96, 160)
    drawn, k = source.renderer(name), default_intrinsics(*size, 60.0)
    depth = drawn.views(scene, 12, np.eye(4)[None], k, size).depth[0]
    median = float(np.median(depth[depth > 0]))
    cameras = trajectory_from(path, 3, 16.0).resolve(k, size, median, metric=True)
    views = drawn.views(scene, 12, cameras.world_from_camera, k, size)
    assert views.rgb.dtype == np.uint8
    assert views.rgb.shape == (3, *size, 3)
    agreement = self_check(views, k, 2)
    assert agreement.holds, str(agreement)
    wrong = replace(views, world_from_camera=se3.inverse(views.world_from_camera))
    assert self_check(wrong, k, 2).psnr < agreement.psnr - 3


@pytest.mark.parametrize("name", RENDERERS)
def test_the_end_of_each_clip_can_be_measured(name: str) -> None:
    """What no exact render passes, no model can: floors and walls that repeat, or show nothing."""
    if find_spec(name) is None:
        pytest.skip(f'{name} is not installed (pip install "flythrough[renderers]")')
    if find_spec("cv2") is None:
        pytest.skip('OpenCV is not installed (pip install "flythrough[evaluate]")')
    source.renderer.cache_clear()
    size = (192, 320)
    drawn, k = source.renderer(name), default_intrinsics(*size, 60.0)
    for case in renderer_clips([name]).of("chunk"):
        depth = drawn.views(case.kind, case.seed, np.eye(4)[None], k, size).depth[0]
        median = float(np.median(depth[depth > 0]))
        path = trajectory_from(case.path, case.count, 16.0).resolve(k, size, median, metric=True)
        ends = path.world_from_camera[[0, -1]]
        views = drawn.views(case.kind, case.seed, ends, k, size)
        photo = FirstView(views.rgb[0], views.depth[0], k, views.world_from_camera[0])
        track = pose_track(views.rgb, photo, views.world_from_camera, median)
        assert track.inliers[0] >= 40, (case, track)
        assert track.rotation[0] < 0.5, (case, track)
        assert track.translation[0] < 1, (case, track)
