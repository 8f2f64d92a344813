"""The native history: bands, indices, zeros where nothing is."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from flythrough.conditioning.history import native_history, target_indices
from flythrough.errors import InputError
from flythrough.models.history_tokens import History


def numbered(frames: int, batch: int = 1) -> Tensor:
    """Latents whose values are their number, from 1 on."""
    values = torch.arange(1.0, frames + 1)[None, None, :, None, None]
    return values.expand(batch, 16, frames, 2, 4).clone()


def contents(history: History) -> dict[int, float]:
    """Frame index -> value."""
    found: dict[int, float] = {}
    for band in (history.long, history.mid, history.short):
        if band is not None:
            values = band.latents[0, 0, :, 0, 0].tolist()
            found.update(zip(band.indices[0].tolist(), values, strict=True))
    return found


@settings(deadline=None, max_examples=25)
@given(frames=st.integers(0, 40))
def test_newest_latents_end_at_frame_19(frames: int) -> None:
    found = contents(native_history(numbered(frames), torch.full((1, 16, 1, 2, 4), -1.0)))
    expected = {0: -1.0}
    expected |= {19 - age: max(0.0, float(frames - age)) for age in range(19)}
    assert found == expected


def test_band_sizes_and_no_masks() -> None:
    history = native_history(numbered(30), numbered(1))
    assert history.long is not None
    assert history.mid is not None
    assert history.short is not None
    assert [b.latents.shape[2] for b in (history.long, history.mid, history.short)] == [16, 2, 2]
    assert history.long.visible is None
    assert history.short.visible is None


def test_no_past_is_a_past_of_zeros() -> None:
    prefix = numbered(1)
    none, empty = native_history(None, prefix), native_history(numbered(0), prefix)
    assert contents(none) == contents(empty) == {0: 1.0} | dict.fromkeys(range(1, 20), 0.0)


def test_without_first_frame_the_short_band_grows() -> None:
    history = native_history(numbered(25), None, keep_first_frame=False)
    assert contents(history) == {i: float(6 + i) for i in range(20)}
    assert history.short is not None
    assert history.short.indices.tolist() == [[18, 19]]


def test_empty_bands_are_left_out() -> None:
    history = native_history(numbered(5), numbered(1), sizes=(4, 0, 0))
    assert history.mid is None
    assert contents(history) == {0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0, 4: 5.0}
    assert target_indices(sizes=(4, 0, 0)).tolist() == [list(range(5, 14))]


def test_one_anchor_serves_a_batch() -> None:
    history = native_history(numbered(3, batch=4), numbered(1))
    assert history.short is not None
    assert history.short.latents.shape == (4, 16, 2, 2, 4)
    assert history.short.indices.shape == (4, 2)
    assert target_indices(4).shape == (4, 9)


@pytest.mark.parametrize("keep", [True, False])
def test_anchor_against_the_flag(keep: bool) -> None:
    with pytest.raises(InputError, match=r"anchor latent is (missing|given)"):
        native_history(numbered(3), None if keep else numbered(1), keep_first_frame=keep)


def test_other_bad_input() -> None:
    with pytest.raises(InputError, match="none of them negative"):
        native_history(numbered(3), numbered(1), sizes=(16, -2, 1))
    with pytest.raises(InputError, match="size is unknown"):
        native_history(None, None, keep_first_frame=False)
    with pytest.raises(InputError, match="does not fit latents"):
        native_history(numbered(3), torch.zeros(1, 16, 1, 2, 6))
    with pytest.raises(InputError, match="latents are"):
        native_history(torch.zeros(16, 3, 2, 4), numbered(1))
