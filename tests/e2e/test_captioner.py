"""Prompts in a captioner's words: the real class with random weights, and a stand-in that says what
it was shown."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import flythrough as ft
from flythrough.engine import worldwarp_sampler
from flythrough.engine.build import build_spec
from flythrough.engine.memory_plan import PLACEMENTS, MemoryPlan
from flythrough.engine.plan import current_prompt
from flythrough.engine.request import GenerateRequest, check
from flythrough.engine.run_needs import RunParts, run_needs
from flythrough.engine.stored_settings import check_settings
from flythrough.errors import InputError, RolloutError, WeightsError
from flythrough.models.captioner import (
    TASK,
    CaptionSettings,
    QwenCaptioner,
    fitted_size,
    picture_patches,
)
from flythrough.models.captioner_folder import CaptionerFolder, find_captioner
from flythrough.models.captioner_needs import captioner_need
from flythrough.models.catalog import find_model
from flythrough.models.loading import Placement
from flythrough.rollout import store
from throwaway import Command

GIB = 2**30
SMALL = CaptionSettings(frames=2, tokens=6, least_cells=2, most_cells=6)
CAMERA = ("--camera", "forward 0.2", "--geometry", "flat")


def test_frames_become_words_again_and_again(tiny_captioner: Path) -> None:
    made = QwenCaptioner(
        find_captioner(str(tiny_captioner)), torch.device("cpu"), torch.float32, settings=SMALL
    )
    frames = np.random.default_rng(1).integers(0, 256, (5, 64, 96, 3), np.uint8)
    given = made._inputs(frames, "an etching")
    text = made.tokenizer.decode(given["input_ids"][0])
    assert TASK in text
    assert "an etching" in text
    assert text.count("<|vision_start|>") == 2
    assert given["image_grid_thw"].tolist() == [[1, 4, 6]] * 2
    assert made.describe(frames) == made.describe(frames)
    one = made.net(**given).logits[0, -1]
    other = made.net(**made._inputs(frames[::-1].copy(), "an etching")).logits[0, -1]
    assert not torch.equal(one, other)  # the pictures are looked at


def test_patches_are_those_of_merged_cells() -> None:
    pictures = torch.rand(2, 3, 56, 84)
    patches, grid = picture_patches(pictures, 14, 2, CaptionSettings(least_cells=1, most_cells=100))
    assert grid.tolist() == [[1, 4, 6], [1, 4, 6]]
    assert patches.shape == (48, 3 * 2 * 14 * 14)
    shown = patches.view(2, 2, 3, 2, 2, 3, 2, 14, 14)  # picture, cell row, cell column, in a cell
    assert torch.equal(shown[..., 0, :, :], shown[..., 1, :, :])  # twice in time
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    wanted = ((pictures[1] - mean) / std)[:, 28 + 14 : 56, 56:70]
    torch.testing.assert_close(shown[1, 1, 2, 1, 0, :, 0], wanted)


@pytest.mark.parametrize(
    ("size", "wanted"), [((480, 720), (476, 728)), ((64, 96), (392, 560)), ((4000, 100), None)]
)
def test_pictures_keep_to_the_published_sizes(
    size: tuple[int, int], wanted: tuple[int, int] | None
) -> None:
    height, width = fitted_size(size, 28, 256, 1280)
    assert height % 28 == width % 28 == 0
    assert 256 <= height * width // 28**2 <= 1330
    if wanted is not None:
        assert (height, width) == wanted


def test_the_command_line_keeps_each_chunks_words(
    flythrough: Command,
    tiny_st_diff: Path,
    tiny_captioner: Path,
    photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def small(*given: Any, **more: Any) -> QwenCaptioner:
        return QwenCaptioner(*given, **{**more, "settings": SMALL})

    monkeypatch.setattr(worldwarp_sampler, "QwenCaptioner", small)
    run = tmp_path / "run"
    common = ("generate", photo, *CAMERA, "--model", tiny_st_diff, "--frames", 13)
    answer = flythrough(
        *common, "--caption", tiny_captioner, "--prompt", "ink", "--rollout", run, "-o",
        tmp_path / "o.mp4",
    )  # fmt: skip
    assert answer.status == 0, answer.err
    whole = store.load(run)
    assert whole.spec.prompt == "ink"
    assert whole.spec.settings["captioner"] == str(tiny_captioner)
    flythrough("rewind", run, "--chunks", 1)
    again = flythrough("continue", run, "-o", tmp_path / "again.mp4")
    assert again.status == 0, again.err
    assert again.result["digest"] == whole.digest()

    for camera in (("--prompt", "at night", *CAMERA[:2]), CAMERA[:2]):
        longer = flythrough("continue", run, *camera, "--frames", 4)
        assert longer.status == 0, longer.err
    said = [chunk.request.wish for chunk in store.load(run).chunks]
    assert said == ["ink", "ink", "at night", "at night"]


def test_a_stand_in_words_every_chunk(
    tiny_st_diff: Path,
    tiny_captioner: Path,
    photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class StandIn:
        def __init__(self, *_: object, **__: object) -> None:
            self.shown: list[tuple[int, ...]] = []

        def describe(self, frames: np.ndarray, wish: str = "") -> str:
            self.shown.append(frames.shape)
            return f"{wish}: {len(frames)} frames, mean {frames[-1].mean():.3f}"

    monkeypatch.setattr(worldwarp_sampler, "QwenCaptioner", StandIn)
    pipe = ft.load(tiny_st_diff, device="cpu", geometry="flat")
    first = pipe.step(
        pipe.start(photo, prompt="a hall", caption=str(tiny_captioner)), "forward 0.1"
    )
    second = pipe.step(first, "forward 0.1")
    said = [chunk.request.prompt for chunk in second.chunks]
    assert said[0].startswith("a hall: 1 frames, mean ")
    assert said[1] == f"a hall: 9 frames, mean {first.chunks[0].frames[-1].mean():.3f}"
    # another wish goes on until the next one, through rewinding and storing
    night = pipe.step(first, "forward 0.1", "at night")
    later = pipe.step(night, "forward 0.1")
    assert [chunk.request.wish for chunk in later.chunks] == ["a hall", "at night", "at night"]
    assert later.chunks[2].request.prompt.startswith("at night: 4 frames, mean ")
    store.create(tmp_path / "run", later)
    kept = store.load(tmp_path / "run")
    assert kept.digest() == later.digest()
    assert pipe.step(kept.rewind(1), "forward 0.1").digest() == later.digest()
    assert current_prompt(later.rewind(2)) == "a hall"
    silent = pipe.step(pipe.start(photo, prompt="a hall"), "forward 0.1")
    assert silent.chunks[0].request.prompt == "a hall"
    assert silent.chunks[0].request.wish is None
    assert silent.chunks[0].frames.tobytes() != first.chunks[0].frames.tobytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["qwen2.5-vl-7b"], "is not on this machine; run `flythrough models pull qwen2.5-vl-7b`"),
        (["nowhere"], "--caption nowhere is neither qwen2.5-vl-7b nor a folder"),
    ],
)
def test_a_captioner_that_is_not_here_is_named(
    flythrough: Command,
    tiny_st_diff: Path,
    photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    said: str,
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    output = tmp_path / "o.mp4"
    common = ("generate", photo, *CAMERA, "--model", tiny_st_diff, "-o", output)
    answer = flythrough(*common, "--caption", *words)
    assert answer.status == 2
    assert said in answer.err
    assert not output.exists()


def test_a_folder_of_another_kind_or_not_whole_is_refused(
    tiny_captioner: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "captioner"
    shutil.copytree(tiny_captioner, folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"not whole \(model.safetensors is missing\)"):
        find_captioner(str(folder))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(WeightsError, match="holds a 'llama' model"):
        find_captioner(str(folder))


def test_prompts_that_change_with_every_chunk_do_not_blend(
    flythrough: Command, tiny_st_diff: Path, tiny_captioner: Path, photo: Path, tmp_path: Path
) -> None:
    common = ("generate", photo, *CAMERA, "--model", tiny_st_diff, "-o", tmp_path / "o.mp4")
    pair = ("--caption", tiny_captioner, "--blend-chunks", 3, "--rollout", tmp_path / "run")
    answer = flythrough(*common, *pair)
    assert answer.status == 2
    assert "--blend-chunks 3 does not go with --caption" in answer.err
    assert not (tmp_path / "run").exists()
    request = GenerateRequest(
        image=photo, camera="static", model=str(tiny_st_diff), caption=str(tiny_captioner),
        geometry="flat", frames=9,
    )  # fmt: skip
    spec = build_spec(check(request))
    check_settings(spec)
    with pytest.raises(RolloutError, match="blend_chunks = 2 does not go with its captioner"):
        check_settings(replace(spec, settings={**spec.settings, "blend_chunks": 2}))


def test_memory_is_planned_for_it(
    flythrough: Command, tiny_st_diff: Path, tiny_captioner: Path
) -> None:
    folder, model = find_captioner(str(tiny_captioner)), find_model(str(tiny_st_diff))
    made = QwenCaptioner(folder, torch.device("cpu"), torch.float32)
    weights, work = captioner_need(folder, torch.float32)
    assert weights.whole == sum(p.numel() * 4 for p in made.net.parameters())
    assert work.peak_bytes > 4 * 1280 * 4 * 3 * 2 * 14**2 * 4  # patches alone

    def plans(captioner: CaptionerFolder | None, device: str) -> list[MemoryPlan]:
        parts = RunParts(captioner=captioner)
        needs = run_needs(model, (64, 96), "worldwarp", 9, device, geometry="flat", parts=parts)
        return [needs.plan(placement) for placement in PLACEMENTS]

    half = weights.whole // 2
    for with_it, without in zip(plans(folder, "cuda"), plans(None, "cuda"), strict=True):
        waits = with_it.placement != "resident"
        before = {phase.name: phase.device_bytes for phase in without.phases}
        after = {phase.name: phase.device_bytes for phase in with_it.phases}
        assert after.pop("caption") > half
        assert with_it.host_bytes - without.host_bytes == (half if waits else 0)
        assert all(after[name] - before[name] == (0 if waits else half) for name in before)
    pairs = zip(plans(folder, "cpu")[:2], plans(None, "cpu")[:2], strict=True)
    for with_it, without in pairs:  # nowhere else to wait
        assert with_it.phases[-1].device_bytes - without.phases[-1].device_bytes == weights.whole
    doctor = ("doctor", "--device", "cpu", "--frames", 9, "--caption", tiny_captioner)
    answer = flythrough(*doctor, "--model", tiny_st_diff)
    assert "caption" in answer.result["numbers"]["--memory resident"]["phases"]
    answer = flythrough(*doctor, "--method", "helios")
    assert answer.status == 2
    assert "has no effect with method helios" in answer.err


@pytest.mark.parametrize(
    ("placement", "free", "parked"),
    [("resident", GIB, False), ("resident", 1000, True), ("offload", GIB, True), (None, GIB, True)],
)
def test_it_waits_in_host_memory_where_a_gpu_has_no_room(
    tiny_st_diff: Path,
    tiny_captioner: Path,
    photo: Path,
    monkeypatch: pytest.MonkeyPatch,
    placement: Placement | None,
    free: int,
    parked: bool,
) -> None:
    made: list[bool] = []
    monkeypatch.setattr(
        worldwarp_sampler, "QwenCaptioner", lambda *_, parked: made.append(parked) or object()
    )
    monkeypatch.setattr(worldwarp_sampler, "free_bytes", lambda _: free)
    monkeypatch.setattr(worldwarp_sampler, "available_host_bytes", lambda: GIB)
    request = GenerateRequest(
        image=photo, camera="static", model=str(tiny_st_diff), caption=str(tiny_captioner),
        geometry="flat", frames=9,
    )  # fmt: skip
    told: list[str] = []
    given = (build_spec(check(request)), torch.device("cuda"), torch.bfloat16, placement)
    assert worldwarp_sampler.build_captioner(*given, told.append) is not None
    assert made == [parked]
    assert ["waits in host memory" in text for text in told] == [True] * (free < GIB)
    monkeypatch.setattr(worldwarp_sampler, "available_host_bytes", lambda: 1000)
    with pytest.raises(InputError, match=r"GiB of host memory, but 0\.0 GiB are free; close"):
        worldwarp_sampler.build_captioner(*given, told.append)
    assert made == [parked]


def test_other_methods_do_not_take_it(
    flythrough: Command, tiny_model: Path, tiny_captioner: Path, photo: Path, tmp_path: Path
) -> None:
    common = ("generate", photo, *CAMERA, "--model", tiny_model, "-o", tmp_path / "o.mp4")
    answer = flythrough(*common, "--caption", tiny_captioner)
    assert answer.status == 2
    assert "has no effect with method warp-as-history" in answer.err
