"""Directions, end poses, timing and errors of the path language."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flythrough.cameras import pose as se3
from flythrough.cameras.path_language import parse_path
from flythrough.cameras.presets import PRESETS
from flythrough.cameras.trajectory import LengthUnit
from flythrough.errors import CameraError


def end(text: str, frames: int = 34) -> np.ndarray:
    return parse_path(text, frames).world_from_camera[-1]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("forward 0.5", (0, 0, 0.5)),
        ("backward 0.5", (0, 0, -0.5)),
        ("left 0.5", (-0.5, 0, 0)),
        ("right 0.5", (0.5, 0, 0)),
        ("truck left 0.5", (-0.5, 0, 0)),
        ("truck right .5", (0.5, 0, 0)),
        ("up 0.5", (0, -0.5, 0)),
        ("down 0.5", (0, 0.5, 0)),
        ("crane up 0.5", (0, -0.5, 0)),
        ("crane down 5e-1", (0, 0.5, 0)),
        ("pedestal up 0.5", (0, -0.5, 0)),
        ("pedestal down 0.5", (0, 0.5, 0)),
        ("forward -0.5", (0, 0, -0.5)),
        ("FORWARD  0.5 m", (0, 0, 0.5)),
        ("dolly in 0.5", (0, 0, 0.5)),
        ("dolly out 0.5", (0, 0, -0.5)),
        ("dolly-in 0.5", (0, 0, 0.5)),
        ("dolly-out 0.5", (0, 0, -0.5)),
        ("pedestal-up 0.5", (0, -0.5, 0)),
        ("truck-left 0.5", (-0.5, 0, 0)),
    ],
)
def test_straight_moves_end_at_the_whole_amount(
    text: str, place: tuple[float, float, float]
) -> None:
    expected = se3.translation(*place)
    np.testing.assert_allclose(end(text), expected, atol=1e-12)
    middle = parse_path(text, 35).world_from_camera[17, :3, 3]
    np.testing.assert_allclose(middle, expected[:3, 3] / 2, atol=1e-12)


@pytest.mark.parametrize(
    ("text", "axis_column", "expected"),
    [
        ("pan right 20deg", 2, (math.sin(math.radians(20)), 0, math.cos(math.radians(20)))),
        ("pan left 20 deg", 2, (-math.sin(math.radians(20)), 0, math.cos(math.radians(20)))),
        ("tilt up 20deg", 2, (0, -math.sin(math.radians(20)), math.cos(math.radians(20)))),
        ("tilt down 0.2rad", 2, (0, math.sin(0.2), math.cos(0.2))),
        ("roll right 0.2rad", 0, (math.cos(0.2), math.sin(0.2), 0)),
        ("roll left 0.2rad", 0, (math.cos(0.2), -math.sin(0.2), 0)),
        ("roll 0.2rad", 0, (math.cos(0.2), math.sin(0.2), 0)),
        ("roll cw 0.2rad", 0, (math.cos(0.2), math.sin(0.2), 0)),
        ("roll ccw 0.2rad", 0, (math.cos(0.2), -math.sin(0.2), 0)),
        ("pan-right 0.2rad", 2, (math.sin(0.2), 0, math.cos(0.2))),
        ("tilt-up 0.2rad", 2, (0, -math.sin(0.2), math.cos(0.2))),
    ],
)
def test_turns_end_at_the_whole_angle(
    text: str, axis_column: int, expected: tuple[float, float, float]
) -> None:
    last = end(text)
    np.testing.assert_allclose(last[:3, axis_column], expected, atol=1e-12)
    np.testing.assert_allclose(last[:3, 3], 0, atol=1e-12)


@pytest.mark.parametrize(("side", "sign"), [("left", -1), ("right", 1)])
def test_orbit_circles_the_subject_and_keeps_looking_at_it(side: str, sign: int) -> None:
    path = parse_path(f"orbit {side} 90deg", 33)
    np.testing.assert_allclose(path.world_from_camera[-1, :3, 3], (sign, 0, 1), atol=1e-12)
    subject = se3.inverse(path.world_from_camera) @ np.array([0, 0, 1, 1.0])
    np.testing.assert_allclose(subject, [[0, 0, 1, 1]] * 33, atol=1e-12)


def test_dolly_zoom_keeps_the_subject_size() -> None:
    path = parse_path("dolly-zoom 0.5", 33)
    distance = 1 - path.world_from_camera[:, 2, 3]
    assert path.focal_scale is not None
    np.testing.assert_allclose(path.focal_scale / distance, 1, atol=1e-12)
    assert path.focal_scale[-1] == pytest.approx(0.5)


def test_zoom_multiplies_and_goes_on() -> None:
    path = parse_path("zoom 1.2x; forward 1; zoom 0.5x", 34)
    assert path.focal_scale is not None
    assert path.focal_scale[-1] == pytest.approx(0.6)
    np.testing.assert_allclose(path.focal_scale[11:23], 1.2)
    assert parse_path("forward 1", 34).focal_scale is None


def test_each_step_starts_in_the_frame_of_the_camera_there() -> None:
    last = end("pan right 90deg; forward 1")
    np.testing.assert_allclose(last[:3, 3], (1, 0, 0), atol=1e-12)


@pytest.mark.parametrize("frames", [3, 10, 33, 34, 66, 97])
def test_two_steps_end_like_their_sum(frames: int) -> None:
    np.testing.assert_allclose(
        end("forward 0.2; forward 0.3", frames), end("forward 0.5", frames), atol=1e-12
    )


def test_timed_steps_take_their_time_and_the_rest_is_shared() -> None:
    z = parse_path("forward 1 over 1s; hold 0.5 s; forward 1", 41, 16).world_from_camera[:, 2, 3]
    np.testing.assert_allclose(z[[0, 8, 16, 20, 24, 32, 40]], [0, 0.5, 1, 1, 1, 1.5, 2])
    timed = parse_path("forward 1 over 1s", 33, 16).world_from_camera[:, 2, 3]
    np.testing.assert_allclose(timed[16:], 1)


def test_units() -> None:
    assert parse_path("forward 1", 9).unit is LengthUnit.MEDIAN_DEPTH
    assert parse_path("forward 1m; pan left 5deg; hold", 9).unit is LengthUnit.METRE
    assert parse_path("pan-left; up 1m", 9).unit is LengthUnit.METRE


@pytest.mark.parametrize("name", PRESETS)
def test_presets_start_at_the_photo_and_have_defaults(name: str) -> None:
    path = parse_path(name, 33)
    np.testing.assert_allclose(path.world_from_camera[0], np.eye(4), atol=0)
    np.testing.assert_allclose(path.world_from_camera[1], np.eye(4), atol=0.2)
    moved = np.abs(path.world_from_camera - np.eye(4)).max()
    assert bool(moved > 0.05) is (name != "static")


@pytest.mark.parametrize("name", ["spiral", "lemniscate", "crane", "reveal", "hero", "orbit"])
def test_presets_around_the_subject_keep_it_in_the_centre(name: str) -> None:
    path = parse_path(name, 33)
    seen = se3.inverse(path.world_from_camera) @ np.array([0, 0, 1, 1.0])
    np.testing.assert_allclose(seen[:, :2], 0, atol=1e-9)
    assert (seen[:, 2] > 0.3).all()


def test_lemniscate_has_constant_speed_and_returns() -> None:
    place = parse_path("lemniscate", 65).world_from_camera[:, :3, 3]
    np.testing.assert_allclose(place[-1], 0, atol=1e-9)
    speed = np.linalg.norm(np.diff(place, axis=0), axis=1)
    np.testing.assert_allclose(speed, speed.mean(), rtol=0.02)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("forwrd 1", ["'forwrd'", "did you mean forward?", "`flythrough camera --list`"]),
        ("wobble 3", ["'wobble'", "the nearest is roll", "`flythrough camera --list`"]),
        ("", ["no steps"]),
        (" ; ", ["no steps"]),
        ("pan left 20", ["20deg", "20rad"]),
        ("pan left 20m", ["20deg"]),
        ("pan left 20°", ["20deg"]),
        ("pan 20deg", ["pan left", "pan right"]),
        ("orbit left 30", ["30deg"]),
        ("orbit forward 30deg", ["'forward' is neither", "left or right", "'orbit left 30deg'"]),
        ("crane forward 0.3", ["'forward' is neither", "up or down", "'crane up 0.3'"]),
        ("roll up 5deg", ["'up' is none of them", "left, right, ccw or cw", "'roll left 5deg'"]),
        ("pan rigth 20deg", ["'rigth' is neither", "'pan right 20deg'"]),
        ("pan 20deg left", ["direction behind", "'pan left 20deg'"]),
        ("orbit 20deg left", ["direction behind", "'orbit left 20deg'"]),
        ("forward left 0.5", ["surplus word 'left'"]),
        ("dolly-in left 0.4", ["surplus word 'left'"]),
        ("zoom in 1.2x", ["surplus word 'in'"]),
        ("forward 20deg", ["no length", "angles go with pan"]),
        ("forward 30cm", ["'cm'", "write 0.3m"]),
        ("up 2parsec", ["no length", "like 0.5,", "0.5m"]),
        ("pan up 20deg", ["left or right", "'tilt up 20deg'"]),
        ("truck down 0.2", ["'crane down 0.2'"]),
        ("forward", ["amount"]),
        ("forward 1 2", ["surplus", "'2'"]),
        ("forward 0.3, pan right 10deg", ["has a comma", "separated by ';'"]),
        ("forward nan", ["finite"]),
        ("forward 1e999", ["finite"]),
        ("forward fast", ["'fast'"]),
        ("forward 1; up 1m", ["mix"]),
        ("orbit left 20deg; up 1m", ["mix"]),
        ("spiral 1m", ["leave out the 'm'"]),
        ("dolly-zoom 1", ["below 1"]),
        ("zoom 1.2", ["1.2x"]),
        ("zoom 0x", ["positive"]),
        ("zoom -1x", ["positive"]),
        ("zoom 1e300x; zoom 1e300x", ["finite"]),
        ("hold -1s", ["positive"]),
        ("hold 1s over 1s", ["twice"]),
        ("forward 1 over", ["seconds"]),
        ("forward 1 over 2m", ["seconds"]),
        ("static 1", ["no", "static"]),
        ("over 2s", ["'over'"]),
        ("forward 1 over 10s", ["161", "34"]),
        ("; ".join(["forward 1"] * 40), ["41", "34"]),
    ],
)
def test_errors_say_what_and_how(text: str, words: list[str]) -> None:
    with pytest.raises(CameraError) as caught:
        parse_path(text, 34)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("frames", "fps"), [(0, 16.0), (33, 0.0), (33, math.nan)])
def test_frames_and_rate_are_checked(frames: int, fps: float) -> None:
    with pytest.raises(CameraError):
        parse_path("forward 1", frames, fps)
