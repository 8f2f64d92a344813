"""Runs whose denoiser is shared by processes, and parts on devices of their own, through the engine
and the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import flythrough as ft
from flythrough.engine import placement, team
from flythrough.engine.hardware import Hardware
from flythrough.engine.memory_plan import RunNeeds
from flythrough.engine.placement import check_other_devices
from flythrough.errors import FaultError, InputError
from flythrough.models.accounting import Need
from flythrough.models.fast.denoiser import FastDenoiser
from flythrough.models.needs import PartNeed
from flythrough.rollout import store
from throwaway import Command

GIB = 2**30


@pytest.fixture
def _ends() -> Iterator[None]:
    """No process is left behind, nor this one in a process group."""
    yield
    if team._running is not None:
        team._running.end()
    assert not torch.distributed.is_initialized()


def same(one: Any, two: Any) -> None:
    for before, after in zip(one.chunks, two.chunks, strict=True):
        np.testing.assert_allclose(after.latents, before.latents, atol=2e-5)


@pytest.mark.usefixtures("_ends")
def test_two_processes_make_the_same_clips(visible_model: Path, photo: Path) -> None:
    """Led by a camera with an adapter in one stage; from text with guidance; with another model in
    between."""
    alone = ft.load(visible_model, device="cpu", compute="fast")
    pair = ft.load(visible_model, device="cpu", gpus=2)
    text = {"prompt": "a lake", "frames": 33, "guidance": 2.0, "negative_prompt": "blur"}
    cases: list[dict[str, Any]] = [
        {"image": photo, "camera": "forward 0.5; pan left 30deg", "frames": 40},
        text,
    ]
    for case in cases:
        same(alone(seed=5, **case).rollout, pair(seed=5, **case).rollout)
    other = ft.load(visible_model, device="cpu", gpus=2)
    wanted = alone(seed=5, **text).rollout
    same(wanted, other(seed=5, **text).rollout)
    same(wanted, pair(seed=5, **text).rollout)


@pytest.mark.usefixtures("_ends")
def test_all_processes_are_told_to_record(
    visible_model: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on GPUs with room; a model that is kept for another run goes on so."""
    monkeypatch.setattr(placement, "may_record", lambda *_: True)
    told, tell = [], team.Team.tell

    def listen(self: team.Team, header: Any, *more: Any) -> None:
        told.append(header)
        tell(self, header, *more)

    monkeypatch.setattr(team.Team, "tell", listen)
    pair = ft.load(visible_model, device="cpu", gpus=2)
    for lora in ("default", "off"):
        pair.lora = lora
        pair(photo, camera="forward 0.2", frames=33)
    loads = [header["graphs"] for header in told if "graphs" in header]
    assert loads == [True, True]
    assert pair._sessions._kept is not None
    fast = pair._sessions._kept[1].model.fast
    assert isinstance(fast, FastDenoiser)
    assert fast.settings.graphs


@pytest.mark.usefixtures("_ends")
def test_a_lost_process_is_replaced(visible_model: Path) -> None:
    pair = ft.load(visible_model, device="cpu", gpus=2)

    def lose(*_: object) -> None:
        assert team._running is not None
        team._running._others[0].kill()
        team._running._others[0].wait()

    first = pair(prompt="a lake", frames=33).rollout
    with pytest.raises(FaultError, match="process on GPU 1 has ended"):
        pair(prompt="a lake", frames=66, callback=lose)
    same(first, pair(prompt="a lake", frames=33).rollout)


