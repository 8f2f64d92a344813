"""What 8 bits ask of a GPU, when that is said, and the allocator's blocks; no GPU is needed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from flythrough.engine import acceleration, build
from flythrough.engine.acceleration import check_eight_bits, fast_denoiser
from flythrough.engine.build import build_session, build_spec, pick_device
from flythrough.engine.doctor import examine
from flythrough.engine.intent import Intent
from flythrough.engine.request import GenerateRequest, check
from flythrough.errors import InputError
from flythrough.models.catalog import find_model
from flythrough.models.fast.fp8 import PRODUCTS, Fp8Linear, quantise_blocks
from flythrough.models.loading import load_transformer

GPU = torch.device("cuda")
ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")


def test_what_8_bits_ask_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "get_device_capability", refuse)
        check_eight_bits("fast", GPU)
        check_eight_bits("fp8-all", torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 6))
    for word in ("fp8", "fp8-all"):
        with pytest.raises(InputError, match=f"--precision {word} needs .* 8.9 .* has 8.6"):
            check_eight_bits(word, GPU)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    for there in (True, False):
        monkeypatch.setattr(acceleration, "has_flash3", lambda _, there=there: there)
        check_eight_bits("fp8", GPU)
        if there:
            check_eight_bits("fp8-all", GPU)
            continue
        with pytest.raises(InputError, match="FlashAttention 3"):
            check_eight_bits("fp8-all", GPU)


def refused(*_: Any) -> None:
    raise InputError("no 8 bits here.")


def test_8_bits_are_refused_before_anything_is_read(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(build, "check_eight_bits", refused)
    for name in ("placement_for", "load_model"):
        monkeypatch.setattr(build, name, read)
    checked = check(GenerateRequest(prompt="a hill", model=str(tiny_model), frames=33))
    with pytest.raises(InputError, match="no 8 bits here"):
        build_session(build_spec(checked), checked.model, "cpu", lambda _: None, compute="fp8")


def test_doctor_says_what_generate_would_refuse(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceleration, "check_eight_bits", refused)
    for precision, good in (("full", True), ("fp8", False)):
        report = examine(Intent(str(tiny_model), device="cpu", precision=precision))
        assert report.good is good
        found = [row.found for row in report.rows if row.name == "precision"]
        assert found == ([] if good else ["no 8 bits here."])


def test_a_denoiser_left_half_way_becomes_8_bit_whole(tiny_model: Path) -> None:
    """As after an attempt that ran out of memory."""
    net = load_transformer(find_model(str(tiny_model)).path / "transformer", torch.float32)
    net.eval().requires_grad_(False)
    quantise_blocks(net.blocks[:1])
    fast_denoiser(net, "fp8", torch.device("cpu"), lambda _: None)
    for block in net.blocks:
        assert all(isinstance(block.get_submodule(name), Fp8Linear) for name in PRODUCTS)


@pytest.mark.parametrize(
    ("device", "given", "used", "grow"),
    [
        ("auto", {}, False, True),
        ("auto", {}, True, False),
        ("cpu", {}, False, False),
        ("auto", {"PYTORCH_ALLOC_CONF": "max_split_size_mb:64"}, False, False),
        ("auto", {"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64"}, False, False),
    ],
)
def test_blocks_grow_unless_torch_was_told_otherwise(
    device: str,
    given: dict[str, str],
    used: bool,
    grow: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor after a GPU was used, when other processes would read it and this one would not."""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: used)
    for name in ALLOCATOR:
        monkeypatch.setenv(name, "")  # so that it is as before afterwards
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    pick_device(device)
    wanted = given | ({ALLOCATOR[0]: "expandable_segments:True"} if grow else {})
    assert {name: os.environ[name] for name in ALLOCATOR if name in os.environ} == wanted
