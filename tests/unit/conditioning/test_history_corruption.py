"""Training corruption: what is dropped, what is noised, what stays zero."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from flythrough.conditioning.corruption import (
    CorruptionSettings,
    corrupt_history,
    drop_history,
)
from flythrough.errors import InputError

OFF = CorruptionSettings(
    drop_text=0.0,
    drop_to_last=0.0,
    drop_old=0.0,
    clean=0.0,
    sigma=(0.0, 0.0, 0.0),
    saturation_clean=1.0,
)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def history(batch: int = 64, frames: int = 19) -> tuple[Tensor, Tensor]:
    generator = source(5)
    past = torch.randn(batch, 4, frames, 6, 8, generator=generator)
    return past, torch.randn(batch, 4, 1, 6, 8, generator=generator)


def variant(**changes: object) -> CorruptionSettings:
    return CorruptionSettings(**{**vars(OFF), **changes})


def kept_frames(past: Tensor) -> Tensor:
    return (past != 0).any(dim=(1, 3, 4))


def test_everything_off_changes_nothing() -> None:
    past, prefix = history()
    assert torch.equal(drop_history(past, prefix, source(), OFF)[0], past)
    corrupted, anchor = corrupt_history(past, prefix, source(), OFF)
    assert torch.equal(corrupted, past)
    assert torch.equal(anchor, prefix)


def test_text_start_drops_history_and_anchor() -> None:
    past, prefix = drop_history(*history(), source(), variant(drop_text=1.0))
    assert not past.any()
    assert not prefix.any()


def test_image_start_keeps_the_newest_latent() -> None:
    past, prefix = drop_history(*history(), source(), variant(drop_to_last=1.0))
    assert kept_frames(past).tolist() == [[False] * 18 + [True]] * 64
    assert kept_frames(prefix).all()


def test_dropping_the_oldest_leaves_whole_windows() -> None:
    past, prefix = drop_history(*history(256), source(), variant(drop_old=1.0))
    kept = kept_frames(past)
    assert set(kept.sum(dim=1).tolist()) == {0, 9, 18}
    assert bool((kept.long().diff(dim=1) >= 0).all())
    assert kept_frames(prefix).all()


def test_shares_of_the_samples() -> None:
    mixed = variant(drop_text=0.25, drop_to_last=0.5)
    past, prefix = drop_history(*history(4096, 3), source(), mixed)
    gone = ~kept_frames(prefix)[:, 0]
    last = kept_frames(past).sum(dim=1) == 1
    assert float(gone.float().mean()) == pytest.approx(0.25, abs=0.03)
    assert float(last.float().mean()) == pytest.approx(0.75 * 0.5, abs=0.03)


@pytest.mark.parametrize("mode", ["noise", "downsample", "random"])
def test_absent_latents_stay_absent(mode: str) -> None:
    past, prefix = history()
    past[:, :, :7] = 0
    prefix[3] = 0
    corrupted, anchor = corrupt_history(
        past, prefix, source(), CorruptionSettings(mode=mode, clean=0.0, saturation_clean=0.0)
    )
    assert torch.equal(kept_frames(corrupted), kept_frames(past))
    assert torch.equal(kept_frames(anchor), kept_frames(prefix))


def test_noise_has_a_level_per_frame_and_band() -> None:
    past, prefix = history(512)
    noisy, anchor = corrupt_history(
        past, prefix, source(), variant(sigma=(0.0, 0.5, 0.0), clean=0.5)
    )
    change = (noisy - past).abs().mean(dim=(1, 3, 4))
    torch.testing.assert_close(noisy[:, :, :16], past[:, :, :16])
    torch.testing.assert_close(noisy[:, :, 18:], past[:, :, 18:])
    torch.testing.assert_close(anchor, prefix)
    touched = change[:, 16:18] > 0
    assert torch.equal(touched[:, 0], touched[:, 1])
    assert float(touched.float().mean()) == pytest.approx(0.5, abs=0.08)
    assert float((change[:, 16] - change[:, 17]).abs().max()) > 0.05


def test_downsampling_smooths_and_keeps_constants() -> None:
    past, prefix = history()
    blur = variant(mode="downsample", downsample=(0.4, 0.6))
    blurred, anchor = corrupt_history(past, prefix, source(), blur)
    assert float(blurred.var()) < 0.7 * float(past.var())
    assert float(anchor.var()) < 0.7 * float(prefix.var())
    flat, _ = corrupt_history(torch.ones_like(past), prefix, source(), blur)
    torch.testing.assert_close(flat, torch.ones_like(past))


def test_saturation_scales_about_the_channel_mean_by_window() -> None:
    past, prefix = history()
    drift = variant(saturation_clean=0.0, saturation=(0.3, 1.7))
    drifted, anchor = corrupt_history(past, prefix, source(), drift)
    torch.testing.assert_close(anchor, prefix)
    torch.testing.assert_close(drifted.mean(dim=1), past.mean(dim=1))
    factor = drifted.std(dim=1) / past.std(dim=1)
    for window in (slice(0, 9), slice(9, 18), slice(18, 19)):
        part = factor[:, window].flatten(1)
        torch.testing.assert_close(part, part[:, :1].expand_as(part), rtol=1e-3, atol=1e-3)
        assert 0.3 <= float(part.min()) < 0.5
        assert 1.5 < float(part.max()) <= 1.71
        assert float((part[:, 0] < 1).float().mean()) == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize("frames", [0, 1, 10, 28])
def test_any_length_and_repeatable(frames: int) -> None:
    published = CorruptionSettings.published()
    runs = []
    for _ in range(2):
        generator = source(7)
        past, prefix = history(8, frames)
        past, prefix = drop_history(past, prefix, generator, published)
        runs.append(corrupt_history(past, prefix, generator, published))
    assert runs[0][0].shape == (8, 4, frames, 6, 8)
    assert torch.equal(runs[0][0], runs[1][0])
    assert torch.equal(runs[0][1], runs[1][1])


def test_draws_do_not_depend_on_the_outcome() -> None:
    after = []
    for settings in (OFF, variant(drop_text=1.0, drop_old=1.0, clean=1.0)):
        generator = source(2)
        past, prefix = drop_history(*history(), generator, settings)
        corrupt_history(past, prefix, generator, settings)
        after.append(torch.rand(1, generator=generator).item())
    assert after[0] == after[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drop_text": 1.2}, "drop_text is 1.2"),
        ({"mode": "blur"}, "'blur' is unknown"),
        ({"sigma": (0.1, 0.1, 2.0)}, "do not lie in"),
        ({"downsample": (0.9, 0.8)}, "downsample range"),
        ({"saturation": (1.1, 1.7)}, "does not contain 1"),
    ],
)
def test_bad_settings(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        variant(**changes)
