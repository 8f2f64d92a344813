"""Prompt cleaning and features."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import ByT5Tokenizer

from flythrough.errors import InputError, WeightsError
from flythrough.models.text import (
    PromptEncoder,
    byte_tokenizer,
    clean_prompt,
    new_text_encoder,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "transformer"
PROMPT = "a car driving through a roundabout"


@pytest.fixture(scope="module")
def small() -> PromptEncoder:
    torch.manual_seed(0)
    encoder = new_text_encoder(layers=2, d_model=32, heads=2, d_kv=16, d_ff=48)
    return PromptEncoder(encoder.eval(), byte_tokenizer())


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("  a   b\n\tc ", "a b c"),
        ("salt &amp;amp; pepper", "salt & pepper"),
        ("caf\u00c3\u00a9", "caf\u00e9"),
        ("", ""),
    ],
)
def test_clean_prompt(raw: str, clean: str) -> None:
    assert clean_prompt(raw) == clean


def test_recorded_features() -> None:
    recorded = load_file(GOLDEN / "cases" / "prompts.safetensors")
    prompts = PromptEncoder.from_folder(GOLDEN / "model")
    for name, prompt in (("plain", PROMPT), ("trigger", f"camctl23x. {PROMPT}")):
        ids, _ = prompts.tokenize([prompt])
        assert torch.equal(ids[:, :64], recorded[f"prompt.{name}.ids_64"].long())
        features = prompts.encode([prompt])
        assert features.shape == (1, 512, 32)
        expected = recorded[f"prompt.{name}.embeds_64"]
        torch.testing.assert_close(features[:, :64], expected, atol=1e-5, rtol=0)
        assert features[:, 64:].abs().max() == 0


def test_rows_past_the_prompt_are_zero_and_length_does_not_matter(small: PromptEncoder) -> None:
    features = small.encode(["ab", "abcd"], 16)
    assert features.shape == (2, 16, 32)
    used = (features.abs().sum(-1) > 0).sum(-1)
    assert used.tolist() == [3, 5]  # bytes and the end token
    torch.testing.assert_close(small.encode(["ab"], 40)[0, :3], features[0, :3])


def test_shortcut_over_padding_equals_the_whole_sequence(small: PromptEncoder) -> None:
    ids, mask = small.tokenize(["a small house", "x"], 24)
    whole = small.embed(ids, mask)
    torch.testing.assert_close(
        small.encode(["a small house", "x"], 24), whole.detach(), atol=1e-6, rtol=1e-5
    )
    whole.sum().backward()
    assert small.text_encoder.shared.weight.grad is not None


def test_long_prompts_are_cut(small: PromptEncoder) -> None:
    assert small.encode(["x" * 100], 8).abs().sum(-1).gt(0).all()
    with pytest.raises(InputError, match="max_length is 0"):
        small.tokenize(["x"], 0)


def test_features_are_remembered_until_forgotten(small: PromptEncoder) -> None:
    with torch.inference_mode():
        small.encode(["remember"], 12)
    first = small.encode(["remember"], 12)
    assert not first.is_inference()
    with torch.no_grad():
        small.text_encoder.shared.weight.mul_(2)
    assert torch.equal(small.encode(["remember"], 12), first)
    small.forget()
    assert not torch.equal(small.encode(["remember"], 12), first)


def test_byte_tokenizer_folder_works_offline(
    small: PromptEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    small.save(tmp_path)
    loaded = PromptEncoder.from_folder(tmp_path)
    assert isinstance(loaded.tokenizer, ByT5Tokenizer)
    assert not loaded.text_encoder.training
    small.forget()
    prompt = ["A caf\u00e9 <pad> by the sea"]
    assert torch.equal(loaded.encode(prompt, 32), small.encode(prompt, 32))


def test_default_encoder_is_small() -> None:
    count = sum(p.numel() for p in new_text_encoder().parameters())
    assert 1_000_000 < count < 2_500_000


def test_missing_and_broken_parts(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="there is no folder"):
        PromptEncoder.from_folder(tmp_path)
    for part in ("text_encoder", "tokenizer"):
        (tmp_path / part).mkdir()
    with pytest.raises(WeightsError, match="cannot be loaded"):
        PromptEncoder.from_folder(tmp_path)
