"""The facade with diffusers' names: equal frames, their shapes, and what it refuses."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import HeliosPipeline as Stock
from diffusers import HeliosPyramidPipeline as StockPyramid
from PIL import Image

import flythrough as ft
from flythrough.integrations.diffusers_names import HeliosPipeline, HeliosPyramidPipeline
from flythrough.integrations.unsupported import FIXED

FRAMES = 35


@pytest.fixture(scope="module")
def facade(visible_model: Path) -> HeliosPipeline:
    return HeliosPipeline.from_pretrained(str(visible_model), torch_dtype=torch.float32).to("cpu")


@pytest.fixture(scope="module")
def pipe(visible_model: Path) -> ft.Pipeline:
    return ft.load(visible_model, device="cpu")


def exact(frames: np.ndarray) -> np.ndarray:
    """Frames of the facade as 8-bit numbers."""
    assert frames.dtype == np.float32
    assert 0 <= frames.min() <= frames.max() <= 1
    return np.rint(frames[0] * 255).astype(np.uint8)


def test_every_name_of_diffusers_is_known_with_its_default() -> None:
    ours = inspect.signature(HeliosPipeline.__call__).parameters
    model_decides = {
        "height",
        "width",
        "guidance_scale",
        "num_inference_steps",
        "pyramid_num_inference_steps_list",
        "is_amplify_first_chunk",
        "max_sequence_length",
    }
    for stock in (Stock, StockPyramid):
        for name, parameter in inspect.signature(stock.__call__).parameters.items():
            if name in ours:
                default = ours[name].default
                assert default == parameter.default or name in model_decides, name
            else:
                assert parameter.default in FIXED[name].values or name in model_decides, name
    assert HeliosPyramidPipeline is HeliosPipeline


def test_another_device_keeps_the_rest(visible_model: Path) -> None:
    before = ft.load(visible_model, geometry="flat", memory="resident", compute="plain")
    after = HeliosPipeline(before).to("cpu")._pipeline
    assert after is not before
    kept = ("model", "geometry", "lora", "lora_scale", "memory", "compute", "codec_precision")
    assert [getattr(after, name) for name in kept] == [getattr(before, name) for name in kept]


def test_a_prompt_gives_the_frames_of_flythrough(facade: HeliosPipeline, pipe: ft.Pipeline) -> None:
    clip = pipe(prompt="a lake", frames=FRAMES, seed=5, size=(64, 64), steps=(1, 1, 1))
    given: dict[str, Any] = {
        "prompt": ["a lake"],
        "height": 64,
        "width": 64,
        "num_frames": FRAMES,
        "pyramid_num_inference_steps_list": [1, 1, 1],
        "generator": torch.Generator().manual_seed(5),
    }
    found = facade(**given).frames
    assert found.shape == (1, FRAMES, 64, 64, 3)
    np.testing.assert_array_equal(exact(found), clip.frames)
    tensor = facade(**given, output_type="pt", return_dict=False)[0]
    assert tensor.shape == (1, FRAMES, 3, 64, 64)
    assert torch.equal(tensor.permute(0, 1, 3, 4, 2), torch.from_numpy(found))
    (pictures,) = facade(**given, output_type="pil").frames
    assert all(isinstance(picture, Image.Image) for picture in pictures)
    np.testing.assert_array_equal(np.stack([np.array(p) for p in pictures]), clip.frames)
    latents = facade(**given, output_type="latent").frames
    expected = np.concatenate([chunk.latents for chunk in clip.rollout.chunks], axis=1)
    assert latents.shape == (1, 16, 18, 8, 8)
    np.testing.assert_array_equal(latents[0].numpy(), expected)


def test_pictures_from_files_and_from_memory(
    facade: HeliosPipeline, pipe: ft.Pipeline, photo: Path
) -> None:
    clip = pipe(photo, frames=4, seed=2, anchor="none", guidance=2.0, negative_prompt="grey")
    picture = Image.open(photo)
    pixels = np.array(picture)
    for image in (str(photo), photo, picture, pixels, pixels.astype(np.float64) / 255, [picture]):
        found = facade(
            image=image,
            num_frames=4,
            seed=2,
            keep_first_frame=False,
            guidance_scale=2.0,
            negative_prompt="grey",
        )
        np.testing.assert_array_equal(exact(found.frames), clip.frames)


def test_a_camera_is_followed(facade: HeliosPipeline, pipe: ft.Pipeline, photo: Path) -> None:
    labels: list[str] = []
    found = facade(
        image=Image.open(photo),
        camera="forward 0.2",
        num_frames=33,
        seed=4,
        callback=lambda _index, label, _share: labels.append(label),
    )
    expected = pipe(photo, camera="forward 0.2", frames=33, seed=4)
    np.testing.assert_array_equal(exact(found.frames), expected.frames)
    assert labels[-1] == "done"


def test_latents_are_handed_out_after_every_step(facade: HeliosPipeline) -> None:
    seen: list[tuple[int, list[int]]] = []
    say: dict[str, Any] = {"prompt": "a lake", "num_frames": 2, "output_type": "latent"}
    say["pyramid_num_inference_steps_list"] = [1, 1, 1]

    def watch(pipe: object, step: int, timestep: torch.Tensor, given: dict[str, Any]) -> Any:
        assert pipe is facade
        assert timestep.shape == (1,)
        seen.append((step, list(given["latents"].shape[-2:])))
        return given

    plain = facade(**say).frames
    assert torch.equal(facade(**say, callback_on_step_end=watch).frames, plain)
    sizes = [[2, 4], [4, 8], [8, 16]]  # the first chunk has twice the steps
    assert seen == [(step, size) for size in sizes for step in (0, 1)]

    def steer(_pipe: object, _step: int, _t: object, given: dict[str, Any]) -> dict[str, Any]:
        return {"latents": torch.full_like(given["latents"], 0.25)}

    assert bool((facade(**say, callback_on_step_end=steer).frames == 0.25).all())
    with pytest.raises(ft.InputError, match=r"returned None; return its mapping"):
        facade(**say, callback_on_step_end=lambda *_: None)
    assert torch.equal(facade(**say).frames, plain)


def test_clips_from_memory(facade: HeliosPipeline, pipe: ft.Pipeline) -> None:
    source = np.random.default_rng(1)
    clip = source.integers(0, 256, (33, 64, 128, 3), dtype=np.uint8)
    expected = pipe(video=clip, frames=3).frames
    for video in (clip, list(clip), [Image.fromarray(frame) for frame in clip]):
        np.testing.assert_array_equal(exact(facade(video=video, num_frames=3).frames), expected)
    assert not np.array_equal(pipe(prompt="a lake", frames=3).frames, expected)


def test_adapters(facade: HeliosPipeline, pipe: ft.Pipeline, visible_model: Path) -> None:
    file = visible_model / "lora" / "camera.safetensors"
    say: dict[str, Any] = {"prompt": "a lake", "num_frames": 2, "output_type": "latent"}
    plain = facade(**say).frames
    facade.load_lora_weights(file.parent, weight_name=file.name, adapter_name="style")
    with pytest.raises(ft.InputError, match="one at a time"):
        facade.load_lora_weights(file)
    with pytest.raises(ft.InputError, match="no adapter 'other'"):
        facade.set_adapters("other", 0.5)
    for weight in (0.0, 5.0, float("nan"), "much"):
        with pytest.raises(ft.InputError, match="out of range"):
            facade.set_adapters("style", weight)
    facade.set_adapters(["style"], [-3.0])
    styled = facade(**say).frames
    other = ft.load(pipe.model, device="cpu", lora=file, lora_scale=-3.0)
    expected = other(prompt="a lake", frames=2).rollout.chunks[0].latents
    np.testing.assert_array_equal(styled[0].numpy(), expected)
    assert not torch.equal(styled, plain)
    facade.unload_lora_weights()
    assert torch.equal(facade(**say).frames, plain)
    with pytest.raises(ft.InputError, match="no adapter file"):
        facade.load_lora_weights("none.safetensors")
    with pytest.raises(ft.InputError, match="give the path"):
        facade.load_lora_weights({"x": torch.zeros(1)})


TENSOR = torch.zeros(1, 16, 9, 8, 8)
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"num_videos_per_prompt": 2}, "one call makes one video"),
    ({"sigmas": [1.0, 0.5]}, "timetable"),
    ({"latents": TENSOR}, "<Tensor> cannot be honoured"),
    ({"prompt_embeds": TENSOR}, "prompt_embeds=<Tensor>"),
    ({"negative_prompt_embeds": TENSOR}, "negative_prompt_embeds"),
    ({"image_latents": TENSOR}, "give image or video"),
    ({"fake_image_latents": TENSOR}, "give image or video"),
    ({"video_latents": TENSOR}, "give image or video"),
    ({"attention_kwargs": {"scale": 0.5}}, "set_adapters"),
    ({"callback_on_step_end": 3}, "must be a function"),
    ({"callback_on_step_end_tensor_inputs": ["prompt_embeds"]}, "only latents are handed out"),
    ({"max_sequence_length": 512}, "max_sequence_length=512"),
    ({"add_noise_to_image_latents": False}, "published noise"),
    ({"add_noise_to_video_latents": False}, "published noise"),
    ({"image_noise_sigma_min": 0.0}, "published noise"),
    ({"image_noise_sigma_max": 0.5}, "published noise"),
    ({"video_noise_sigma_min": 0.0}, "published noise"),
    ({"video_noise_sigma_max": 0.5}, "published noise"),
    ({"history_sizes": [16, 2, 2]}, "published sizes"),
    ({"num_latent_frames_per_chunk": 5}, "published sizes"),
    ({"zero_steps": 2}, "the model decides"),
    ({"is_amplify_first_chunk": False}, "the model decides"),
    ({"num_inference_steps": 50}, "3 pyramid stages"),
    (
        {"num_inference_steps": 50, "pyramid_num_inference_steps_list": [2, 2, 2]},
        "both given",
    ),
    ({"pyramid_num_inference_steps_list": [2, 2]}, "3 pyramid stages"),
    ({"keep_first_frame": False, "is_skip_first_chunk": True}, "no effect"),
    ({"output_type": "mp4"}, "unknown; use np"),
    ({"prompt": ["one", "two"]}, "one call makes one video"),
    ({"negative_prompt": "blur"}, "no effect without guidance"),
    ({"guidance_scale": 0.5}, "out of range"),
    ({"generator": torch.Generator(), "seed": 1}, "both given"),
    ({"generator": 5}, "no torch.Generator"),
    ({"height": 100}, "multiple of 64"),
    ({"height": 0}, "multiple of 64"),
    ({"num_frames": 0}, "out of range"),
    ({"prompt": None}, "Neither an image, a video nor a prompt"),
    ({"image": torch.zeros(3, 64, 64)}, "must be a path, a PIL picture"),
    ({"image": np.zeros((64, 64), np.uint8)}, "must be uint8"),
    ({"image": np.full((64, 64, 3), 2.0)}, "lie in 0 to 1"),
    ({"image": Image.new("RGB", (8, 8))}, "photo in memory is 8x8"),
    ({"video": []}, "of one size"),
    ({"video": [np.zeros((64, 64 + i, 3), np.uint8) for i in range(33)]}, "of one size"),
    ({"video": np.zeros((5, 64, 64, 3), np.uint8)}, "video in memory has 5 frames"),
    ({"guidance": 2.0}, "no argument 'guidance'"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_refused(
    facade: HeliosPipeline,
    monkeypatch: pytest.MonkeyPatch,
    arguments: dict[str, Any],
    message: str,
) -> None:
    from flythrough.engine import build

    monkeypatch.setattr(build, "build_session", lambda *_args, **_more: pytest.fail("too late"))
    with pytest.raises(ft.InputError, match=message) as caught:
        facade(**{"prompt": "a lake", **arguments})
    assert "\n" not in str(caught.value)


def test_every_fixed_argument_is_refused_in_a_test() -> None:
    assert set(FIXED) - {name for given, _ in REFUSED for name in given} == {"use_zero_init"}


def test_values_that_change_nothing_are_fine(facade: HeliosPipeline) -> None:
    given = {name: fixed.values[0] for name, fixed in FIXED.items() if fixed.values}
    given |= {"is_amplify_first_chunk": True, "max_sequence_length": 64, "use_zero_init": False}
    given |= {"history_sizes": [1, 2, 16], "zero_steps": 0}
    say: dict[str, Any] = {"prompt": "a lake", "num_frames": 2}
    np.testing.assert_array_equal(facade(**say, **given).frames, facade(**say).frames)


def test_loading(visible_model: Path) -> None:
    with pytest.raises(ft.InputError, match="helios-base is"):
        HeliosPipeline.from_pretrained("BestWishYsh/Helios-Base")
    with pytest.raises(ft.InputError, match="scheduler=<object> cannot be honoured"):
        HeliosPipeline.from_pretrained(visible_model, scheduler=object())
    with pytest.raises(ft.InputError, match="vae=<Codec> cannot be honoured"):
        HeliosPipeline.from_pretrained(visible_model, vae=Codec("elsewhere"))
    HeliosPipeline.from_pretrained(visible_model, vae=Codec(str(visible_model)))
    half = HeliosPipeline.from_pretrained(visible_model, torch_dtype=torch.float16)
    with pytest.raises(ft.InputError, match="float16 cannot be honoured"):
        half(prompt="a lake")
    with pytest.raises(ft.InputError, match="not available here"):
        half.to("abacus")


class Codec:
    """As much of diffusers' codec as tells where it came from."""

    dtype = torch.float32

    def __init__(self, source: str) -> None:
        self.config = type("Config", (), {"_name_or_path": source})()
