"""Token selection, packing, fast routes and misuse of the denoiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from flythrough.errors import InputError, WeightsError
from flythrough.models.helios import HeliosTransformer
from flythrough.models.history_tokens import (
    History,
    HistoryBand,
    effective_threshold,
    kept_tokens,
)
from flythrough.models.linear import Linear
from flythrough.models.rotary import Tables, rotate, rotate_real

TINY = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "text_dim": 8,
    "freq_dim": 16,
    "ffn_dim": 48,
    "num_layers": 3,
    "rope_dim": (8, 4, 4),
}


@pytest.fixture
def model() -> HeliosTransformer:
    torch.manual_seed(0)
    return HeliosTransformer(**TINY).eval()


def band(count: int, start: int, batch: int = 1, visible: Tensor | None = None) -> HistoryBand:
    source = torch.Generator().manual_seed(start)
    latents = torch.randn(batch, 16, count, 8, 8, generator=source)
    return HistoryBand(latents, torch.arange(start, start + count).repeat(batch, 1), visible)


def patchy(count: int, batch: int, seed: int) -> Tensor:
    """Masks with seen and unseen areas, other ones for every sample."""
    source = torch.Generator().manual_seed(seed)
    coarse = (torch.rand(batch, count, 2, 2, generator=source) > 0.5).float()
    fine = torch.rand(batch, count, 8, 8, generator=source)
    return coarse.repeat_interleave(4, 2).repeat_interleave(4, 3) * fine


def masked_history(batch: int, threshold: float | None = 0.4) -> History:
    return History(
        short=band(3, 19, batch, patchy(3, batch, 1)),
        mid=band(2, 17, batch, patchy(2, batch, 2)),
        long=band(8, 9, batch, patchy(8, batch, 3)),
        threshold=threshold,
    )


def sample(history: History, index: int) -> History:
    def one(part: HistoryBand | None) -> HistoryBand | None:
        if part is None:
            return None
        rows = slice(index, index + 1)
        visible = None if part.visible is None else part.visible[rows]
        return HistoryBand(part.latents[rows], part.indices[rows], visible)

    bands = one(history.short), one(history.mid), one(history.long)
    return History(*bands, threshold=history.threshold)


def arguments(batch: int = 1) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(7)
    return {
        "hidden_states": torch.randn(batch, 16, 2, 4, 4, generator=source),
        "timestep": torch.tensor([900.0, 40.0, 500.0][:batch]),
        "encoder_hidden_states": torch.randn(batch, 5, 8, generator=source),
        "indices_hidden_states": torch.arange(20, 22).repeat(batch, 1),
    }


def test_masking_equals_dropping_for_every_sample(model: HeliosTransformer) -> None:
    given, history = arguments(3), masked_history(3)
    with torch.no_grad():
        masked = model(**given, history=history, selection="mask")
        for index in range(3):
            single = {key: value[index : index + 1] for key, value in given.items()}
            dropped = model(**single, history=sample(history, index))
            assert (masked[index : index + 1] - dropped).abs().max() <= 1e-5
    counts = {model.pack_history(sample(history, i)).tokens.shape[1] for i in range(3)}
    assert len(counts) > 1, "the samples are meant to differ"


def test_masking_gives_the_gradients_of_dropping(model: HeliosTransformer) -> None:
    given, history = arguments(1), masked_history(1)
    gradients = []
    for selection in ("drop", "mask"):
        model.zero_grad()
        model(**given, history=history, selection=selection).square().sum().backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    for name, value in gradients[0].items():
        torch.testing.assert_close(value, gradients[1][name], atol=1e-4, rtol=1e-4)


def test_dropping_needs_agreement_in_the_batch(model: HeliosTransformer) -> None:
    with pytest.raises(InputError, match='selection="mask"'):
        model(**arguments(2), history=masked_history(2))


def test_one_mask_and_one_history_serve_any_batch(model: HeliosTransformer) -> None:
    given = arguments(2)
    lone = masked_history(1)
    assert lone.short is not None
    assert lone.short.visible is not None
    twice = History(
        short=HistoryBand(
            *(t.repeat(2, *[1] * (t.ndim - 1)) for t in (lone.short.latents, lone.short.indices)),
            lone.short.visible,
        ),
        threshold=0.4,
    )
    with torch.no_grad():
        shared = model(**given, history=History(short=lone.short, threshold=0.4))
        spelled = model(**given, history=twice)
    torch.testing.assert_close(shared, spelled, atol=1e-6, rtol=0)
    with pytest.raises(InputError, match="history of batch 2"):
        model(**arguments(3), history=twice)


@pytest.mark.parametrize("selection", ["drop", "mask"])
def test_packed_history_gives_the_same_velocity(model: HeliosTransformer, selection: str) -> None:
    given, history = arguments(1), masked_history(1)
    with torch.no_grad():
        packed = model.pack_history(history, selection=selection)
        assert torch.equal(
            model(**given, history=packed), model(**given, history=history, selection=selection)
        )


def test_threshold_is_inclusive_and_none_keeps_all() -> None:
    visible = torch.zeros(1, 1, 2, 4)
    visible[..., 0, 0] = 0.4
    assert kept_tokens(visible, (1, 2, 2), 0.1).tolist() == [[True, False]]
    assert kept_tokens(visible, (1, 2, 2), 0.0).tolist() == [[True, True]]
    assert effective_threshold(None, reference=False) is None
    assert effective_threshold(0.0, reference=False) == 0.0
    assert effective_threshold(0.0, reference=True) == 0.5
    assert effective_threshold(None, reference=True) == 0.5
    assert effective_threshold(0.1, reference=True) == 0.1


def test_partly_padded_tokens_repeat_their_edge() -> None:
    visible = torch.zeros(1, 3, 4, 4)
    visible[:, 2] = 1.0
    kept = kept_tokens(visible, (2, 4, 4), 1.0)
    assert kept.tolist() == [[False, True]]


def test_zero_threshold_keeps_all_unless_reference(model: HeliosTransformer) -> None:
    history = masked_history(1, threshold=0.0)
    whole = model.pack_history(masked_history(1, threshold=None)).tokens.shape[1]
    assert model.pack_history(history).tokens.shape[1] == whole
    assert model.pack_history(history, reference=True).tokens.shape[1] < whole


def test_unseen_history_equals_no_history(model: HeliosTransformer) -> None:
    unseen = History(short=band(3, 19, visible=torch.zeros(1, 3, 8, 8)))
    with torch.no_grad():
        found = [model(**arguments(), history=h) for h in (unseen, History(), None)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[1], found[2])


def test_gradient_checkpointing_changes_nothing(model: HeliosTransformer) -> None:
    model.train()
    gradients = []
    for enable in (False, True):
        if enable:
            model.enable_gradient_checkpointing()
        model.zero_grad()
        model(**arguments(2), history=masked_history(2), selection="mask").sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again)


@pytest.mark.parametrize("selection", ["drop", "mask"])
def test_compiles_without_graph_breaks(model: HeliosTransformer, selection: str) -> None:
    packed = model.pack_history(masked_history(1), selection=selection)
    packed = packed._replace(tokens=packed.tokens.detach())
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    found = compiled(**arguments(), history=packed)
    torch.testing.assert_close(found, model(**arguments(), history=packed), atol=1e-5, rtol=1e-5)
    found.sum().backward()


def test_trains_under_autocast(model: HeliosTransformer) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(**arguments(2), history=masked_history(2), selection="mask")
    exact = model(**arguments(2), history=masked_history(2), selection="mask")
    assert (found.float() - exact).abs().max() < 0.05 * exact.abs().max()
    found.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_pair_rotation_has_one_meaning() -> None:
    source = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 3, 8, generator=source)
    tables = Tables(*(torch.randn(1, 5, 4, generator=source) for _ in range(2)))
    torch.testing.assert_close(rotate(x, tables), rotate_real(x, tables), atol=1e-6, rtol=0)


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("slicing", [slice(None), slice(2, 5)])
def test_fast_product_equals_the_plain_one(gelu: bool, slicing: slice) -> None:
    torch.manual_seed(1)
    layer = Linear(24, 40)
    x = torch.randn(2, 7, 24)[:, slicing]
    plain = layer(x, gelu)
    with torch.no_grad():
        fast = layer(x, gelu)
    assert plain.requires_grad
    assert not fast.requires_grad
    torch.testing.assert_close(fast, plain, atol=1e-5, rtol=1e-5)


MISUSE: list[tuple[str, Callable[[], Any]]] = [
    ("shape \\(16, 2, 8, 8\\)", lambda: HistoryBand(torch.zeros(16, 2, 8, 8), torch.zeros(1, 2))),
    ("one index for every", lambda: HistoryBand(torch.zeros(1, 16, 2, 8, 8), torch.zeros(1, 3))),
    ("visibility mask of shape", lambda: band(3, 0, visible=torch.zeros(1, 3, 4, 4))),
    ("threshold 1.5", lambda: History(threshold=1.5)),
    (
        "latent sizes",
        lambda: History(
            short=band(1, 0),
            mid=HistoryBand(torch.zeros(1, 16, 2, 4, 4), torch.zeros(1, 2, dtype=torch.int64)),
        ),
    ),
]


@pytest.mark.parametrize(("message", "act"), MISUSE)
def test_misshapen_history_is_refused(message: str, act: Callable[[], Any]) -> None:
    with pytest.raises(InputError, match=message):
        act()


def test_indivisible_latents_are_refused(model: HeliosTransformer) -> None:
    given = arguments()
    given["hidden_states"] = torch.zeros(1, 16, 2, 3, 4)
    with pytest.raises(InputError, match="multiples of the patch"):
        model(**given)
    odd = HistoryBand(torch.zeros(1, 16, 1, 5, 8), torch.zeros(1, 1, dtype=torch.int64))
    with pytest.raises(InputError, match="short history"):
        model(**arguments(), history=History(short=odd))
    with pytest.raises(InputError, match="'keep' is unknown"):
        model.pack_history(History(), selection="keep")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        {"qk_norm": None},
        {"added_kv_proj_dim": 8},
        {"rope_dim": (8, 4, 6)},
        {"rope_dim": (7, 5, 4)},
        {"history_scale_mode": "both"},
    ],
)
def test_unsupported_configurations_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(WeightsError, match=next(iter(wrong))):
        HeliosTransformer(**{**TINY, **wrong})


def test_a_model_without_history_patches_runs_and_refuses_history() -> None:
    model = HeliosTransformer(**TINY, has_multi_term_memory_patch=False).eval()
    assert model(**arguments()).shape == (1, 16, 2, 4, 4)
    with pytest.raises(InputError, match="without history patches"):
        model(**arguments(), history=masked_history(1))
