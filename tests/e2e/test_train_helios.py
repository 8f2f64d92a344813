"""``flythrough train helios`` through all stages, stopped and resumed, and what it refuses."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from flythrough.media.video import write_video
from flythrough.models.catalog import find_model
from flythrough.training.helios.plan import HeliosRun
from flythrough.training.helios.run import run
from flythrough.training.loop import Record
from throwaway import Command

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "training"))
from tiny_stages import recipe_text, write_clips


class TakenAwayError(Exception):
    """Stands for a machine that goes away in the middle of a run."""


def asked(folder: Path, stage: str, base: Path, name: str) -> HeliosRun:
    recipe = folder / f"{stage}.toml"
    recipe.write_text(recipe_text(stage, lora=stage != "2"))
    return HeliosRun(
        stage=stage,
        folder=folder / name,
        recipe=str(recipe),
        base=str(base),
        score=str(base) if stage == "3b" else None,
        data=write_clips(folder / "clips"),
        trajectories=folder / "trajectories" if stage == "3a" else None,
        deterministic=True,
    )


@pytest.fixture(autouse=True)
def _as_before():
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("stage", ["1", "2", "3a", "3b"])
def test_a_resumed_run_gives_the_weights_of_an_unbroken_one(
    stage: str, tiny_model: Path, tmp_path: Path
) -> None:
    run(asked(tmp_path, stage, tiny_model, "whole"))

    def leave(record: Record) -> None:
        if record.step == 2:  # after the checkpoint of step 1
            raise TakenAwayError

    with pytest.raises(TakenAwayError):
        run(asked(tmp_path, stage, tiny_model, "broken"), leave)
    steps: list[int] = []
    run(asked(tmp_path, stage, tiny_model, "broken"), lambda record: steps.append(record.step))
    assert steps == [2]
    states = [
        {
            **load_file(tmp_path / name / "checkpoint.safetensors"),
            **load_file(
                tmp_path / name / "model" / "transformer" / "diffusion_pytorch_model.safetensors"
            ),
        }
        for name in ("whole", "broken")
    ]
    assert states[0].keys() == states[1].keys()
    assert any(name.startswith(("critic.", "student.", "denoiser.")) for name in states[0])
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_the_stages_follow_one_another_and_the_result_generates(
    tiny_model: Path, photo: Path, tmp_path: Path, flythrough: Command
) -> None:
    clips, base = tmp_path / "videos", tiny_model
    for number, name in enumerate(("first", "second")):
        frames = torch.rand(40, 70, 130, 3, generator=torch.Generator().manual_seed(number))
        clips.mkdir(exist_ok=True)
        write_video(clips / f"{name}.mp4", list((frames * 255).byte().numpy()), fps=8)
        (clips / f"{name}.txt").write_text(f"the {name} one")
    scores = ""
    for stage in ("1", "2", "3a", "3b"):
        recipe, folder = tmp_path / f"{stage}.toml", tmp_path / f"stage{stage}"
        recipe.write_text(recipe_text(stage))
        words = ["train", "helios", stage, "-o", folder, "--recipe", recipe, "--base", base]
        words += ["--data", clips, "--steps", 1]
        answer = flythrough(*words, *(("--score", scores) if stage == "3b" else ()))
        assert answer.status == 0, answer.err
        assert answer.result["step"] == 1
        base = Path(answer.result["model"])
        scores = scores or str(base)
        model = find_model(str(base))
        assert len(model.defaults.steps) == (1 if stage == "1" else 3)
        assert model.distilled == (stage in ("3a", "3b"))
        assert flythrough("models", "check", base).status == 0
    latents = load_file(tmp_path / "stage1" / "latents" / "first.safetensors")["latents"]
    assert latents.shape == (1, 16, 9, 8, 16)  # 33 of 40 frames
    video = tmp_path / "made.mp4"
    words = ["generate", photo, "--model", base, "--method", "helios", "--frames", 33, "-o", video]
    answer = flythrough(*words)
    assert answer.status == 0, answer.err
    assert video.stat().st_size > 0


def test_bad_input_is_one_sentence_and_leaves_nothing(
    tiny_model: Path, tmp_path: Path, flythrough: Command
) -> None:
    recipe, clips = tmp_path / "r.toml", write_clips(tmp_path / "clips")
    recipe.write_text(recipe_text("1"))
    empty, out = tmp_path / "empty", tmp_path / "out"
    empty.mkdir()
    mine = ("--recipe", recipe, "--base", tiny_model)
    cases = [
        (("1", "--recipe", "publishd"), "There is no recipe 'publishd'"),
        (("1", "--recipe", "published"), "give its folder with --base"),
        (("1", "--recipe", "published", "--base", tiny_model), "give their folder with --data"),
        (("1", "--data", clips), "--data has no effect in a recipe that trains on worlds"),
        (("1", *mine, "--data", clips, "--photos", clips), "--photos has no effect"),
        (("1", *mine, "--data", clips, "--score", tiny_model), "--score has no effect in stage 1"),
        (("1", *mine, "--data", tmp_path / "no"), "is no folder"),
        (("1", *mine, "--data", clips, "--steps", 0), "steps 0 is out of range"),
        (("1", "--base", tmp_path / "no"), "--base: There is no model"),
        (("3b",), "give it with --score"),
        (("1", *mine, "--data", empty), "holds neither .mp4 videos nor .safetensors"),
    ]
    for words, message in cases:
        answer = flythrough("train", "helios", *words, "-o", out)
        assert answer.status == 2, words
        assert message in answer.err, words
        assert answer.err.count("\n") == 1
        assert not out.exists()
    (empty / "clip.mp4").write_bytes(b"")
    answer = flythrough("train", "helios", "1", *mine, "--data", empty, "-o", out)
    assert answer.status == 2
    assert "has no caption" in answer.err


def test_a_run_goes_on_only_as_it_began(tiny_model: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    from flythrough.errors import InputError

    begun = replace(asked(tmp_path, "1", tiny_model, "run"), steps=1)
    run(begun)
    with pytest.raises(InputError, match=r"began with \[run\] seed = 3, not 4"):
        run(replace(begun, seed=4))
    assert run(replace(begun, steps=2))["step"] == 2
