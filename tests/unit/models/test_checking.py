"""Checking a model from file headers: whole, damaged, stock, and the published size."""

from __future__ import annotations

import json
import resource
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from flythrough.errors import WeightsError
from flythrough.models.checking import CheckReport, PartReport, check_model, check_part
from flythrough.models.expected import expected_tensors
from flythrough.models.headers import StoredTensor, read_header

WEIGHTS = "diffusion_pytorch_model.safetensors"
LAYER = "blocks.0.attn1.to_q.weight"


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_model, tmp_path / "model")


def part(report: CheckReport, name: str) -> PartReport:
    return next(found for found in report.parts if found.part == name)


def rewrite(file: Path, **changes: torch.Tensor | None) -> None:
    state = {**load_file(file), **{k.replace("__", "."): v for k, v in changes.items()}}
    save_file({k: v for k, v in state.items() if v is not None}, file)


def write_header(file: Path, tensors: dict[str, StoredTensor], width: int) -> None:
    """A safetensors file of the right length without data (a hole on the disk)."""
    entries, end = {}, 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.count * width
        entry = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [begin, end]}
        entries[name] = entry
    header = json.dumps(entries).encode()
    with file.open("wb") as opened:
        opened.write(len(header).to_bytes(8, "little") + header)
        opened.truncate(8 + len(header) + end)


def test_nano_is_whole() -> None:
    report = check_model("nano")
    assert report.good, report
    assert {p.part for p in report.parts} >= {"transformer", "geometry", "lora/camera.safetensors"}
    found = part(report, "transformer")
    assert (found.kind, found.tensors) == ("HeliosTransformer3DModel", 345)


def test_a_whole_folder_and_each_part_alone(model: Path) -> None:
    assert check_model(str(model)).good
    for name in ("transformer", "vae", "text_encoder", "geometry"):
        report = check_model(str(model / name))
        assert report.good
        assert [p.part for p in report.parts] == [name]


def test_missing_parts_and_files(model: Path) -> None:
    shutil.rmtree(model / "vae")
    (model / "transformer" / WEIGHTS).unlink()
    (model / "text_encoder" / "config.json").unlink()
    (model / "scheduler" / "scheduler_config.json").write_text("[]")
    report = check_model(str(model))
    assert part(report, "vae").faults == ("the folder is missing",)
    assert part(report, "transformer").faults == (f"{WEIGHTS} is missing",)
    assert LAYER in part(report, "transformer").missing
    assert part(report, "text_encoder").faults == ("config.json is missing",)
    assert "cannot be read" in part(report, "scheduler").faults[0]
    assert part(report, "geometry").good


def test_tensors_that_do_not_fit(model: Path) -> None:
    file = model / "transformer" / WEIGHTS
    rewrite(
        file,
        blocks__0__attn1__to_q__weight=torch.zeros(3, 5),
        blocks__0__attn1__to_k__weight=None,
        blocks__1__attn1__to_q__bias=torch.zeros(64, dtype=torch.int8),
        blocks__7__attn1__to_q__bias=torch.zeros(64),
        blocks__0__norm_added_q__weight=torch.zeros(64),
    )
    found = check_part(model / "transformer", "transformer")
    assert found.missing == ("blocks.0.attn1.to_k.weight",)
    assert found.unexpected == ("blocks.7.attn1.to_q.bias",)
    assert found.misshaped == (
        f"{LAYER} [3, 5] instead of [64, 64]",
        "blocks.1.attn1.to_q.bias is stored as I8",
    )


def test_another_class_or_configuration(model: Path) -> None:
    file = model / "vae" / "config.json"
    file.write_text(json.dumps({"_class_name": "AutoencoderKL"}))
    assert "must be a TAEHV or AutoencoderKLWan" in check_part(model / "vae", "vae").faults[0]
    file = model / "transformer" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "rope_dim": [3, 3, 3]}))
    assert "rope_dim" in check_part(model / "transformer", "transformer").faults[0]
    file = model / "geometry" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "depth": 3}))
    assert "unknown keys depth" in check_part(model / "geometry", "geometry").faults[0]


def test_an_adapter_for_another_model(model: Path) -> None:
    file = model / "lora" / "camera.safetensors"
    state = load_file(file)
    first = "transformer.blocks.0.attn1.to_q"
    del state[f"{first}.lora_B.weight"]
    state["transformer.blocks.1.attn1.to_q.lora_A.weight"] = torch.zeros(4, 7)
    state["transformer.blocks.9.attn1.to_q.lora_A.weight"] = torch.zeros(4, 64)
    save_file(state, file)
    found = part(check_model(str(model)), "lora/camera.safetensors")
    assert found.missing == ("blocks.0.attn1.to_q.lora_B",)
    assert found.unexpected == ("transformer.blocks.9.attn1.to_q.lora_A.weight",)
    assert found.misshaped == ("blocks.1.attn1.to_q [4, 7] and [64, 4] on [64, 64]",)


