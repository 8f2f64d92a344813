"""Pickled weights become safetensors, and nothing in them is run."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from flythrough.errors import WeightsError
from flythrough.models.converting import convert
from flythrough.models.lora_files import read_lora

STATE = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)}


def saved(folder: Path, value: object, **options: Any) -> Path:
    torch.save(value, folder / "weights.pt", **options)
    return folder / "weights.pt"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_survive(tmp_path: Path, zipped: bool) -> None:
    state = OrderedDict(STATE, c=nn.Parameter(torch.zeros(1)))
    source = saved(tmp_path, state, _use_new_zipfile_serialization=zipped)
    made = convert(source, tmp_path / "out.safetensors")
    assert (made.tensors, made.bytes, made.wrapper, made.left_out) == (3, 32, "", ())
    found = load_file(tmp_path / "out.safetensors")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[k], state[k]) and found[k].dtype == state[k].dtype for k in found)
    with safe_open(tmp_path / "out.safetensors", "pt") as opened:
        assert opened.metadata() == {"format": "pt", "converted_from": "weights.pt"}


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "ema", "peft"])
def test_one_wrapper_is_opened_and_the_rest_named(tmp_path: Path, wrapper: str) -> None:
    made = convert(saved(tmp_path, {wrapper: STATE, "step": 1000, "optimiser": {"state": {}}}))
    assert (made.wrapper, made.left_out) == (wrapper, ("step", "optimiser"))
    assert load_file(tmp_path / "weights.safetensors").keys() == STATE.keys()


def test_several_sets_need_a_choice(tmp_path: Path) -> None:
    source = saved(tmp_path, {"model": STATE, "ema": {"a": torch.zeros(1)}})
    with pytest.raises(WeightsError, match=r"several sets of tensors \(model, ema\); .*--key"):
        convert(source)
    with pytest.raises(WeightsError, match="no set of tensors 'other'; it has model, ema"):
        convert(source, key="other")
    assert convert(source, key="ema").tensors == 1


def test_shared_and_strided_tensors_get_memory_of_their_own(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    state = {"whole": base, "same": base, "turned": base.t(), "row": base[1]}
    made = convert(saved(tmp_path, state))
    assert made.separated == ("same", "turned", "row")
    found = load_file(tmp_path / "weights.safetensors")
    assert all(torch.equal(found[name], state[name]) for name in state)


class Trap:
    """Pickled code that would leave a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.trace,))


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    source = saved(tmp_path, {"a": torch.zeros(1), "b": Trap(tmp_path / "trace")})
    with pytest.raises(WeightsError, match="could run code") as caught:
        convert(source)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["weights.pt"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([torch.zeros(1)], "holds a list"),
        (torch.zeros(1), "holds a Tensor"),
        ({}, "no set of tensors"),
        ({"step": 3, "names": ["a"]}, "no set of tensors"),
        ({"a": torch.zeros(1), "step": 3}, "'step' beside its tensors"),
        ({1: torch.zeros(1)}, "holds 1 beside"),
        ({"a": torch.eye(3).to_sparse()}, "is sparse"),
    ],
)
def test_other_contents_are_refused(tmp_path: Path, value: object, words: str) -> None:
    with pytest.raises(WeightsError, match=words) as caught:
        convert(saved(tmp_path, value))
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["weights.pt"]


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    for content in (b"", b"plain text, no weights", b"PK\x03\x04broken"):
        (tmp_path / "weights.pt").write_bytes(content)
        with pytest.raises(WeightsError, match=r"not a readable file|no file of weights"):
            convert(tmp_path / "weights.pt")
    assert names(tmp_path) == ["weights.pt"]


def test_targets(tmp_path: Path) -> None:
    source = saved(tmp_path, STATE)
    (tmp_path / "weights.safetensors").write_bytes(b"mine")
    (tmp_path / "folder.safetensors").mkdir()
    for output, words in (
        (None, "name the output with -o"),
        (tmp_path / "out.bin", "must end in .safetensors"),
        (tmp_path / "folder.safetensors", "is a folder"),
        (tmp_path / "nowhere" / "out.safetensors", "does not exist"),
    ):
        with pytest.raises(WeightsError, match=words):
            convert(source, output)
    for path, words in ((tmp_path / "no.pt", "no file"), (tmp_path / "weights.safetensors", "as")):
        with pytest.raises(WeightsError, match=words):
            convert(path)
    assert (tmp_path / "weights.safetensors").read_bytes() == b"mine"
    convert(source, tmp_path / "weights.safetensors")
    assert load_file(tmp_path / "weights.safetensors").keys() == STATE.keys()


def test_a_published_adapter_can_be_used_afterwards(tmp_path: Path) -> None:
    layer = "blocks.0.attn1.to_q"
    state = {f"{layer}.lora_A.weight": torch.ones(4, 8), f"{layer}.lora_B.weight": torch.ones(8, 4)}
    made = convert(saved(tmp_path, {"peft": state, "config": {"rank": 4}}))
    lora = read_lora(made.output)
    assert (lora.rank, lora.layers) == (4, [layer])
