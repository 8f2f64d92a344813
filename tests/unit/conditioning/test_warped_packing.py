"""Packing of the warp: windows, selection, variants; one function for inference and training."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from flythrough.conditioning.warped_history import WarpHistorySettings, warped_history
from flythrough.errors import InputError
from flythrough.models.history_tokens import History, HistoryBand, kept_tokens

DEFAULT = WarpHistorySettings()
SIZE = (4, 8)


def latents(frames: int, batch: int = 1, seed: int = 0) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 16, frames, *SIZE, generator=source)


def visible(batch: int = 1, seed: int = 9) -> Tensor:
    return torch.rand(batch, 9, *SIZE, generator=torch.Generator().manual_seed(seed))


def bands(history: History) -> list[HistoryBand]:
    found = (history.long, history.mid, history.short)
    return [band for band in found if band is not None]


def test_the_still_latent_counts_only_while_nothing_else_exists() -> None:
    still, finished = latents(1, seed=1), latents(9, seed=2)
    first, _ = warped_history(latents(1), still, latents(9), visible(), settings=DEFAULT)
    assert first.short is not None
    assert torch.equal(first.short.latents[:, :, 1:2], still)
    past = torch.cat((still, finished), dim=2)
    second, _ = warped_history(latents(1), past, latents(9), visible(), settings=DEFAULT)
    assert second.long is not None
    assert second.long.visible is not None
    # 9 finished latents: 6 in the long band, 2 in mid, 1 in short; the still one is gone.
    assert second.long.visible[0, :, 0, 0].tolist() == [0.0] * 10 + [1.0] * 6
    assert torch.equal(second.long.latents[:, :, 10:], finished[:, :, :6])
    kept, _ = warped_history(
        latents(1), past, latents(9), visible(), settings=DEFAULT, still_start=False
    )
    assert kept.long is not None
    assert torch.equal(kept.long.latents[:, :, 9:], past[:, :, :7])


def test_without_a_short_window_the_still_latent_is_not_shown() -> None:
    for sizes in ((0, 2, 0), (0, 0, 0), (8, 2, 0)):
        history, _ = warped_history(
            latents(1),
            latents(1, seed=1),
            latents(9),
            visible(),
            settings=WarpHistorySettings(prev_sizes=sizes),
        )
        for band in (history.long, history.mid):
            assert band is None or float(band.latents.abs().max()) == 0.0


@settings(deadline=None, max_examples=20)
@given(frames=st.integers(0, 30), sizes=st.sampled_from([(16, 2, 1), (8, 2, 1), (16, 0, 1)]))
def test_only_the_newest_latents_count(frames: int, sizes: tuple[int, int, int]) -> None:
    """What a rollout knows (all of it) and a training clip (its newest part) pack alike."""
    past = latents(frames, seed=3)
    options = WarpHistorySettings(prev_sizes=sizes)
    cut = past[:, :, max(0, frames - sum(sizes)) :]
    whole = warped_history(
        latents(1), past, latents(9), visible(), settings=options, still_start=False
    )
    part = warped_history(
        latents(1), cut, latents(9), visible(), settings=options, still_start=False
    )
    assert torch.equal(whole[1], part[1])
    for one, other in zip(bands(whole[0]), bands(part[0]), strict=True):
        assert torch.equal(one.latents, other.latents)
        assert torch.equal(one.indices, other.indices)
        assert one.visible is not None
        assert other.visible is not None
        assert torch.equal(one.visible, other.visible)


def test_a_training_batch_equals_single_inference_calls() -> None:
    prefix, past, warp, seen = latents(1, 3), latents(12, 3, 1), latents(9, 3, 2), visible(3)
    together, target = warped_history(prefix, past, warp, seen, settings=DEFAULT)
    for i in range(3):
        row = slice(i, i + 1)
        alone, alone_target = warped_history(
            prefix[row], past[row], warp[row], seen[row], settings=DEFAULT
        )
        assert torch.equal(target[row], alone_target)
        for batched, single in zip(bands(together), bands(alone), strict=True):
            assert torch.equal(batched.latents[row], single.latents)
            assert torch.equal(batched.indices[row], single.indices)
            assert batched.visible is not None
            assert single.visible is not None
            assert torch.equal(batched.visible[row], single.visible)


def test_unaligned_target_follows_the_warp() -> None:
    _, target = warped_history(
        latents(1), None, latents(9), visible(), settings=replace(DEFAULT, align=False)
    )
    assert target.tolist() == [list(range(29, 38))]


def test_no_selection_means_no_masks_and_no_threshold() -> None:
    history, _ = warped_history(
        latents(1), None, latents(9), visible(), settings=replace(DEFAULT, select=False)
    )
    assert history.threshold is None
    assert all(band.visible is None for band in bands(history))


@pytest.mark.parametrize(("level", "kept"), [(0.25, True), (0.2499, False), (1.0, True)])
def test_threshold_is_inclusive(level: float, kept: bool) -> None:
    seen = torch.full((1, 9, *SIZE), level)
    history, _ = warped_history(
        latents(1), None, latents(9), seen, settings=replace(DEFAULT, threshold=0.25)
    )
    assert history.short is not None
    assert history.short.visible is not None
    assert history.threshold == 0.25
    tokens = kept_tokens(history.short.visible, (1, 2, 2), 0.25)[0]
    per_frame = SIZE[0] * SIZE[1] // 4
    # Anchor: always; the missing past: never; the warp: by its level.
    assert bool(tokens[:per_frame].all())
    assert not bool(tokens[per_frame : 2 * per_frame].any())
    assert bool((tokens[2 * per_frame :] == kept).all())


def test_efficient_variant_moves_the_warp_to_the_mid_band() -> None:
    past, warp, seen = latents(19, seed=4), latents(9, seed=5), visible()
    history, _ = warped_history(
        latents(1),
        past,
        warp,
        seen,
        settings=replace(DEFAULT, mode="patch_mid"),
        still_start=False,
    )
    assert history.short is not None
    assert history.mid is not None
    assert history.short.indices.tolist() == [[0, 19]]
    assert history.mid.indices.tolist() == [[17, 18, *range(20, 29)]]
    assert torch.equal(history.mid.latents, torch.cat((past[:, :, 16:18], warp), dim=2))
    assert history.mid.visible is not None
    assert torch.equal(history.mid.visible[:, 2:], seen)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prev_sizes": (17, 2, 1)}, "exceed"),
        ({"prev_sizes": (1, -1, 1)}, "none of them negative"),
        ({"prev_sizes": (16, 2, 1), "total_sizes": (8, 2, 1)}, "hold more latents"),
        ({"threshold": 1.5}, "lies outside"),
        ({"mode": "long"}, "warp mode 'long' is unknown"),
        ({"position": "future"}, "warp position 'future' is unknown"),
    ],
)
def test_bad_settings(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        WarpHistorySettings(**options)


def test_bad_material() -> None:
    with pytest.raises(InputError, match="visibility_to_latent first"):
        warped_history(latents(1), None, latents(9), torch.ones(1, 33, 32, 64), settings=DEFAULT)
    with pytest.raises(InputError, match="does not fit latents"):
        warped_history(
            latents(1), torch.zeros(1, 16, 5, 2, 2), latents(9), visible(), settings=DEFAULT
        )
    with pytest.raises(InputError, match="frame index -1"):
        warped_history(latents(1), None, latents(9), visible(), settings=replace(DEFAULT, delta=21))