@pytest.mark.usefixtures("_ends")
def test_command_line(
    flythrough: Command, visible_model: Path, photo: Path, tmp_path: Path
) -> None:
    words = [photo, "--camera", "forward 0.5", "--frames", 33, "--model", visible_model]
    words = ["generate", *words, "--device", "cpu", "-o", tmp_path / "out.mp4"]
    for name, more in (("one", ("--fast",)), ("two", ("--gpus", 2))):
        answer = flythrough(*words, *more, "--rollout", tmp_path / name)
        assert answer.status == 0
        goes_on = ("continue", tmp_path / name, "--camera", "pan left 5deg", "--device", "cpu")
        assert flythrough(*goes_on, *more).status == 0
    one, two = (store.load(tmp_path / name) for name in ("one", "two"))
    assert len(one.chunks) == 2
    same(one, two)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpus", "0"], "--gpus 0 is out of range"),
        (["--gpus", "2", "--device", "cuda"], "cuda"),
        (["--gpus", "2"], "needs 2 CUDA GPUs, but there are 0; drop it"),
        (["--gpus", "2", "--no-fast"], "needs the denoiser's fast path"),
        (["--gpus", "2", "--memory", "offload"], "weights on every GPU"),
        (["--graphs"], "--graphs has no effect on one GPU"),
        (["--graphs", "--gpus", "2", "--device", "cpu"], "--graphs has no effect on a CPU"),
        (["--graphs", "--gpus", "2", "--compile"], "--graphs has no effect with --compile"),
        (["--no-graphs"], "--no-graphs has no effect on one GPU"),
        (["--no-graphs", "--gpus", "2", "--device", "cpu"], "--no-graphs has no effect on a CPU"),
        (["--no-graphs", "--gpus", "2", "--compile"], "--no-graphs has no effect with --compile"),
        (["--codec-device", "cpu", "--device", "cpu"], "no effect"),
        (["--codec-device", "auto"], "says nothing"),
        (["--codec-device", "cuda:7"], "not available here"),
        (["--geometry-device", "cuda:7"], "not available here"),
        (["--codec-device", "gpu"], "unknown"),
    ],
)
def test_refused(
    flythrough: Command, tiny_model: Path, photo: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    if torch.cuda.is_available():
        pytest.skip("for machines without a GPU")
    more = ["--camera", "static", "--model", tiny_model, "-o", tmp_path / "o.mp4"]
    answer = flythrough("generate", photo, *more, *words)
    assert answer.status == 2
    assert said in answer.err
    assert not list(tmp_path.iterdir())


def test_refused_without_effect(
    flythrough: Command, tiny_model: Path, tiny_st_diff: Path, photo: Path, tmp_path: Path
) -> None:
    target = ["-o", tmp_path / "o.mp4", "--device", "cpu"]
    words = ["generate", "--prompt", "a lake", "--model", tiny_model, *target]
    answer = flythrough(*words, "--geometry-device", "cpu")
    assert answer.status == 2
    assert "no scene is rendered" in answer.err
    words = ["generate", photo, "--camera", "static", "--model", tiny_st_diff, *target]
    answer = flythrough(*words, "--gpus", "2")
    assert answer.status == 2
    assert "has no effect with method worldwarp" in answer.err


def test_memory_of_other_devices() -> None:
    """What lies elsewhere is counted there, and only there."""
    weights = {
        "transformer": PartNeed(29 * GIB, GIB),
        "text_encoder": PartNeed(11 * GIB, GIB),
        "vae": PartNeed(GIB, GIB),
        "geometry": PartNeed(3 * GIB, GIB),
    }
    needs = RunNeeds(
        weights=weights,
        text=Need(GIB, 1.0),
        encode=Need(7 * GIB, 1.0),
        warp=Need(5 * GIB, 1.0),
        denoise=Need(2 * GIB, 1.0),
        decode=Need(9 * GIB, 1.0),
        frames=33,
        size=(384, 640),
        device="cuda",
        calls=6,
    )

    def free(device: torch.device) -> int:
        return {1: 20, 2: 40}[device.index] * GIB

    assert check_other_devices(needs, Hardware(), free) == []
    parts = check_other_devices(needs, Hardware(1, "cuda:1", "cuda:2"), free)
    assert parts == ["geometry", "codec"]
    left, whole = needs.without(parts).plan("resident"), needs.plan("resident")
    assert whole.device_bytes - left.device_bytes == (3 + 1 + 9 - 2) * GIB  # denoising is the peak
    assert check_other_devices(needs, Hardware(1, None, "cuda:1"), free) == ["codec"]
    with pytest.raises(InputError, match=r"denoiser of this run need .* on cuda:1, but 20.0 GiB"):
        check_other_devices(needs, Hardware(3), free)
    with pytest.raises(InputError, match="denoiser and codec of this run"):
        check_other_devices(needs, Hardware(2, None, "cuda:1"), lambda _: 32 * GIB)
