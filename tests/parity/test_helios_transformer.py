"""The denoiser equals diffusers' Helios transformer and the recorded Warp-as-History outputs."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import HeliosTransformer3DModel
from safetensors.torch import load_file
from torch import Tensor

from flythrough.models.helios import HeliosTransformer
from flythrough.models.history_tokens import (
    History,
    HistoryBand,
    kept_tokens,
    pooled_visibility,
)
from flythrough.models.rotary import grid_tables

GOLDEN = Path(__file__).parents[1] / "golden" / "transformer"
KERNELS = {"short": (1, 2, 2), "mid": (2, 4, 4), "long": (4, 8, 8)}
POOLS = {"short": (1, 1, 1), "mid": (2, 2, 2), "long": (4, 4, 4)}
CASES = json.loads((GOLDEN / "cases" / "meta.json").read_text())["cases"]
SINGLE = [name for name in CASES if "/" in name]

TINY = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "text_dim": 16,
    "freq_dim": 32,
    "ffn_dim": 32,
    "num_layers": 2,
    "rope_dim": (4, 4, 4),
}
SMALL = {
    "num_attention_heads": 3,
    "attention_head_dim": 16,
    "text_dim": 24,
    "freq_dim": 64,
    "ffn_dim": 40,
    "num_layers": 3,
    "rope_dim": (8, 4, 4),
}
VARIANTS: dict[str, dict[str, Any]] = {
    "tiny": TINY,
    "small": SMALL,
    "tiny-amplify-per-head": {**TINY, "is_amplify_history": True},
    "small-amplify-scalar": {
        **SMALL,
        "is_amplify_history": True,
        "history_scale_mode": "scalar",
    },
    "tiny-no-zero-timestep": {**TINY, "zero_history_timestep": False},
    "tiny-text-on-history": {**TINY, "guidance_cross_attn": False},
    "tiny-no-cross-norm": {**TINY, "cross_attn_norm": False},
}
SHAPES = {
    "half": {"short": 2, "mid": 2, "long": 16, "noisy": (9, 4, 6), "size": (8, 12)},
    "odd": {"short": 3, "mid": 3, "long": 5, "noisy": (3, 10, 6), "size": (10, 6)},
    "short-only": {"short": 4, "noisy": (2, 4, 4), "size": (8, 8)},
    "no-history": {"noisy": (2, 4, 4), "size": (8, 8)},
}


@cache
def golden(name: str) -> dict[str, Tensor]:
    return load_file(GOLDEN / "cases" / f"{name}.safetensors")


@cache
def golden_model() -> HeliosTransformer:
    return HeliosTransformer.from_pretrained(GOLDEN / "model" / "transformer").eval()


def golden_history(data: dict[str, Tensor], case: dict[str, Any], name: str = "") -> History:
    groups = [] if name.endswith("no_history") else case.get("groups", list(KERNELS))
    bands: dict[str, HistoryBand] = {}
    for group in groups:
        visible = None
        if group in case.get("mask_names", []):
            visible = data[f"history_visible_mask_{group}"]
            if group in case.get("zero", []):
                visible = torch.zeros_like(visible)
        latents = data[f"latents_history_{group}"]
        bands[group] = HistoryBand(latents, data[f"indices_latents_history_{group}"], visible)
    return History(**bands, threshold=case.get("threshold", 0.5))


@torch.inference_mode()
def golden_run(model: HeliosTransformer, data: dict[str, Tensor], **given: Any) -> Tensor:
    return model(
        given.pop("hidden_states", data["hidden_states"]),
        given.pop("timestep"),
        data["encoder_hidden_states"],
        indices_hidden_states=given.pop("indices", data["indices_hidden_states"]),
        **given,
    )


@pytest.mark.parametrize("name", SINGLE)
def test_recorded_case(name: str) -> None:
    case, (file, output) = CASES[name], name.split("/")
    data, model = golden(f"forward_{file}"), golden_model()
    history = golden_history(data, case, name)
    indices = data["indices_hidden_states" + ("_unaligned" if case.get("unaligned") else "")]
    for selection in ("drop", "mask"):
        found = golden_run(
            model,
            data,
            timestep=torch.tensor([case["timestep"]]),
            indices=indices,
            history=history,
            selection=selection,
        )
        torch.testing.assert_close(found, data[f"out.{output}"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", [n for n in SINGLE if "mask_names" in CASES[n]])
def test_kept_tokens_are_exactly_the_recorded_number(name: str) -> None:
    case = CASES[name]
    history = golden_history(golden(f"forward_{name.partition('/')[0]}"), case)
    expected = 0
    for group, kernel in KERNELS.items():
        band = getattr(history, group)
        kept, total = case["kept_tokens"][group], case["total_tokens"][group]
        if kept is not None:
            keep = kept_tokens(band.visible, kernel, history.threshold)
            assert (int(keep.sum()), keep.numel()) == (kept, total)
            expected += kept
        else:
            pooled = pooled_visibility(band.latents[:, 0], kernel)
            expected += pooled.numel()
    assert golden_model().pack_history(history).tokens.shape[1] == expected


@pytest.mark.parametrize("file", ["even", "odd"])
@pytest.mark.parametrize("group", list(KERNELS))
def test_pooled_masks_and_keep_sets_are_exact(file: str, group: str) -> None:
    data = golden(f"forward_{file}")
    band = getattr(golden_history(data, {"mask_names": [group]}), group)
    pooled = pooled_visibility(band.visible, KERNELS[group])
    torch.testing.assert_close(pooled, data[f"pooled_mask_{group}"][:, 0], atol=1e-6, rtol=0)
    keep = kept_tokens(band.visible, KERNELS[group], 0.1)
    assert torch.equal(keep[0], data[f"keep_thr0.1_{group}"].bool())


@pytest.mark.parametrize("file", ["even", "odd"])
@pytest.mark.parametrize("group", [*KERNELS, "hidden"])
def test_rotary_tables(file: str, group: str) -> None:
    data = golden(f"forward_{file}")
    if group == "hidden":
        indices, latents = data["indices_hidden_states"], data["hidden_states"]
    else:
        indices = data[f"indices_latents_history_{group}"]
        latents = data[f"latents_history_{group}"]
    recorded = data[f"rope.{group}"]
    size = (latents.shape[-2] // 2, latents.shape[-1] // 2)
    tables = grid_tables(indices, size, (12, 10, 10), 10000.0, POOLS.get(group, (1, 1, 1)))
    flat = recorded.flatten(2).transpose(1, 2)
    count = flat.shape[1]
    for table, half in zip(tables, flat.chunk(2, dim=-1), strict=True):
        torch.testing.assert_close(table[:, :count], half[..., ::2], atol=1e-6, rtol=0)
        assert torch.equal(half[..., ::2], half[..., 1::2])


def test_recorded_batch_of_two() -> None:
    data = golden("forward_batch2")
    found = golden_run(
        golden_model(),
        data,
        timestep=data["timestep"],
        history=golden_history(data, CASES["batch2"]),
    )
    torch.testing.assert_close(found, data["out"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("mode", ["per_head", "scalar"])
def test_recorded_amplified_history(mode: str) -> None:
    data, amplified = golden("forward_batch2"), golden(f"forward_amplify_{mode}")
    config = {**golden_model().config, "is_amplify_history": True, "history_scale_mode": mode}
    model = HeliosTransformer.from_config(config).eval()
    scales = {key: value for key, value in amplified.items() if key != "out"}
    model.load_state_dict({**golden_model().state_dict(), **scales})
    history = golden_history(data, CASES["batch2"])
    found = golden_run(model, data, timestep=data["timestep"], history=history)
    torch.testing.assert_close(found, amplified["out"], atol=1e-4, rtol=0)


def test_recorded_training_outputs() -> None:
    data, recorded = golden("forward_even"), golden("training_transformer_even")
    history = golden_history(data, {"mask_names": list(KERNELS), "threshold": 0.5})
    cases = [
        ("out_single_t999", data["hidden_states"], 999.0),
        ("out_single_t873.25", data["hidden_states"], 873.25),
        ("out_list_0", data["hidden_states"], 999.0),
        ("out_list_1", recorded["hidden_states_2x"], 640.5),
    ]
    for name, noisy, level in cases:
        found = golden_run(
            golden_model(),
            data,
            hidden_states=noisy,
            timestep=torch.tensor([level]),
            history=history,
        )
        torch.testing.assert_close(found, recorded[name], atol=1e-4, rtol=0)


def pair(config: dict[str, Any], seed: int = 0) -> tuple[HeliosTransformer, Any]:
    """Our model and diffusers', with the same random weights everywhere."""
    theirs = HeliosTransformer3DModel(**config)
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            drawn = torch.randn(parameter.shape, generator=source) * 0.15
            parameter.copy_(1 + drawn if "norm" in name and name.endswith("weight") else drawn)
    ours = HeliosTransformer(**config)
    ours.load_state_dict(theirs.state_dict())
    return ours.eval(), theirs.eval()


