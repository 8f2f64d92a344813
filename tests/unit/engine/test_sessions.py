"""Which runs may share a loaded model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from flythrough.engine.acceleration import accelerated_st_diff
from flythrough.engine.build import build_spec
from flythrough.engine.request import GenerateRequest, check
from flythrough.engine.sessions import Sessions
from flythrough.errors import InputError
from flythrough.models.fast import st_diff
from flythrough.models.loading import LoadedStDiff
from flythrough.rollout.spec import RolloutSpec


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


def test_longer_chunks_are_a_larger_run(
    tiny_st_diff: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = GenerateRequest(
        image=photo, camera="static", model=str(tiny_st_diff), geometry="flat", frames=40
    )
    short, long = (build_spec(check(replace(request, chunk_frames=count))) for count in (9, 17))
    sessions = Sessions("cpu", "auto", lambda _text: None)
    planned: list[int] = []
    from flythrough.engine import build

    placed = build.placement_for

    def placement_for(spec: RolloutSpec, *rest: Any) -> Any:
        planned.append(spec.window.frames)
        return placed(spec, *rest)

    monkeypatch.setattr(build, "placement_for", placement_for)
    for spec in (short, long, short):
        sessions.ready(spec)
    assert planned == [9, 17]


def test_memory_is_planned_again_for_a_captioner(
    tiny_st_diff: Path, tiny_captioner: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = GenerateRequest(
        image=photo, camera="static", model=str(tiny_st_diff), geometry="flat", frames=9
    )
    silent = build_spec(check(request))
    worded = build_spec(check(replace(request, caption=str(tiny_captioner))))
    planned: list[bool] = []
    placements: list[str | None] = []
    from flythrough.engine import build

    placed, built = build.placement_for, build.build_captioner

    def placement_for(spec: RolloutSpec, *rest: Any) -> Any:
        planned.append("captioner" in spec.settings)
        return placed(spec, *rest)

    def build_captioner(spec: RolloutSpec, *rest: Any) -> Any:
        placements.append(rest[2])
        return built(spec, *rest)

    monkeypatch.setattr(build, "placement_for", placement_for)
    monkeypatch.setattr(build, "build_captioner", build_captioner)
    sessions = Sessions("cpu", "auto", lambda _text: None)
    for spec in (silent, worded, silent, worded):
        sessions.ready(spec)
    assert planned == [False, True, True]
    assert placements == ["resident", "resident", None, "resident"]


def test_worldwarp_takes_the_fast_path_on_a_cpu_when_asked(tiny_st_diff: Path, photo: Path) -> None:
    request = GenerateRequest(
        image=photo, camera="static", model=str(tiny_st_diff), geometry="flat", frames=9
    )
    spec = build_spec(check(request))
    taken = {}
    for compute in ("auto", "plain", "fast"):
        session = Sessions("cpu", "auto", lambda _text: None, compute=compute).ready(spec)
        assert isinstance(session.model, LoadedStDiff)
        taken[compute] = session.model.fast is not None
    assert taken == {"auto": False, "plain": False, "fast": True}


def test_worldwarp_takes_the_fast_path_on_a_gpu(
    tiny_st_diff: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or says why not, and refuses where it was asked for."""
    request = GenerateRequest(
        image=photo, camera="static", model=str(tiny_st_diff), geometry="flat", frames=9
    )
    session = Sessions("cpu", "auto", lambda _text: None).ready(build_spec(check(request)))
    assert isinstance(session.model, LoadedStDiff)
    model = replace(session.model, device=torch.device("cuda"))
    said: list[str] = []
    assert accelerated_st_diff(model, "auto", said.append).fast is not None
    assert accelerated_st_diff(model, "plain", said.append).fast is None
    assert said == []
    monkeypatch.setattr(st_diff, "why_not", lambda _net: "it is another network")
    assert accelerated_st_diff(model, "auto", said.append).fast is None
    assert said == ["the denoiser takes the plain path, because it is another network."]
    with pytest.raises(InputError, match=r"fast path \(fast\) cannot run .* use --no-fast"):
        accelerated_st_diff(model, "fast", said.append)


def test_the_scale_of_an_adapter_that_is_left_out_is_refused(tiny_model: Path, photo: Path) -> None:
    request = GenerateRequest(
        image=photo, camera="static", model=str(tiny_model), lora="off", lora_scale=0.5, frames=33
    )
    with pytest.raises(InputError, match="has no effect because no adapter is active"):
        check(request)
    assert check(replace(request, lora="default")).request.lora_scale == 0.5
