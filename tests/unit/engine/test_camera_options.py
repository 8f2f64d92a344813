"""Switches of the camera method and the preset: what they set, say and refuse."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from flythrough.engine.build import build_session, build_spec
from flythrough.engine.presets import PRESETS, CameraSwitches
from flythrough.engine.request import GenerateRequest, check
from flythrough.engine.stored_settings import warp_settings
from flythrough.errors import InputError, WeightsError
from flythrough.generators.warp_as_history import WarpAsHistoryGenerator
from flythrough.models.adapter_origin import adapter_origin, origin_metadata
from flythrough.models.catalog import find_model

REALTIME = PRESETS["realtime"]


@pytest.fixture
def asked(tiny_model: Path, photo: Path) -> GenerateRequest:
    return GenerateRequest(image=photo, camera="static", model=str(tiny_model), frames=33)


@pytest.fixture
def own_model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def built(request: GenerateRequest, said: list[str] | None = None) -> WarpAsHistoryGenerator:
    checked = check(request)
    notes: list[str] = [] if said is None else said
    notes += checked.notes
    session = build_session(build_spec(checked), checked.model, "cpu", notes.append)
    assert isinstance(session.generator, WarpAsHistoryGenerator)
    return session.generator


def test_without_switches_the_published_settings_hold(asked: GenerateRequest) -> None:
    settings = built(asked).settings.history
    assert (settings.mode, settings.threshold) == ("short", 0.1)
    assert settings.align
    assert settings.select


@pytest.mark.parametrize(
    ("switch", "name", "value"),
    [
        ({"warp_band": "patch-mid"}, "mode", "patch_mid"),
        ({"warp_band": "short"}, "mode", "short"),
        ({"visible_threshold": 0.0}, "threshold", 0.0),
        ({"visible_threshold": 0.7}, "threshold", 0.7),
        ({"align": False}, "align", False),
        ({"select": False}, "select", False),
    ],
)
def test_a_switch_reaches_the_history(
    asked: GenerateRequest, switch: dict[str, Any], name: str, value: object
) -> None:
    plain = built(asked).settings
    changed = built(replace(asked, **switch)).settings
    assert changed == replace(plain, history=replace(plain.history, **{name: value}))


def test_settings_of_the_warp_are_kept_with_the_rollout(asked: GenerateRequest) -> None:
    text = "older-keyframes=2, top_fill=no, depth_rtol=0.2"
    request = replace(asked, fill="black", warp_settings=text, preset="realtime")
    memory: Any = built(request).source
    found = memory.settings
    assert (found.fill, found.older_keyframes, found.top_fill) == ("black", 2, False)
    assert (found.depth_rtol, found.samples_per_axis) == (0.2, 2)
    own = check(replace(asked, preset="realtime", warp_settings="samples_per_axis=3"))
    assert own.settings["warp.samples_per_axis"] == 3
    assert "mesh samples" not in own.notes[0]
    assert "as given: samples_per_axis" in own.notes[0]
    assert check(replace(asked, fill="mean")).settings["warp.fill"] == "mean_first_frame"


def test_the_scene_can_be_gaussians(asked: GenerateRequest) -> None:
    assert warp_settings(build_spec(check(asked))).memory == "mesh"
    spec = build_spec(check(replace(asked, scene="gaussian")))
    assert warp_settings(spec).memory == "gaussian"


def test_every_switch_is_a_keyword_of_python() -> None:
    """Fields of the request are arguments of a pipeline, what the command line alone has, or
    switches."""
    named = {"image", "video", "camera", "prompt", "negative_prompt", "frames", "size", "seed"}
    named |= {"steps", "guidance", "anchor", "seams"}
    loaded = {"model", "geometry", "lora", "lora_scale", "device", "memory", "compute", "hardware"}
    loaded |= {"codec_precision"}
    written = {"output", "rollout", "save_warp", "save_mask", "warp", "warp_mask", "blend_chunks"}
    wanted = {field.name for field in fields(GenerateRequest)} - named - loaded - written
    assert set(CameraSwitches.__annotations__) == wanted


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scene": "gaussian", "warp_settings": "background=tint"}, "background tint has no eff"),
        ({"scene": "gaussian", "warp_settings": "reference=yes"}, "reference has no effect"),
        ({"scene": "gaussian", "warp_settings": "fill_radius=2"}, "while memory is gaussian"),
        ({"scene": "gaussian", "warp_settings": "samples_per_axis=2"}, "while memory is gaussian"),
        ({"warp_settings": "memory=gaussian,render_mode=splat"}, "while memory is gaussian"),
        ({"warp_settings": "gaussian_steps=20"}, "gaussian_steps has no effect while memory is me"),
        ({"scene": "mesh", "warp_settings": "memory=mesh"}, "keep one"),
    ],
)
def test_settings_of_the_other_memory_are_refused(
    asked: GenerateRequest, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        check(replace(asked, **values))


def test_settings_of_gaussians_are_kept(asked: GenerateRequest) -> None:
    request = replace(asked, scene="gaussian", warp_settings="gaussian_steps=20,confidence=0.2")
    found = warp_settings(build_spec(check(request)))
    assert (found.memory, found.gaussian_steps, found.confidence) == ("gaussian", 20, 0.2)


def test_the_preset_says_nothing_of_meshes_with_gaussians(asked: GenerateRequest) -> None:
    checked = check(replace(asked, preset="realtime", scene="gaussian"))
    assert "mesh samples" not in checked.notes[0]
    assert "pixels" in checked.notes[0]
    assert "warp.samples_per_axis" not in checked.settings


def test_a_rollout_from_before_the_switches_is_read_as_published(asked: GenerateRequest) -> None:
    spec = build_spec(check(asked))
    kept = {k: v for k, v in spec.settings.items() if k not in ("align", "select", "warp_band")}
    older = replace(spec, settings=kept)
    generator = build_session(older, find_model(spec.model), "cpu", lambda _text: None).generator
    assert isinstance(generator, WarpAsHistoryGenerator)
    assert generator.settings == built(asked).settings


def test_the_preset_sets_what_it_says(asked: GenerateRequest) -> None:
    said: list[str] = []
    generator = built(replace(asked, preset="realtime"), said)
    history, sampler = generator.settings.history, generator.helios.settings
    assert (history.mode, history.threshold) == ("patch_mid", 0.6)
    assert (sampler.steps, sampler.amplify_first_chunk) == ((1, 1, 1), False)
    memory: Any = generator.source
    assert memory.settings.samples_per_axis == 2
    assert memory.estimator.pixel_limit == 8_000  # the small network sees less than the preset's
    note = next(text for text in said if text.startswith("preset realtime"))
    parts = (
        "--steps 1,1,1",
        "--warp-band patch-mid",
        "--visible-threshold 0.6",
        "130000",
        "2 mesh",
    )
    assert all(part in note for part in parts)
    assert "own codec, which is a TAEHV" in note


def test_the_preset_lowers_a_larger_geometry_network(
    own_model: Path, asked: GenerateRequest
) -> None:
    config = own_model / "geometry" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"pixel_limit": 255_000}))
    request = replace(asked, model=str(own_model))
    limits = []
    for preset in (None, "realtime"):
        memory: Any = built(replace(request, preset=preset)).source
        limits.append(memory.estimator.pixel_limit)
    assert limits == [255_000, 130_000]


def test_the_preset_keeps_the_band_that_the_adapter_was_trained_for(
    own_model: Path, asked: GenerateRequest
) -> None:
    file = own_model / "lora" / "camera.safetensors"
    save_file(load_file(file), file, metadata={"mode": "short", "rank": "4", "alpha": "4"})
    request = replace(asked, model=str(own_model), preset="realtime")
    checked = check(request)
    assert checked.settings["warp_band"] == "short"
    assert "no adapter for --warp-band patch-mid" in checked.notes[0]
    assert check(replace(request, lora="off")).settings["warp_band"] == "patch_mid"
    assert check(replace(request, warp_band="patch-mid")).settings["warp_band"] == "patch_mid"


def test_given_options_win_over_the_preset(asked: GenerateRequest) -> None:
    own = replace(asked, steps=(2, 1, 1), warp_band="short", visible_threshold=0.2)
    said: list[str] = []
    generator = built(replace(own, preset="realtime"), said)
    history = generator.settings.history
    assert (history.mode, history.threshold) == ("short", 0.2)
    assert generator.helios.settings.steps == (2, 1, 1)
    assert not generator.helios.settings.amplify_first_chunk
    assert any("as given: --steps, --warp-band, --visible-threshold" in text for text in said)
    free = check(replace(asked, preset="realtime", select=False))
    assert "--no-select" in free.notes[0]
    assert not build_spec(free).settings["select"]


def test_the_preset_leaves_out_what_has_no_effect(asked: GenerateRequest) -> None:
    flat = check(replace(asked, preset="realtime", geometry="flat"))
    assert "geometry_pixel_limit" not in flat.settings
    assert "pixels" not in flat.notes[0]
    assert flat.settings["warp.samples_per_axis"] == 2


def test_the_preset_takes_the_codec_in_the_folder_taehv(
    own_model: Path, asked: GenerateRequest
) -> None:
    shutil.copytree(own_model / "vae", own_model / "taehv")
    request = replace(asked, model=str(own_model), preset="realtime")
    plain = build_spec(check(replace(request, preset=None)))
    checked = check(request)
    assert "the TAEHV codec" in checked.notes[0]
    assert (build_spec(checked).settings["codec"], "codec" in plain.settings) == ("taehv", False)
    weights = own_model / "taehv" / "diffusion_pytorch_model.safetensors"
    marked = {key: torch.zeros_like(value) for key, value in load_file(weights).items()}
    save_file(marked, weights, metadata={"format": "pt"})
    codec: Any = built(request).model.codec
    assert all((p == 0).all() for p in codec.net.parameters())
    (own_model / "taehv" / "config.json").unlink()
    assert find_model(str(own_model)).fast_codec == weights


def test_the_preset_is_for_distilled_models(own_model: Path, asked: GenerateRequest) -> None:
    file = own_model / "scheduler" / "scheduler_config.json"
    config = json.loads(file.read_text()) | {"_class_name": "HeliosScheduler"}
    file.write_text(json.dumps(config | {"scheduler_type": "unipc"}))
    with pytest.raises(InputError, match="made for distilled models"):
        check(replace(asked, model=str(own_model), preset="realtime"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"preset": "slow"}, "--preset slow is unknown"),
        ({"warp_band": "patch_mid"}, "--warp-band patch_mid is unknown"),
        ({"visible_threshold": -0.1}, "out of range"),
        ({"visible_threshold": 0.5, "select": False}, "no effect with --no-select"),
        ({"scene": "voxels"}, "--scene voxels is unknown"),
        ({"camera": None, "scene": "mesh"}, "--scene mesh has no effect without a camera"),
        ({"camera": None, "align": False}, "--no-align has no effect without a camera"),
        ({"camera": None, "preset": "realtime"}, "--preset realtime has no effect"),
    ],
)
def test_refusals(asked: GenerateRequest, values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(replace(asked, **values))


def adapter(model: Path, file: Path, **stated: str) -> Path:
    """The model's adapter with other statements, beside its own."""
    shipped = model / "lora" / "camera.safetensors"
    save_file(load_file(shipped), file, metadata={"alpha": "4", **stated})
    return file