def inputs(config: dict[str, Any], shape: dict[str, Any], batch: int = 2) -> dict[str, Any]:
    source = torch.Generator().manual_seed(5)
    frames, height, width = shape["noisy"]
    start, bands = 20, {}
    for group in ("short", "mid", "long"):
        count = shape.get(group)
        if count:
            start -= count
            latents = torch.randn(batch, 16, count, *shape["size"], generator=source)
            indices = torch.arange(start, start + count).clamp(min=0).repeat(batch, 1)
            bands[group] = HistoryBand(latents, indices)
    return {
        "noisy": torch.randn(batch, 16, frames, height, width, generator=source),
        "timestep": torch.tensor([999.0, 412.5, 0.0][:batch]),
        "text": torch.randn(batch, 7, config["text_dim"], generator=source),
        "indices": torch.arange(20, 20 + frames).repeat(batch, 1),
        "bands": bands,
    }


def run_ours(model: HeliosTransformer, given: dict[str, Any], **more: Any) -> Tensor:
    return model(
        given["noisy"],
        given["timestep"],
        given["text"],
        indices_hidden_states=given["indices"],
        history=History(**given["bands"]),
        **more,
    )


def run_theirs(model: Any, given: dict[str, Any]) -> Tensor:
    history = {}
    for group, band in given["bands"].items():
        history[f"latents_history_{group}"] = band.latents
        history[f"indices_latents_history_{group}"] = band.indices
    result: Tensor = model(
        given["noisy"],
        given["timestep"],
        given["text"],
        indices_hidden_states=given["indices"],
        **history,
    ).sample
    return result


