"""Camera files under the four meanings of their matrices, held against a world with exact depth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from flythrough.cameras import pose as se3
from flythrough.cameras.formats.conventions import Convention, other_readings, parse_convention
from flythrough.cameras.path_language import parse_path
from flythrough.cameras.trajectory import Trajectory
from flythrough.engine.camera_reading import STRONG, WEAK, better_readings, reading_shares
from flythrough.errors import CameraError
from flythrough.generators.keyframes import KeyframeMemory
from flythrough.geometry.estimators.oracle import OracleDepth
from flythrough.rollout.rollout import Rollout, Start
from flythrough.rollout.spec import RolloutSpec
from flythrough.scene.settings import WarpSettings
from flythrough.worlds.clips import ClipSettings, clip

SIZE = (96, 160)
OURS, OPENGL = Convention(), Convention("opengl")
INVERSE = Convention(direction="camera-from-world")
BOTH = Convention("opengl", "camera-from-world")
FLIP = np.diag([1.0, -1.0, -1.0, 1.0])
ELSEWHERE = se3.from_parts(se3.so3_exp([0.41, 0.99, 0.4]), [-2.61, 1.81, 0.89])
"""The photo's camera in the world of some file."""

Seen = Callable[[Trajectory], np.ndarray]


@pytest.fixture(scope="module", params=[("room", 2), ("street", 3)])
def seen(request: pytest.FixtureRequest) -> Seen:
    """What a path sees of a world's photo."""
    kind, seed = request.param
    world = clip(seed, "static", 1, SIZE, settings=ClipSettings(kind=kind))
    estimator = OracleDepth(world.depth, world.intrinsics.float())
    memory = KeyframeMemory(estimator, WarpSettings(depth_rtol=0.1), torch.device("cpu"))
    image = (world.rgb[0].permute(1, 2, 0) * 255).byte().numpy()
    spec = RolloutSpec(
        method="warp-as-history",
        model="m",
        model_digest="d",
        height=SIZE[0],
        width=SIZE[1],
        fps=16,
        seed=1,
    )
    rollout = Rollout(spec, Start(image, world.intrinsics[0].numpy()))
    median = float(memory.photo_geometry(rollout).median_depth())

    def shares(path: Trajectory) -> np.ndarray:
        found = path.resolve(world.intrinsics[0].numpy(), SIZE, median)
        assert found.intrinsics is not None
        return memory.cells_seen(rollout, found.world_from_camera, found.intrinsics)

    return shares


def stored(words: str, meant: Convention, first: np.ndarray) -> Trajectory:
    """A path as a file of some convention holds it, its first camera at ``first``."""
    path = parse_path(words, 33)[::2].moved(first)
    matrices = path.world_from_camera
    if meant.axes == "opengl":
        matrices = matrices @ FLIP
    if meant.direction == "camera-from-world":
        matrices = np.linalg.inv(matrices)
    return Trajectory(matrices, path.times)


@pytest.mark.parametrize("meant", [OURS, OPENGL, INVERSE, BOTH])
def test_every_reading_is_found_again(meant: Convention) -> None:
    words = "orbit left 30deg; forward 0.2"
    file = stored(words, meant, ELSEWHERE)
    found = {OURS: file, **other_readings(file)}[meant]
    expected = stored(words, OURS, ELSEWHERE)
    np.testing.assert_allclose(found.world_from_camera, expected.world_from_camera, atol=1e-9)
    assert parse_convention(str(meant)) == meant


@pytest.mark.parametrize("first", [np.eye(4), ELSEWHERE])
def test_an_orbit_with_other_axes_is_told(seen: Seen, first: np.ndarray) -> None:
    shares = reading_shares(stored("orbit left 60deg", OPENGL, first), seen)
    found = better_readings(shares, STRONG)
    assert found is not None
    assert OPENGL in found[1]


@pytest.mark.parametrize("meant", [INVERSE, BOTH])
def test_inverse_matrices_are_noticed_where_the_world_is_not_the_photos(
    seen: Seen, meant: Convention
) -> None:
    shares = reading_shares(stored("orbit left 60deg", meant, ELSEWHERE), seen)
    found = better_readings(shares, WEAK)
    assert found is not None
    assert meant in found[1]


@pytest.mark.parametrize("first", [np.eye(4), ELSEWHERE])
@pytest.mark.parametrize(
    "words",
    [
        *("forward 0.5", "forward 4", "backward 1", "left 1", "up 0.5", "pan right 170deg"),
        *("tilt up 40deg", "orbit left 120deg", "crane 0.6", "hero 0.5", "spiral 0.3"),
        *("forward 1; pan right 90deg", "left 1; pan left 60deg", "left 0.5; pan right 40deg"),
    ],
)
def test_paths_that_are_read_as_they_are_meant_pass(
    seen: Seen, words: str, first: np.ndarray
) -> None:
    assert better_readings(reading_shares(stored(words, OURS, first), seen), STRONG) is None


def test_straight_moves_stay_undecided(seen: Seen) -> None:
    for words in ("forward 2", "backward 0.5", "pan left 60deg"):
        for meant in (OPENGL, INVERSE, BOTH):
            shares = reading_shares(stored(words, meant, np.eye(4)), seen)
            assert better_readings(shares, STRONG) is None
            assert better_readings(shares, WEAK) is None


def test_a_move_sideways_that_turns_away_is_only_remarked_on() -> None:
    """The hardest path that is meant as it reads: the subject is kept by turning the other way."""
    shares = {OURS: np.array([1.0, 0.4, 0.15]), OPENGL: np.array([1.0, 0.8, 0.58])}
    assert better_readings(shares, STRONG) is None
    assert better_readings(shares, WEAK) == (2, [OPENGL])


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("opengl", OPENGL),
        ("camera-from-world", INVERSE),
        ("camera-from-world, opengl", BOTH),
        ("opencv", OURS),
    ],
)
def test_words_for_conventions(text: str, means: Convention) -> None:
    assert parse_convention(text) == means


@pytest.mark.parametrize("text", ["", "maya", "opengl,opencv", "opengl,w2c"])
def test_words_for_no_convention(text: str) -> None:
    with pytest.raises(CameraError, match="is unknown; use one of opencv, opengl"):
        parse_convention(text)
