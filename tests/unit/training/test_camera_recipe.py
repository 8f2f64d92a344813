"""Noise levels of the camera recipe: what is refused and what stays apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from flythrough.errors import InputError
from flythrough.sampling.dmd_schedule import PyramidConfig
from flythrough.training.camera_recipe import LevelSettings, draw_items, flow_loss
from flythrough.training.loop import LoopSettings

CONFIG = PyramidConfig(use_dynamic_shifting=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": ()}, "no pyramid stage"),
        ({"sampling": "logit"}, "'logit' is unknown"),
        ({"sampling": "first_second_interval", "shift": True}, "has no effect"),
    ],
)
def test_levels_that_are_none(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LevelSettings(**options)


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(InputError, match="'steps' is unknown"):
        LoopSettings(steps=1, learning_rate=1.0, schedule="steps")  # type: ignore[arg-type]


def test_samples_of_a_batch_have_levels_of_their_own() -> None:
    clean = torch.zeros(3, 16, 9, 8, 16)
    levels = LevelSettings(stages=(0, 2))
    items = draw_items(clean, torch.Generator().manual_seed(1), CONFIG, levels)
    assert list(items) == [0, 2]
    assert items[0].x.shape == (3, 16, 9, 2, 4)
    assert items[2].x.shape == clean.shape
    assert len(set(items[0].sigma.tolist())) == 3
    assert items[0].sigma.tolist() != items[2].sigma.tolist()


def test_a_perfect_velocity_has_no_loss() -> None:
    clean = torch.randn(1, 16, 9, 8, 16, generator=torch.Generator().manual_seed(2))
    items = draw_items(
        clean, torch.Generator().manual_seed(1), CONFIG, LevelSettings(stages=(0, 1, 2))
    )
    answers = {item.x.shape: item.target for item in items.values()}
    losses = flow_loss(lambda x, _t: answers[x.shape], items)
    assert {name: float(loss) for name, loss in losses.items()} == dict.fromkeys(
        ("stage0", "stage1", "stage2", "total"), 0.0
    )
    off = flow_loss(lambda x, _t: answers[x.shape] + 2, items)
    assert float(off["total"]) == pytest.approx(4.0)