@pytest.mark.parametrize("shape", list(SHAPES))
@pytest.mark.parametrize("variant", list(VARIANTS))
def test_equals_diffusers(variant: str, shape: str) -> None:
    ours, theirs = pair(VARIANTS[variant])
    for batch in (1, 2):
        given = inputs(VARIANTS[variant], SHAPES[shape], batch)
        with torch.no_grad():
            fast, reference = run_ours(ours, given), run_theirs(theirs, given)
        assert (fast - reference).abs().max() <= 1e-5
        assert (run_ours(ours, given).detach() - reference).abs().max() <= 1e-5


@pytest.mark.parametrize("variant", ["tiny", "tiny-no-zero-timestep", "small-amplify-scalar"])
def test_gradients_equal_diffusers(variant: str) -> None:
    ours, theirs = pair(VARIANTS[variant])
    given = inputs(VARIANTS[variant], SHAPES["half"])
    for model, run in ((ours, run_ours), (theirs, run_theirs)):
        run(model, given).square().mean().backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, atol=1e-5, rtol=1e-3)


def test_folders_are_interchangeable(tmp_path: Path) -> None:
    ours, theirs = pair(SMALL)
    given = inputs(SMALL, SHAPES["half"])
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="50KB")
    assert (tmp_path / "theirs" / "diffusion_pytorch_model.safetensors.index.json").is_file()
    loaded = HeliosTransformer.from_pretrained(tmp_path / "theirs").eval()
    ours.save_pretrained(tmp_path / "ours")
    back = HeliosTransformer3DModel.from_pretrained(tmp_path / "ours").eval()
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert config["_class_name"] == "HeliosTransformer3DModel"
    with torch.no_grad():
        reference = run_theirs(theirs, given)
        assert torch.equal(run_ours(loaded, given), run_ours(ours, given))
        assert torch.equal(run_theirs(back, given), reference)


def halves(folder: Path, config: dict[str, Any]) -> tuple[HeliosTransformer, Any]:
    """Both models, loaded in bfloat16 from one folder."""
    pair(config)[0].save_pretrained(folder)
    ours = HeliosTransformer.from_pretrained(folder, torch_dtype=torch.bfloat16)
    theirs = HeliosTransformer3DModel.from_pretrained(folder, torch_dtype=torch.bfloat16)
    return ours.eval(), theirs.eval()


def test_half_precision_keeps_the_same_modules_in_float32(tmp_path: Path) -> None:
    ours, theirs = halves(tmp_path, {**TINY, "is_amplify_history": True})
    types = {name: value.dtype for name, value in theirs.state_dict().items()}
    assert {name: value.dtype for name, value in ours.state_dict().items()} == types
    assert set(types.values()) == {torch.float32, torch.bfloat16}
    assert ours.dtype == torch.bfloat16


def test_half_precision_rounds_no_more_than_diffusers(tmp_path: Path) -> None:
    (ours, theirs), exact = halves(tmp_path, SMALL), pair(SMALL)[0]
    given = inputs(SMALL, SHAPES["half"])
    for key in ("noisy", "text"):
        given[key] = given[key].bfloat16()
    for name, band in given["bands"].items():
        given["bands"][name] = HistoryBand(band.latents.bfloat16(), band.indices)
    with torch.no_grad():
        found, other = run_ours(ours, given), run_theirs(theirs, given)
        expected = run_ours(exact, given)
    assert found.dtype == other.dtype == torch.bfloat16
    error = (found.float() - expected).abs().mean()
    assert error <= 1.2 * (other.float() - expected).abs().mean()


def test_published_size_without_its_weights() -> None:
    with torch.device("meta"):
        model = HeliosTransformer()
    state = model.state_dict()
    assert len(state) == 1101
    assert sum(value.numel() for value in state.values()) == 14_312_427_584
    with torch.device("meta"):
        theirs = HeliosTransformer3DModel()
    shapes = {name: value.shape for name, value in theirs.state_dict().items()}
    assert {name: value.shape for name, value in state.items()} == shapes
