"""Which runs may share a loaded model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flythrough.engine.build import build_spec
from flythrough.engine.request import GenerateRequest, check
from flythrough.engine.sessions import Sessions


def test_memory_is_planned_again_for_a_larger_run(
    tiny_model: Path,
) -> None:
    request = GenerateRequest(prompt="a hill", model=str(tiny_model), size=(64, 128), frames=33)
    small = build_spec(check(request))
    large = build_spec(check(replace(request, size=(128, 128))))
    sessions = Sessions("cpu", "auto", lambda _text: None)
    first = sessions.ready(small)
    assert sessions.ready(replace(small, seed=4)) is first
    second = sessions.ready(large)
    assert second is not first
    assert sessions.ready(small) is second


def test_the_scale_of_an_adapter_that_is_left_out_is_refused(tiny_model: Path, photo: Path) -> None:
    from flythrough.errors import InputError

    request = GenerateRequest(
        image=photo, camera="static", model=str(tiny_model), lora="off", lora_scale=0.5, frames=33
    )
    with pytest.raises(InputError, match="has no effect because no adapter is active"):
        check(request)
    assert check(replace(request, lora="default")).request.lora_scale == 0.5
