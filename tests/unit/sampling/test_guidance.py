"""Guidance and the way from one prompt to the next."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flythrough.errors import InputError
from flythrough.generators.helios import prompt_blend
from flythrough.rollout.chunk import ChunkRequest
from flythrough.sampling.guidance import Guidance, projection


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(0)
    shape = (2, 3, 4, 5)
    return torch.randn(shape, generator=source), torch.randn(shape, generator=source)


def test_scale_one_is_the_prompted_prediction() -> None:
    prompted, plain = pair()
    assert not Guidance().active
    for star in (False, True):
        made = Guidance(scale=1.0, zero_star=star).combined(prompted, plain, 1, 0)
        torch.testing.assert_close(made, prompted)


def test_projection_leaves_a_remainder_at_right_angles() -> None:
    prompted, plain = pair()
    rest = prompted - projection(prompted, plain) * plain
    torch.testing.assert_close((rest * plain).flatten(1).sum(1), torch.zeros(2), atol=1e-4, rtol=0)


def test_zero_star_does_not_mind_the_size_of_the_plain_prediction() -> None:
    prompted, plain = pair()
    guidance = Guidance(scale=5.0, zero_star=True)
    made = guidance.combined(prompted, plain, 1, 0)
    torch.testing.assert_close(made, guidance.combined(prompted, 3 * plain, 1, 0))


def test_zeroed_steps_are_the_first_of_the_first_stage() -> None:
    prompted, plain = pair()
    guidance = Guidance(scale=5.0, zero_star=True, zero_steps=1)
    assert not guidance.combined(prompted, plain, 0, 0).any()
    assert guidance.combined(prompted, plain, 0, 1).any()
    assert guidance.combined(prompted, plain, 1, 0).any()


@pytest.mark.parametrize("scale", [0.5, -1.0, 101.0])
def test_scales_out_of_range(scale: float) -> None:
    with pytest.raises(InputError, match="between 1"):
        Guidance(scale=scale)


class History:
    """A rollout as far as prompts go."""

    def __init__(self, *prompts: str) -> None:
        self.chunks = [type("C", (), {"request": request(i, p)}) for i, p in enumerate(prompts)]


def request(index: int, prompt: str) -> ChunkRequest:
    return ChunkRequest(index=index, prompt=prompt)


@given(span=st.integers(2, 6), before=st.integers(1, 4), since=st.integers(0, 8))
def test_weights_run_from_the_old_prompt_to_the_new_one(span: int, before: int, since: int) -> None:
    past = History(*["old"] * before, *["new"] * since)
    old, weight = prompt_blend(past, request(before + since, "new"), span)  # type: ignore[arg-type]
    if since >= span - 1:
        assert (old, weight) == (None, 1.0)
    else:
        assert old == "old"
        assert weight == pytest.approx(since / (span - 1))


def test_the_first_prompt_and_no_span_blend_nothing() -> None:
    assert prompt_blend(History(), request(0, "a"), 3) == (None, 1.0)  # type: ignore[arg-type]
    assert prompt_blend(History("a"), request(1, "b"), 0) == (None, 1.0)  # type: ignore[arg-type]
