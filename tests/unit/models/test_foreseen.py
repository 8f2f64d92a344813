"""Models that are not here yet are planned as they will be once they are."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import constants

from flythrough.disk import read_json
from flythrough.engine.run_needs import RunParts, default_parts, run_needs
from flythrough.errors import WeightsError
from flythrough.models.catalog import disk_bytes, find_model
from flythrough.models.expected import expected_tensors
from flythrough.models.foreseen import absent_depth, found_or_foreseen, planned_monocular
from flythrough.models.hub import foreseen_fetch
from flythrough.models.loading import load_transformer
from flythrough.models.needs import depth_need
from flythrough.models.published import ENTRIES

GIB = 2**30
NAMES = ("helios-base", "helios-mid", "helios-distilled")


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("device", ["cuda", "cpu"])
@pytest.mark.parametrize("method", ["helios", "warp-as-history"])
def test_configurations_alone_give_the_figures_of_the_whole_folder(
    tiny_model: Path, tmp_path: Path, dtype: torch.dtype, device: str, method: str
) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(tiny_model, whole)
    net = load_transformer(tiny_model / "transformer", dtype).to(dtype)
    shutil.rmtree(whole / "transformer")
    net.save_pretrained(whole / "transformer")
    bare = tmp_path / "bare"
    shutil.copytree(whole, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    folder = find_model(str(whole))
    stored = {torch.float32: "F32", torch.bfloat16: "BF16"}[dtype]
    foreseen = replace(find_model(str(bare)), stored_as=stored)
    parts = replace(default_parts(folder, method), eight_bits=True)
    one, two = (
        run_needs(model, (64, 128), method, 33, device, parts=parts) for model in (folder, foreseen)
    )
    assert one == two
    assert (one.copied_bytes > 0) == (device == "cuda" and dtype == torch.float32)


@pytest.mark.parametrize("name", NAMES)
def test_the_networks_are_those_that_were_published(name: str) -> None:
    """Numbers of four bytes add up to the bytes to download, but for headers and vocabularies."""
    steps = {"helios-base": (50,), "helios-mid": (20, 20, 20), "helios-distilled": (2, 2, 2)}
    with found_or_foreseen(name) as folder:
        assert disk_bytes(folder.path) < 10_000
        assert folder.defaults.steps == steps[name]
        assert folder.defaults.guidance_scale == (1.0 if name == "helios-distilled" else 5.0)
        assert folder.defaults.zero_star is (name == "helios-mid")
        assert folder.distilled is (name == "helios-distilled")
        numbers = 0
        for part in ("transformer", "vae", "text_encoder"):
            config = read_json(folder.path / part / "config.json")
            numbers += expected_tensors(part, config)[1].parameters
    assert not folder.path.exists()
    assert 4 * numbers == pytest.approx(ENTRIES[name].size, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("depth-anything", 24.8),
        ("depth-anything-base", 97.5),
        ("depth-anything-large", 335.3),
        ("depth-anything-metric", 24.8),
        ("depth-anything-metric-outdoor", 24.8),
        ("depth-pro", 952.0),
    ],
)
def test_depth_networks_have_the_published_size(name: str, millions: float) -> None:
    assert absent_depth(name) is ENTRIES[name]
    folder = planned_monocular(name)
    assert folder.metric is ("metric" in name or name == "depth-pro")
    numbers = expected_tensors("depth", folder.config)[1].parameters
    assert numbers == pytest.approx(1e6 * millions, rel=1e-3)
    assert depth_need(folder, (64, 128))[0].whole == 4 * numbers


def test_a_depth_network_that_is_nowhere(tmp_path: Path) -> None:
    assert absent_depth(str(tmp_path)) is None
    with pytest.raises(WeightsError, match=r"holds no config\.json"):
        planned_monocular(str(tmp_path))


def test_a_card_of_24_gb(monkeypatch: pytest.MonkeyPatch) -> None:
    """As foretold for files of this layout on an H200 (docs/speed.md), but that published files are
    float32: the 14 billion numbers wait in host memory as bfloat16."""
    card = SimpleNamespace(total_memory=int(22.35 * GIB))  # decides the passes of the codec
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    with found_or_foreseen("helios-distilled") as folder:
        parts = RunParts(eight_bits=True)
        needs = run_needs(folder, (384, 640), "warp-as-history", 33, "cuda", parts=parts)
    plan = needs.plan("drop-text")
    assert plan.device_bytes / GIB == pytest.approx(18.3, abs=0.05)
    assert plan.host_bytes / GIB == pytest.approx(4 + 2 * 14.3124e9 / GIB, abs=0.05)


def test_what_is_here_is_found(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with found_or_foreseen(str(tiny_model)) as folder:
        assert folder == find_model(str(tiny_model))
    with found_or_foreseen("nano") as folder:
        assert folder.stored_as is None
    monkeypatch.chdir(tiny_model.parent)
    (tiny_model.parent / "helios-mid").symlink_to(tiny_model)
    with found_or_foreseen("helios-mid") as folder:  # a folder of that name comes first
        assert folder.stored_as is None
    with pytest.raises(WeightsError, match="no model 'helios'"), found_or_foreseen("helios"):
        pass
    with pytest.raises(WeightsError, match="'pi3x' is no model"), found_or_foreseen("pi3x"):
        pass


def test_what_is_left_to_fetch(cache: Path) -> None:
    entry = ENTRIES["helios-mid"]
    first = foreseen_fetch(entry)
    assert (first.lacking, first.begun) == (entry.size, False)
    assert first.place == cache / "models--BestWishYsh--Helios-Mid"
    assert first.free == pytest.approx(shutil.disk_usage(cache.parent).free, rel=0.05)
    assert first.fits == (first.lacking <= first.free)
    here = first.place / "snapshots" / str(entry.revision)
    for file, size in (("vae/config.json", 100), ("transformer_ode/config.json", 1000)):
        (here / file).parent.mkdir(parents=True)
        (here / file).write_bytes(bytes(size))
    (first.place / "blobs").mkdir()
    (first.place / "blobs" / "ab.incomplete").write_bytes(bytes(30))
    then = foreseen_fetch(entry)
    assert (then.lacking, then.begun) == (entry.size - 130, True)
    with found_or_foreseen("helios-mid") as folder:
        assert folder.stored_as == "F32"