def test_an_adapter_for_another_band_is_refused_when_asked_for(
    asked: GenerateRequest, tiny_model: Path, tmp_path: Path
) -> None:
    file = adapter(tiny_model, tmp_path / "mid.safetensors", mode="patch_mid")
    request = replace(asked, lora=str(file))
    with pytest.raises(WeightsError, match="trained for --warp-band patch-mid, not short"):
        check(request)
    assert built(replace(request, warp_band="patch-mid")).settings.lora
    silent = adapter(tiny_model, tmp_path / "silent.safetensors")
    for band in ("short", "patch-mid"):
        assert built(replace(asked, lora=str(silent), warp_band=band)).settings.lora


def test_a_shipped_adapter_for_another_band_is_left_out_and_said_so(
    own_model: Path, asked: GenerateRequest
) -> None:
    shipped = own_model / "lora" / "camera.safetensors"
    adapter(own_model, shipped, mode="short")
    request = replace(asked, model=str(own_model), warp_band="patch-mid")
    said: list[str] = []
    assert not built(request, said).settings.lora
    assert any("left out" in text for text in said)
    assert built(replace(request, warp_band="short")).settings.lora
    adapter(own_model, shipped.with_name("camera_patch_mid.safetensors"), mode="patch_mid")
    said.clear()
    assert built(request, said).settings.lora
    assert said == []


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        (
            {"base_layers": "40", "base_width": "5120"},
            "40 layers and 5120 channels, but tiny has 2",
        ),
        ({"base_layers": "3"}, "3 layers"),
        ({"base_width": "wide"}, "no whole number"),
        ({"rank": "32"}, "states rank 32 but its tensors have rank 4"),
        ({"mode": "sideways"}, "'sideways', which is not known"),
    ],
)
def test_statements_that_do_not_fit_are_refused_before_loading(
    asked: GenerateRequest,
    tiny_model: Path,
    tmp_path: Path,
    stated: dict[str, str],
    message: str,
) -> None:
    file = adapter(tiny_model, tmp_path / "other.safetensors", **stated)
    with pytest.raises(WeightsError, match=message):
        check(replace(asked, lora=str(file)))


def test_training_writes_what_loading_reads(tiny_model: Path, tmp_path: Path) -> None:
    model = find_model(str(tiny_model))
    config = json.loads((tiny_model / "transformer" / "config.json").read_text())
    stated = origin_metadata(config, "patch_mid", 0.1)
    file = adapter(tiny_model, tmp_path / "a.safetensors", rank="4", **stated)
    origin = adapter_origin(file)
    assert (origin.band, origin.layers, origin.width) == ("patch_mid", 2, 64)
    origin.check_base(model)
    origin.check_band("patch_mid")
    assert stated["threshold"] == "0.1"
