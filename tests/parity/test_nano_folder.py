"""The bundled model in stock diffusers and transformers."""

from __future__ import annotations

import torch
from diffusers import HeliosDMDScheduler, HeliosTransformer3DModel, WanTransformer3DModel
from transformers import AutoTokenizer, UMT5EncoderModel

from flythrough.models.catalog import bundled_folder
from flythrough.models.loading import load_st_diff
from flythrough.models.text import PromptEncoder
from flythrough.sampling.dmd_schedule import PyramidConfig, pyramid_schedules

NANO = bundled_folder()


def test_stock_classes_load_every_part_without_complaint() -> None:
    stock, report = HeliosTransformer3DModel.from_pretrained(
        NANO / "transformer", output_loading_info=True
    )
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert sum(p.numel() for p in stock.parameters()) == 22_281_024
    text, report = UMT5EncoderModel.from_pretrained(  # bfloat16 in the file
        NANO / "text_encoder", output_loading_info=True, dtype=torch.float32
    )
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokenizer = AutoTokenizer.from_pretrained(NANO / "tokenizer")
    given = tokenizer(["a red room"], return_tensors="pt")
    with torch.no_grad():
        theirs = text(**given).last_hidden_state[0]
    ours = PromptEncoder.from_folder(NANO, device=torch.device("cpu")).encode(["a red room"], 128)
    torch.testing.assert_close(ours[0, : len(theirs)], theirs, atol=1e-5, rtol=1e-5)


def test_the_stock_class_loads_the_st_diff_and_gives_the_same() -> None:
    stock, report = WanTransformer3DModel.from_pretrained(
        NANO / "st_diff", output_loading_info=True, torch_dtype=torch.float32
    )
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ours = load_st_diff(NANO / "st_diff", torch.float32)
    source = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 16, 3, 8, 12, generator=source)
    text = torch.randn(1, 5, 256, generator=source)
    level = torch.tensor([437.0])
    with torch.no_grad():
        theirs = stock(latents, level, text, return_dict=False)[0]
        mine = ours(latents, level.expand(1, 3 * 4 * 6).reshape(1, 3, 4, 6), text)
    torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


def test_our_timetable_is_the_stock_schedulers() -> None:
    stock = HeliosDMDScheduler.from_pretrained(NANO / "scheduler")
    config = PyramidConfig.from_dict({**stock.config, "_class_name": "HeliosDMDScheduler"})
    ours = pyramid_schedules(config, (9, 24, 40), (2, 2, 2))
    for stage, (height, width) in enumerate([(6, 10), (12, 20), (24, 40)]):
        slope = (1.15 - 0.5) / (4096 - 256)
        mu = 0.5 + slope * (9 * height * width / 4 - 256)
        stock.set_timesteps(2, stage, mu=mu)
        expected = torch.tensor(ours[stage].timesteps, dtype=torch.float64)
        torch.testing.assert_close(stock.timesteps.double(), expected, atol=1e-3, rtol=0)
