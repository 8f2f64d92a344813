"""Memory foretold on shapes alone."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from flythrough.disk import read_json
from flythrough.engine.run_needs import _history
from flythrough.models import needs
from flythrough.models.accounting import needed_by, needed_by_layers, weight_bytes
from flythrough.models.adapters import lora_state, new_lora
from flythrough.models.catalog import find_model
from flythrough.models.helios import HeliosTransformer
from flythrough.models.loading import load_model
from flythrough.models.needs import ModelNeeds


def test_temporaries_count_while_they_live() -> None:
    def run() -> torch.Tensor:
        first = torch.empty(1000)  # 4000 bytes
        second = first * 2  # both live: 8000
        del first
        return second + 1  # second and the sum: 8000

    assert needed_by(run, []).peak_bytes == 8000


def test_views_and_weights_take_nothing() -> None:
    layer = nn.Linear(8, 16, device="meta")
    need = needed_by(lambda: layer(torch.empty(4, 8).reshape(2, 2, 8)).transpose(0, 1), [layer])
    assert need.peak_bytes == 4 * (4 * 8 + 4 * 16)
    assert need.flops == 2 * 4 * 8 * 16


def test_attention_has_no_table_of_scores() -> None:
    def run() -> torch.Tensor:
        q = torch.empty(1, 2, 1000, 4)
        return nn.functional.scaled_dot_product_attention(q, q, q)

    need = needed_by(run, [])
    assert need.peak_bytes == 2 * 4 * 2 * 1000 * 4
    assert need.flops == 4 * 2 * 1000 * 1000 * 4


def test_a_convolution_needs_room_to_reorder() -> None:
    layer = nn.Conv2d(3, 5, 1, device="meta", bias=False)
    need = needed_by(lambda: layer(torch.empty(1, 3, 10, 10)), [layer])
    assert need.peak_bytes == 4 * 100 * (3 + 3 + 2 * 5)


@pytest.mark.parametrize("layers", [1, 3, 4, 9])
def test_layers_that_are_alike_are_not_all_run(layers: int) -> None:
    """Yet the answer is that of all, with what the net does before and behind them."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before = nn.Linear(4, 8, device="meta")
            self.blocks = nn.ModuleList(nn.Linear(8, 8, device="meta") for _ in range(layers))
            self.runs = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.before(x)
            for block in self.blocks:
                self.runs += 1
                x = x + nn.functional.gelu(block(x))
            return x.float() @ torch.empty(8, 500)

    net = Net()

    def run() -> torch.Tensor:
        return net(torch.empty(10, 4))

    whole = needed_by(run, [net])
    net.runs = 0
    assert needed_by_layers(run, net) == whole
    assert net.runs == (layers if layers <= 3 else 5)
    assert len(net.blocks) == layers


@pytest.mark.parametrize("adapted", ["no", "every", "some"])
@pytest.mark.parametrize("kind", ["text", "warp"])
def test_a_deep_denoiser_needs_what_all_its_layers_need(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapted: str, kind: str
) -> None:
    """Whatever its adapter sits on."""
    deep = tmp_path / "deep"
    shutil.copytree(tiny_model, deep)
    config = read_json(deep / "transformer" / "config.json")
    (deep / "transformer" / "config.json").write_text(json.dumps({**config, "num_layers": 6}))
    files: tuple[Path, ...] = ()
    if adapted != "no":
        net = HeliosTransformer.from_config({**config, "num_layers": 6})
        new_lora(net, rank=64)
        state = lora_state(net)
        if adapted == "some":
            state = {name: value for name, value in state.items() if "blocks.5." in name}
        save_file(state, tmp_path / "adapter.safetensors", {"rank": "64", "alpha": "64"})
        files = (tmp_path / "adapter.safetensors",)
    found = []
    for counted in (needed_by_layers, lambda run, net: needed_by(run, [net])):
        monkeypatch.setattr(needs, "needed_by_layers", counted)
        measured = ModelNeeds(deep, "cuda", torch.bfloat16, adapters=files, stored_as="F32")
        band = "short" if kind == "warp" else None
        make = partial(_history, measured.codec.latent_channels, band=band)
        found.append(measured.denoise((8, 16), 1, make))
    assert found[0] == found[1]


def test_shared_weights_count_once() -> None:
    pair = nn.ModuleList([nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)])
    pair[1].weight = pair[0].weight
    assert weight_bytes(pair) == 64


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_those_that_get_loaded(tiny_model: Path, dtype: torch.dtype) -> None:
    model = load_model(find_model(str(tiny_model)), torch.device("cpu"), dtype)
    weights = ModelNeeds(tiny_model, "cpu", dtype).weights()
    assert weights["transformer"].whole == weight_bytes(model.transformer)
    assert weights["text_encoder"].whole == weight_bytes(model.prompts.text_encoder)
    assert weights["vae"].whole == weight_bytes(model.codec.net)  # type: ignore[attr-defined]
    assert all(part.streamed <= part.whole for part in weights.values())
