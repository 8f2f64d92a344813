"""Monocular depth networks: their input, what their output means, folders, licences."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from flythrough.engine.files import named_files
from flythrough.errors import WeightsError
from flythrough.geometry.types import ScaleKind
from flythrough.models.checking import check_model
from flythrough.models.depth_input import DepthInput, depth_input
from flythrough.models.licences import Licence, pi3x_licence, stated_licence
from flythrough.models.monocular import (
    FARTHEST,
    MonocularEstimator,
    announcement,
    load_monocular,
    resized_depth,
)
from flythrough.models.monocular_files import Meaning, find_monocular
from flythrough.models.published import ENTRIES, MONOCULAR_NAMES

ANYTHING: dict[str, Any] = {"model_type": "depth_anything", "backbone_config": {"image_size": 518}}
SIZE = (12, 16)
MATRIX = torch.tensor([[20.0, 0, 8], [0, 21, 6], [0, 0, 1]])
PLAIN = DepthInput(size=SIZE, mean=(0,) * 3, std=(1,) * 3, mode="bilinear", antialias=False)


class Says(nn.Module):
    """A network that has one answer."""

    def __init__(self, depth: Tensor, field: float | None = None) -> None:
        super().__init__()
        self.depth = nn.Parameter(depth)
        self.field = None if field is None else torch.tensor([field])

    def forward(self, _: Tensor) -> SimpleNamespace:
        return SimpleNamespace(predicted_depth=self.depth, field_of_view=self.field)


def estimate(meaning: Meaning, depth: Tensor, field: float | None = None, **known: Tensor) -> Any:
    net = MonocularEstimator(Says(depth[None], field), PLAIN, meaning, "test")
    return net.estimate(torch.zeros(1, 3, *SIZE), **known)


def some(low: float, high: float) -> Tensor:
    return torch.linspace(low, high, SIZE[0] * SIZE[1]).view(SIZE)


@pytest.mark.parametrize("size", [(384, 640), (480, 640), (640, 384), (100, 700)])
def test_pictures_are_prepared_as_the_published_processor_does(size: tuple[int, int]) -> None:
    from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil

    coarse = torch.rand(1, 3, 9, 13, generator=torch.Generator().manual_seed(1))
    picture = nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 1)[0]
    pixels = (picture * 255).round().byte()
    theirs = DPTImageProcessorPil(
        size={"height": 518, "width": 518},
        ensure_multiple_of=14,
        keep_aspect_ratio=True,
        resample=3,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )(pixels.permute(1, 2, 0).numpy(), return_tensors="pt")["pixel_values"]
    ours = depth_input(Path("nowhere"), ANYTHING)(pixels[None].float() / 255)
    assert ours.shape == theirs.shape
    # Theirs rounds to 8 bit in between: one step of 1/255 over a deviation of 0.225.
    assert (ours - theirs).abs().max() < 1.1 / 255 / 0.224


def test_a_preprocessor_file_is_followed_and_a_broken_one_refused(tmp_path: Path) -> None:
    stated = {
        "size": {"height": 28, "width": 42},
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.5, 0.5, 0.5],
        "resample": 2,
        "keep_aspect_ratio": False,
        "ensure_multiple_of": 7,
    }
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps(stated))
    found = depth_input(tmp_path, ANYTHING)
    assert found.inner_size(500, 500) == (28, 42)
    assert (found.mode, found.mean, found.multiple) == ("bilinear", (0.1, 0.2, 0.3), 7)
    for change in ({"size": {"shortest": 3}}, {"resample": 99}, {"image_std": [0, 1, 1]}):
        file.write_text(json.dumps(stated | change))
        with pytest.raises(WeightsError, match=r"preprocessor_config\.json"):
            depth_input(tmp_path, ANYTHING)
    file.write_text("{")
    with pytest.raises(WeightsError, match=r"preprocessor_config\.json"):
        depth_input(tmp_path, ANYTHING)


def test_depth_pro_wants_its_smallest_scale_to_be_one_patch() -> None:
    assert depth_input(Path("nowhere"), {"model_type": "depth_pro"}).size == (1536, 1536)


def test_canonical_inverse_depth_is_turned_into_metres_by_the_focal_length() -> None:
    inverse = some(0.0, 2.0)
    known = estimate("canonical-inverse", inverse, 40.0, intrinsics=MATRIX)
    expected = 1 / (inverse * 16 / 20).clamp(1e-4, 1e4)
    assert torch.allclose(known.depth[0], expected)
    assert torch.equal(known.valid[0], inverse > 0)
    own = estimate("canonical-inverse", inverse, 40.0)
    focal = 8 / math.tan(math.radians(20))
    assert torch.allclose(own.intrinsics[0, [0, 1], [0, 1]], torch.tensor(focal))
    assert torch.allclose(own.depth[0], 1 / (inverse * 16 / focal).clamp(1e-4, 1e4))
    assert own.scale is ScaleKind.METRIC


@pytest.mark.parametrize("field", [-3.0, 0.0, 190.0, math.nan])
def test_an_impossible_field_of_view_is_left_to_the_callers_check(field: float) -> None:
    from flythrough.engine.photo_geometry import plausible

    assert not plausible(estimate("canonical-inverse", some(0.1, 2.0), field))


def test_relative_inverse_depth_has_its_median_at_one_and_ends_far_away() -> None:
    truth = some(1.0, 9.0)
    found = estimate("relative-inverse", 7.0 / truth)
    assert torch.allclose(found.depth[0], truth / truth.median(), rtol=1e-2)
    ratio = found.depth[0] / truth
    assert torch.allclose(ratio, ratio[0, 0].expand_as(ratio))
    assert found.scale is ScaleKind.AFFINE
    sky = 7.0 / truth
    sky[:3] = 0
    with_sky = estimate("relative-inverse", sky)
    assert not with_sky.valid[0, :3].any()
    assert with_sky.valid[0, 3:].all()
    assert torch.allclose(with_sky.depth[0, :3], torch.tensor(FARTHEST), rtol=1e-2)
    assert float(with_sky.median_depth()) == pytest.approx(1)


def test_metres_are_metres() -> None:
    found = estimate("metres", some(0.0, 20.0))
    assert torch.equal(found.depth[0], some(0.0, 20.0))
    assert int((~found.valid).sum()) == 1


def test_an_answer_without_meaning_is_not_valid() -> None:
    for meaning in ("canonical-inverse", "relative-inverse", "metres"):
        for value in (0.0, -1.0, math.nan):
            assert not estimate(meaning, torch.full(SIZE, value)).valid.any()  # type: ignore[arg-type]


def test_resizing_keeps_planes_and_jumps() -> None:
    inverse = torch.linspace(0.5, 0.6, 40)[None, None].expand(1, 30, 40).clone()
    inverse[:, :, 20:] += 1.0
    small = resized_depth(inverse, (15, 17), inverse=True)
    between = (small > 0.61) & (small < 1.49)
    assert not between.any()
    assert resized_depth(inverse, (30, 40), inverse=True) is inverse


def test_every_kind_of_folder_loads_in_float32(tiny_depth: dict[str, Path]) -> None:
    for kind, folder in tiny_depth.items():
        found = find_monocular(str(folder))
        net = load_monocular(found)
        assert isinstance(net, MonocularEstimator)
        assert {p.dtype for p in net.net.parameters()} == {torch.float32}
        assert found.metric == (kind != "relative")
        report = check_model(str(folder))
        assert report.good, report


def test_half_precision_files_are_computed_in_float32(
    tiny_depth: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_depth["relative"], tmp_path / "half")
    file = folder / "model.safetensors"
    state = {k: v.half() for k, v in load_file(file).items()}
    save_file(state, file, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "float16"}))
    net = load_monocular(find_monocular(str(folder)))
    assert net.estimate(torch.rand(1, 3, 28, 42)).depth.dtype == torch.float32
    assert next(net.net.parameters()).dtype == torch.float32  # type: ignore[attr-defined]


def spoiled(folder: Path, fault: str) -> str:
    config = folder / "config.json"
    weights = folder / "model.safetensors"
    if fault == "no config":
        config.unlink()
    elif fault == "no json":
        config.write_text("{")
    elif fault == "unknown kind":
        config.write_text(json.dumps({"model_type": "glpn"}))
    elif fault == "no weights":
        weights.rename(folder / "pytorch_model.bin")
    elif fault == "cut short":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif fault == "impossible sizes":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"fusion_hidden_size": "x"}))
    else:
        state = load_file(weights)
        state.pop(next(k for k in state if "head" in k and k.endswith("weight")))
        save_file(state, weights, metadata={"format": "pt"})
    return str(folder)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("no config", r"no config\.json"),
        ("no json", "cannot be read"),
        ("unknown kind", "'glpn' network"),
        ("no weights", "not whole"),
        ("cut short", "cannot be loaded"),
        ("impossible sizes", "cannot be loaded"),
        ("a tensor missing", "missing keys: .*head"),
    ],
)
def test_broken_folders_are_one_sentence(
    fault: str, said: str, tiny_depth: dict[str, Path], tmp_path: Path
) -> None:
    folder = spoiled(shutil.copytree(tiny_depth["metric"], tmp_path / "net"), fault)
    with pytest.raises(WeightsError, match=said) as caught:
        load_monocular(find_monocular(folder))
    assert "\n" not in str(caught.value)


def test_a_changed_network_changes_the_digest_kept_with_a_rollout(
    tiny_depth: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_depth["metric"], tmp_path / "net")
    before = named_files(str(folder), "default")
    assert before.keys() == {"geometry_digest"}
    state = load_file(folder / "model.safetensors")
    state["head.conv3.bias"] += 1
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    assert named_files(str(folder), "default") != before


def test_names_need_a_pull_and_say_their_licence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_depth: dict[str, Path]
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert {"depth-pro", "depth-anything", "depth-anything-metric"} <= set(MONOCULAR_NAMES)
    for name in MONOCULAR_NAMES:
        with pytest.raises(WeightsError, match=f"`flythrough models pull {name}`") as caught:
            find_monocular(name)
        assert ENTRIES[name].licence in str(caught.value)
        assert ENTRIES[name].commercial == Licence(ENTRIES[name].licence).commercial
    storage = tmp_path / "models--apple--DepthPro-hf"
    shutil.copytree(tiny_depth["depth-pro"], storage / "snapshots" / "abc")
    (storage / "snapshots" / "abc" / "preprocessor_config.json").write_text("{}")
    (storage / "refs").mkdir()
    (storage / "refs" / "main").write_text("abc")
    said: list[str] = []
    announcement(find_monocular("depth-pro"), said.append)
    assert said == ["geometry depth-pro is under apple-amlr, which rules out commercial use."]
    assert check_model("depth-pro").good


@pytest.mark.parametrize(
    ("card", "name", "commercial"),
    [
        ("---\nlicense: apache-2.0\n---\ntext", "apache-2.0", True),
        ("---\ntags:\n- a\nlicense: 'cc-by-nc-4.0'\n---\n", "cc-by-nc-4.0", False),
        ("---\nlicense: other\nlicense_name: apple-amlr\n---\n", "apple-amlr", False),
        ("---\nlicense: apple-amlr\n---\n", "apple-amlr", False),
    ],
)
def test_model_cards_state_licences(card: str, name: str, commercial: bool, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(card)
    found = stated_licence(tmp_path)
    assert found is not None
    assert (found.name, found.commercial) == (name, commercial)
    assert (found.note("it") is None) == commercial


def test_licences_that_are_not_stated(tmp_path: Path, tiny_depth: dict[str, Path]) -> None:
    (tmp_path / "README.md").write_text("# no header\nlicense: mit\n")
    assert stated_licence(tmp_path) is None
    published = pi3x_licence(tmp_path)
    assert published is not None
    assert "states no licence" in str(published.note("it"))
    (tmp_path / "config.json").write_text("{}")
    assert pi3x_licence(tmp_path) is None
    said: list[str] = []
    announcement(find_monocular(str(tiny_depth["depth-pro"])), said.append)
    assert len(said) == 1
    assert "apple-amlr" in said[0]
    said.clear()
    announcement(find_monocular(str(tiny_depth["relative"])), said.append)
    assert len(said) == 1
    assert "up to scale and shift" in said[0]
