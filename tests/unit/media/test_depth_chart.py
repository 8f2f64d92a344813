"""Depth with a legend: the map unchanged, a bar with its unit, grey where nothing is known."""

from __future__ import annotations

import numpy as np
import pytest

from flythrough.errors import MediaError
from flythrough.media import depth_chart as chart
from flythrough.media.depth_chart import depth_chart
from flythrough.media.picture import depth_picture

DEPTH = np.linspace(1.0, 8.0, 192 * 320).reshape(192, 320)
SURE = np.ones((192, 320), bool)


def texts(monkeypatch: pytest.MonkeyPatch, *given: object) -> list[str]:
    """What is written on the chart."""
    said: list[str] = []
    drawn = chart.ImageDraw.ImageDraw.text

    def kept(self: object, place: object, text: str, *rest: object, **more: object) -> None:
        said.append(text)
        drawn(self, place, text, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(chart.ImageDraw.ImageDraw, "text", kept)
    depth_chart(*given)  # type: ignore[arg-type]
    return said


def test_the_map_is_shown_in_its_colours_beside_a_bar() -> None:
    made = depth_chart(DEPTH, SURE, 4.0, "m")
    assert made.dtype == np.uint8
    height, width = 2 * 192, 2 * 320  # a small map is enlarged by a whole number
    np.testing.assert_array_equal(made[:height:2, :width:2], depth_picture(DEPTH))
    bar = made[60 : height - 20, width + 20].astype(int)
    brightness = bar.sum(axis=1)
    assert (np.diff(brightness) >= -3).all()  # from dark and far to light and near
    assert brightness[-1] > brightness[0] + 300


def test_the_legend_has_the_unit_the_median_and_round_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = texts(monkeypatch, DEPTH, SURE, 4.0, "m")
    assert "m" in said
    assert "4 median" in said
    assert {"2", "3", "5", "7"} <= set(said)
    assert {f"{end:.3g}" for end in np.percentile(DEPTH, (2, 98))} <= set(said)
    assert any("Depth in metres" in text for text in said)
    assert not any("Grey" in text for text in said)


def test_what_is_not_sure_is_grey_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    valid = SURE.copy()
    valid[:48] = False
    assert (depth_chart(DEPTH, valid, 4.0, "scene units")[:90, :600] == 90).all()
    said = texts(monkeypatch, DEPTH, valid, 4.0, "scene units")
    assert "scene units" in said
    assert "25.0 %" in " ".join(said)


@pytest.mark.parametrize("shape", [(8, 300), (300, 8), (1, 1)])
def test_any_shape_and_any_depth_can_be_drawn(shape: tuple[int, int]) -> None:
    for depth in (1.0, 1e-6, 1e6):
        assert depth_chart(np.full(shape, depth), np.ones(shape, bool), depth, "m").ndim == 3
    nothing = depth_chart(np.ones(shape), np.zeros(shape, bool), 1.0, "m")
    assert (nothing[0, 0] == 90).all()


def test_a_wrong_array_is_refused() -> None:
    with pytest.raises(MediaError):
        depth_chart(np.ones((2, 2, 2)), np.ones((2, 2, 2), bool), 1.0, "m")