def test_damaged_weight_files(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_file({"x": torch.zeros(2, 3), "y": torch.zeros(4, dtype=torch.float16)}, file)
    assert read_header(file) == {"x": StoredTensor("F32", (2, 3)), "y": StoredTensor("F16", (4,))}
    whole = file.read_bytes()
    for broken, words in (
        (whole[:-1], "bytes where its header asks for"),
        (whole[:20], "cut short"),
        (b"", "cut short"),
        (b"PK" + whole, "cut short"),
        (whole.replace(b"[2,3]", b"[2,9]"), "damaged header"),
        (whole.replace(b'"dtype"', b'"dtypo"'), "damaged header"),
    ):
        file.write_bytes(broken)
        with pytest.raises(WeightsError, match=words):
            read_header(file)


def test_shards(model: Path) -> None:
    folder = model / "transformer"
    state = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    shards = [f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    names = sorted(state)
    halves = dict(zip(shards, (names[:20], names[20:]), strict=True))
    for shard, inside in halves.items():
        save_file({name: state[name] for name in inside}, folder / shard)
    places = {name: shard for shard, inside in halves.items() for name in inside}
    index = folder / f"{WEIGHTS}.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    assert check_part(folder, "transformer").good
    index.write_text(json.dumps({"weight_map": {**places, names[0]: shards[1]}}))
    assert "index says otherwise" in check_part(folder, "transformer").faults[0]
    index.write_text(json.dumps({"weight_map": {**places, names[0]: "../elsewhere"}}))
    assert "not in its folder" in check_part(folder, "transformer").faults[0]
    index.unlink()
    assert check_part(folder, "transformer").faults == (f"{index.name} is missing",)
    index.write_text(json.dumps({"weight_map": places}))
    (folder / shards[0]).unlink()
    found = check_part(folder, "transformer")
    assert found.faults == (f"{shards[0]} is missing",)
    assert found.missing == tuple(names[:20])


def test_a_folder_saved_by_stock_diffusers(tmp_path: Path) -> None:
    from diffusers import AutoencoderKLWan, HeliosDMDScheduler, HeliosTransformer3DModel
    from transformers import ByT5Tokenizer, UMT5Config, UMT5EncoderModel

    transformer = HeliosTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=32,
        rope_dim=(12, 10, 10),
        ffn_dim=64,
        num_layers=2,
        text_dim=32,
        freq_dim=32,
    )
    transformer.save_pretrained(tmp_path / "transformer", max_shard_size="200KB")
    AutoencoderKLWan(base_dim=8, num_res_blocks=1).save_pretrained(tmp_path / "vae")
    sizes = {"d_model": 32, "d_kv": 16, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    text = UMT5EncoderModel(UMT5Config(vocab_size=259, **sizes))
    text.save_pretrained(tmp_path / "text_encoder")
    ByT5Tokenizer(extra_ids=0).save_pretrained(tmp_path / "tokenizer")
    HeliosDMDScheduler().save_pretrained(tmp_path / "scheduler")
    assert len(list((tmp_path / "transformer").glob("*-of-*.safetensors"))) > 1
    report = check_model(str(tmp_path))
    assert report.good, report
    assert part(report, "vae").kind == "AutoencoderKLWan"
    (tmp_path / "tokenizer" / "tokenizer_config.json").write_text('{"tokenizer_class": "T5"}')
    assert "vocabulary" in check_part(tmp_path / "tokenizer", "tokenizer").faults[0]


def test_the_published_sizes_cost_neither_time_nor_memory(tmp_path: Path) -> None:
    config: dict[str, Any] = {"_class_name": "HeliosTransformer3DModel"}
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    _, expected = expected_tensors("transformer", config)
    assert (len(expected.shapes), expected.parameters) == (1101, 14_312_427_584)
    stored = {name: StoredTensor("F32", shape) for name, shape in expected.shapes.items()}
    write_header(tmp_path / WEIGHTS, stored, 4)
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert (tmp_path / WEIGHTS).stat().st_size > 57e9
    report = check_model(str(tmp_path))
    assert report.good
    assert report.parts[0].numbers == 14_312_427_584
    assert time.perf_counter() - start < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # kB


def test_a_published_file_without_a_configuration(tmp_path: Path) -> None:
    _, expected = expected_tensors("geometry", {"_class_name": "Pi3X"})
    stored = {
        name: StoredTensor("F32", shape)
        for name, shape in expected.shapes.items()
        if name not in expected.optional
    }
    assert sum(t.count for t in stored.values()) == 1_360_032_433
    write_header(tmp_path / "model.safetensors", stored, 4)
    assert check_model(str(tmp_path)).good
    stored["extra"] = StoredTensor("F32", (1,))
    write_header(tmp_path / "model.safetensors", stored, 4)
    assert check_model(str(tmp_path)).parts[0].unexpected == ("extra",)


def test_a_tensor_with_two_names_is_needed_once() -> None:
    config = {"model_type": "umt5", "d_model": 32, "num_layers": 1, "num_heads": 2}
    _, expected = expected_tensors("text_encoder", config)
    names = ["shared.weight", "encoder.embed_tokens.weight"]
    stored = {name: StoredTensor("F32", shape) for name, shape in expected.shapes.items()}
    assert expected.missing({k: v for k, v in stored.items() if k != names[0]}) == []
    assert expected.missing({k: v for k, v in stored.items() if k not in names}) == sorted(names)


def test_names_that_are_nowhere() -> None:
    with pytest.raises(WeightsError, match="no model or folder 'nowhere'"):
        check_model("nowhere")
    with pytest.raises(WeightsError, match="taew2_1 is not on this machine"):
        check_model("taew2_1")
