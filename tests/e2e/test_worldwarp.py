"""WorldWarp through the command line and from Python: the laws, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import flythrough as ft
from flythrough.errors import InputError, WeightsError
from flythrough.evaluation.judged_model import ModelChoice, check_model
from flythrough.integrations.diffusers_names import HeliosPipeline
from flythrough.media.video import read_video
from flythrough.models.catalog import read_defaults
from flythrough.training.lora.settings import LoraRequest, check_lora
from throwaway import Command

CAMERA = ("--camera", "forward 0.2; pan left 5deg", "--geometry", "flat")


def test_runs_go_on_rewind_and_branch(
    flythrough: Command, tiny_st_diff: Path, photo: Path, tmp_path: Path
) -> None:
    run, output = tmp_path / "run", tmp_path / "out.mp4"
    common = ("generate", photo, *CAMERA, "--model", tiny_st_diff, "--seed", 4)
    answer = flythrough(*common, "--frames", 15, "--rollout", run, "-o", output)
    assert answer.status == 0, answer.err
    whole = answer.result
    assert (whole["frames"], whole["chunks"]) == (15, 3)  # 9, then 4 and 4
    assert len(read_video(output).frames) == 15

    branch = tmp_path / "branch"
    answer = flythrough("branch", run, branch, "--chunks", 1)
    assert answer.status == 0, answer.err
    assert answer.result["frames"] == 9
    answer = flythrough("rewind", run, "--chunks", 2)
    assert answer.status == 0, answer.err
    assert answer.result["frames"] == 9
    for folder in (run, branch):
        answer = flythrough("continue", folder, "-o", tmp_path / "again.mp4")
        assert answer.status == 0, answer.err
        assert answer.result["digest"] == whole["digest"]

    leg = ("continue", run, "--camera", "pan right 5deg", "--prompt", "a painting", "--frames", 4)
    answer = flythrough(*leg, "--fast")
    assert answer.status == 0, answer.err
    assert (answer.result["frames"], answer.result["chunks"]) == (21, 4)


def test_an_st_diff_beside_a_helios_is_chosen_by_method(
    flythrough: Command, tiny_st_diff: Path, visible_model: Path, photo: Path, tmp_path: Path
) -> None:
    both = tmp_path / "both"
    shutil.copytree(visible_model, both)
    shutil.copytree(tiny_st_diff / "transformer", both / "st_diff")
    words = ("generate", photo, *CAMERA, "--model", both, "--method", "worldwarp")
    sizes = ("--chunk-frames", 9, "--overlap", 1, "--frames", 10, "--size", "64x80")
    more = ("--steps", 2, "--guidance", 1, "--strength", 0.5)
    answer = flythrough(*words, *sizes, *more, "-o", tmp_path / "out.mp4")
    assert answer.status == 0, answer.err
    assert (answer.result["frames"], answer.result["chunks"]) == (10, 2)
    assert read_video(tmp_path / "out.mp4").frames.shape[1:3] == (64, 80)
    answer = flythrough("models", "check", both)
    assert answer.status == 0, answer.out


@pytest.mark.parametrize("beside", [False, True])
def test_a_prompt_alone_starts_a_walk(
    flythrough: Command, tiny_st_diff: Path, visible_model: Path, tmp_path: Path, beside: bool
) -> None:
    model = tiny_st_diff
    if beside:
        model = tmp_path / "both"
        shutil.copytree(visible_model, model)
        shutil.copytree(tiny_st_diff / "transformer", model / "st_diff")
    run = tmp_path / "run"
    words = ("generate", *CAMERA, "--prompt", "a lake", "--model", model, "--method", "worldwarp")
    sizes = ("--chunk-frames", 9, "--overlap", 5, "--frames", 11, "--size", "64x80", "--steps", 2)
    answer = flythrough(*words, *sizes, "--rollout", run, "-o", tmp_path / "out.mp4")
    assert answer.status == 0, answer.err
    assert f"by {'the model' if beside else 'its ST-Diff'}" in answer.err
    assert (answer.result["frames"], answer.result["chunks"]) == (11, 2)
    flythrough("rewind", run, "--chunks", 1)
    again = flythrough("continue", run, "-o", tmp_path / "again.mp4")
    assert again.result["digest"] == answer.result["digest"]


def test_a_photo_may_be_repainted_first(tiny_st_diff: Path, photo: Path) -> None:
    pipe = ft.load(tiny_st_diff, device="cpu", geometry="flat")

    def start(strength: float | None) -> np.ndarray:
        made = pipe.start(photo, prompt="an etching", restyle=strength).start
        assert made is not None
        return made.image.astype(float)

    plain, little, much = start(None), start(0.4), start(1.0)
    assert plain.shape == (64, 96, 3)
    assert not np.array_equal(little, plain)
    assert not np.array_equal(little, much)
    assert np.array_equal(start(0.4), little)


def test_doctor_and_check_know_the_model(flythrough: Command, tiny_st_diff: Path) -> None:
    answer = flythrough("doctor", "--model", tiny_st_diff, "--frames", 17, "--device", "cpu")
    assert answer.status == 0, answer.err
    assert "worldwarp" in answer.result["run"]
    assert "a chunk of 9" in answer.result["time"]
    answer = flythrough("models", "check", tiny_st_diff)
    assert answer.status == 0, answer.out


def test_python_steps_rewinds_and_previews(tiny_st_diff: Path, photo: Path) -> None:
    pipe = ft.load(tiny_st_diff, device="cpu", geometry="flat")
    clip = pipe(photo, camera="forward 0.2", frames=13, seed=2, strength=0.6)
    assert clip.frames.shape == (13, 64, 96, 3)
    assert clip.rollout.spec.method == "worldwarp"
    rollout = pipe.start(photo, seed=2)
    first = pipe.step(rollout, "forward 0.2")
    second = pipe.step(first, "pan left 5deg")
    assert [len(chunk.frames) for chunk in second.chunks] == [9, 4]
    assert pipe.step(second.rewind(1), "pan left 5deg").digest() == second.digest()
    shown = pipe.warp(first, "pan left 5deg")
    assert shown.frames.shape == (4, 64, 96, 3)
    with pytest.raises(ft.InputError, match="follows no warp"):
        pipe.step(first, warp=np.zeros((33, 64, 96, 3), np.uint8))
    with pytest.raises(ft.InputError, match="after_step cannot be used with method worldwarp"):
        pipe(photo, camera="static", frames=9, after_step=lambda _step, _time, latents: latents)
    with pytest.raises(ft.InputError, match="which no Helios pipeline can run"):
        HeliosPipeline.from_pretrained(tiny_st_diff)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--strength", 1.5), "--strength 1.5 is out of range"),
        (("--chunk-frames", 10), "--chunk-frames 10"),
        (("--overlap", 0), "--overlap 0"),
        (("--overlap", 9), "An overlap of 9"),
        (("--overlap", 1, "--frames", 9), "which are one chunk"),
        (("--steps", "2,2,2"), "one stage"),
        (("--seams", "smooth"), "--seams smooth has no effect"),
        (("--anchor", "none"), "--anchor none has no effect"),
        (("--lora", "off"), "--lora off has no effect"),
        (("--warp-band", "short"), "--warp-band short has no effect"),
        (("--no-select",), "--no-select has no effect"),
        (("--guidance", 1, "--negative-prompt", "fog"), "--negative-prompt has no effect"),
        (("--size", "64x72"), "multiple of 16"),
        (("--method", "warp-as-history"), "is an ST-Diff"),
    ],
)
def test_options_that_cannot_work_are_refused(
    flythrough: Command,
    tiny_st_diff: Path,
    photo: Path,
    tmp_path: Path,
    options: tuple[object, ...],
    words: str,
) -> None:
    output = tmp_path / "out.mp4"
    answer = flythrough("generate", photo, *CAMERA, "--model", tiny_st_diff, "-o", output, *options)
    assert answer.status == 2
    assert words in answer.err
    assert not output.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--camera", "static"), "starts from a photo or a prompt"),
        (("--camera", "static", "--restyle", "0.7", "--prompt", "a lake"), "without an IMAGE"),
        (("IMAGE", "--camera", "static", "--restyle", "0.7"), "without a --prompt"),
        (("IMAGE", "--camera", "static", "--restyle", "2", "--prompt", "a"), "out of range"),
        (("--camera", "static", "--prompt", "a", "--geometry", "IMAGE"), "the depth of a photo"),
        (("IMAGE",), "without a camera"),
        (("IMAGE", "--camera", "static", "--model", "nano"), "needs an ST-Diff"),
        (("IMAGE", "--camera", "static", "--warp", "IMAGE"), "renders its own"),
        (("--video", "IMAGE", "--camera", "static"), "cannot be continued"),
    ],
)
def test_starts_that_cannot_work_are_refused(
    flythrough: Command,
    tiny_st_diff: Path,
    visible_model: Path,
    photo: Path,
    tmp_path: Path,
    options: tuple[str, ...],
    words: str,
) -> None:
    given = [photo if word == "IMAGE" else word for word in options]
    model = ("--model", tiny_st_diff)
    if "nano" in given:
        at = given.index("nano")
        given[at - 1 : at + 1] = []
        model = ("--model", visible_model)
    answer = flythrough(
        "generate", *given, *model, "--method", "worldwarp", "-o", tmp_path / "o.mp4"
    )
    assert answer.status == 2
    assert words in answer.err


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"erosion": 4}, "erosion is 4 but must be odd"),
        ({"strength": 1.5}, "strength is 1.5 but must be 0 to 1"),
        ({"chunk_frames": 48}, "chunk_frames is 48 but must be 4k"),
        ({"overlap": 49}, "below chunk_frames"),
        ({"steps": "many"}, "steps is 'many' but must be a whole number"),
    ],
)
def test_a_model_that_says_nonsense_of_worldwarp_is_refused(
    tmp_path: Path, values: dict[str, object], words: str
) -> None:
    own = {"chunk_frames": 49, **values}
    (tmp_path / "flythrough.json").write_text(json.dumps({"defaults": {"worldwarp": own}}))
    with pytest.raises(WeightsError, match=words):
        read_defaults(tmp_path)


def test_other_commands_refuse_an_st_diff_alone(tiny_st_diff: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a folder whose transformer is a Helios"):
        check_model(ModelChoice(model=str(tiny_st_diff)))
    (tmp_path / "clip").mkdir()
    with pytest.raises(InputError, match="a folder whose transformer is a Helios"):
        check_lora(
            LoraRequest(data=tmp_path / "clip", folder=tmp_path / "run", model=str(tiny_st_diff))
        )


def test_its_options_have_no_effect_elsewhere(
    flythrough: Command, visible_model: Path, photo: Path, tmp_path: Path
) -> None:
    for option in (("--strength", 0.5), ("--chunk-frames", 49), ("--overlap", 5)):
        answer = flythrough(
            "generate", photo, "--camera", "static", "--model", visible_model, *option,
            "-o", tmp_path / "o.mp4",
        )  # fmt: skip
        assert answer.status == 2
        assert "has no effect with method warp-as-history" in answer.err
