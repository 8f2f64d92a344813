"""Adapters at the entrances: styles without a camera, scales, what a rollout remembers."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import flythrough as ft
from flythrough.rollout import store
from throwaway import Command


@pytest.fixture(scope="module")
def style(visible_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PEFT folder whose adapter changes the output clearly."""
    import json

    from safetensors.torch import save_file

    from flythrough.models.lora_files import read_lora

    folder = tmp_path_factory.mktemp("style")
    state = read_lora(visible_model / "lora" / "camera.safetensors").state
    tensors = {f"base_model.model.{key}": 10 * value for key, value in state.items()}
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"lora_alpha": 4, "r": 4}))
    return folder


def made(
    flythrough: Command, model: Path, folder: Path, *more: object, frames: int = 33
) -> ft.Rollout:
    words = ["--model", model, "--frames", frames, "--rollout", folder, "-o", f"{folder}.mp4"]
    answer = flythrough("generate", *words, *more)
    assert answer.status == 0, answer.err
    return store.load(folder)


def frames(rollout: ft.Rollout) -> np.ndarray:
    return np.stack(list(rollout.frames()))


def test_a_style_counts_in_every_stage_and_scale_is_remembered(
    flythrough: Command, visible_model: Path, style: Path, tmp_path: Path
) -> None:
    say = ("--prompt", "a lake")
    plain = made(flythrough, visible_model, tmp_path / "plain", *say)
    assert "lora_scale" not in plain.spec.settings
    assert "lora_digest" not in plain.spec.settings
    styled = made(flythrough, visible_model, tmp_path / "styled", *say, "--lora", style)
    assert "lora_scale" not in styled.spec.settings
    words = (*say, "--lora", style, "--lora-scale", "0.5")
    half = made(flythrough, visible_model, tmp_path / "half", *words)
    assert half.spec.settings["lora_scale"] == 0.5
    found = [rollout.chunks[0].latents for rollout in (plain, styled, half)]
    assert len({array.tobytes() for array in found}) == 3

    longer = made(flythrough, visible_model, tmp_path / "whole", *words, frames=66)
    assert flythrough("continue", tmp_path / "half", "--frames", 33).status == 0
    continued = store.load(tmp_path / "half")
    np.testing.assert_array_equal(continued.chunks[1].latents, longer.chunks[1].latents)


def test_a_changed_adapter_folder_is_noticed(
    flythrough: Command, visible_model: Path, style: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(style, copy)
    made(flythrough, visible_model, tmp_path / "run", "--prompt", "a lake", "--lora", copy)
    (copy / "adapter_config.json").write_text('{"lora_alpha": 8, "r": 4}')
    answer = flythrough("continue", tmp_path / "run", "--frames", 33)
    assert answer.status == 2
    assert "changed since the rollout was started" in answer.err
    shutil.rmtree(copy)
    assert "missing or changed" in flythrough("continue", tmp_path / "run", "--frames", 33).err


def test_scale_of_the_camera_adapter(visible_model: Path, photo: Path) -> None:
    def clip(**options: float) -> np.ndarray:
        return ft.load(visible_model, **options)(photo, camera="forward 0.2", frames=33).frames

    assert not np.array_equal(clip(), clip(lora_scale=-3.0))
    with pytest.raises(ft.InputError, match="no adapter is active"):
        ft.load(visible_model, lora="off", lora_scale=0.5)(photo, camera="static", frames=33)


def test_a_style_beside_the_cameras_adapter_counts_in_every_stage(
    visible_model: Path, style: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The camera's adapter is for the one stage that sees the warp; the style is for all."""
    from peft.tuners.lora.layer import Linear

    from flythrough.models.helios import HeliosTransformer

    seen: list[set[str]] = []
    forward = HeliosTransformer.forward

    def watched(net: HeliosTransformer, *given: object, **named: object) -> object:
        layer = next(module for module in net.modules() if isinstance(module, Linear))
        seen.append(set() if layer.disable_adapters else set(layer.active_adapters))
        return forward(net, *given, **named)

    monkeypatch.setattr(HeliosTransformer, "forward", watched)
    pipe = ft.load(visible_model)
    say = {"camera": "forward 0.2", "frames": 33, "steps": (1, 1, 1)}
    plain = pipe(photo, **say)
    assert seen == [{"camera"}] * 2 + [set()] * 4  # the first chunk has twice the steps
    seen.clear()
    styled = pipe(photo, **say, style_lora=style, style_scale=2.0)
    assert seen == [{"camera", "style"}] * 2 + [{"style"}] * 4
    settings = styled.rollout.spec.settings
    assert (settings["style_lora"], settings["style_scale"]) == (str(style.resolve()), 2.0)
    assert not np.array_equal(styled.frames, plain.frames)
    (style / "adapter_config.json").write_text('{"lora_alpha": 5, "r": 4}')
    with pytest.raises(ft.InputError, match=f"{style.name} is missing or changed"):
        ft.load(visible_model).step(styled.rollout, "static")
    (style / "adapter_config.json").write_text('{"lora_alpha": 4, "r": 4}')


def test_only_the_adapter_is_exchanged_between_clips(
    visible_model: Path, style: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flythrough.engine import build

    loads: list[object] = []
    load_model = build.load_model

    def counted(*arguments: object, **named: object) -> object:
        loads.append(arguments)
        return load_model(*arguments, **named)

    pipe = ft.load(visible_model)
    monkeypatch.setattr(build, "load_model", counted)
    plain = pipe(prompt="a lake", frames=33).frames
    camera = pipe(photo, camera="forward 0.2", frames=33).frames
    pipe.lora, pipe.lora_scale = style, 2.0
    styled = pipe(prompt="a lake", frames=33).frames
    pipe.lora, pipe.lora_scale = "default", 1.0
    np.testing.assert_array_equal(pipe(prompt="a lake", frames=33).frames, plain)
    again = pipe(photo, camera="forward 0.2", frames=33).frames
    np.testing.assert_array_equal(again, camera)
    assert len(loads) == 1
    assert not np.array_equal(styled, plain)
    fresh = ft.load(visible_model, lora=style, lora_scale=2.0)(prompt="a lake", frames=33).frames
    np.testing.assert_array_equal(fresh, styled)
