"""Visibility on the latent grid, and the noise of conditions."""

from __future__ import annotations

import pytest
import torch

from flythrough.conditioning.warped_history import (
    draw_condition_noise,
    noised,
    visibility_to_latent,
)
from flythrough.errors import InputError


def frames_numbered(count: int) -> torch.Tensor:
    """Masks whose value tells the frame: [1,count,16,32]."""
    return (torch.arange(count) / 100).view(1, count, 1, 1).expand(1, count, 16, 32).clone()


def test_every_fourth_frame() -> None:
    reduced = visibility_to_latent(frames_numbered(33), (2, 4))
    assert reduced.shape == (1, 9, 2, 4)
    expected = torch.arange(0, 33, 4) / 100
    torch.testing.assert_close(reduced[0, :, 0, 0], expected)


def test_boundary_frame_is_dropped_but_kept_by_the_reference() -> None:
    clip = frames_numbered(34)
    ours = visibility_to_latent(clip, (2, 4))
    torch.testing.assert_close(ours, visibility_to_latent(clip[:, 1:], (2, 4)))
    published = visibility_to_latent(clip, (2, 4), reference=True)
    torch.testing.assert_close(published, visibility_to_latent(clip[:, :33], (2, 4)))


def test_shapes_and_types() -> None:
    clip = frames_numbered(33)
    with_channel = visibility_to_latent(clip[:, None], (2, 4))
    assert torch.equal(with_channel, visibility_to_latent(clip, (2, 4)))
    assert visibility_to_latent(clip > 0.1, (2, 4)).dtype == torch.float32
    assert visibility_to_latent(clip[:, :1], (2, 4)).shape == (1, 1, 2, 4)
    assert float(visibility_to_latent(clip * 10, (2, 4)).max()) == 1.0


def test_resizing_is_bilinear_between_the_two_middle_pixels() -> None:
    clip = torch.zeros(1, 1, 8, 8)
    clip[0, 0, 3:5, 3:5] = 1.0
    assert visibility_to_latent(clip, (1, 1)).item() == 1.0


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (torch.zeros(1, 32, 8, 8), "32 frames"),
        (torch.zeros(1, 35, 8, 8), "35 frames"),
        (torch.zeros(1, 33, 8, 8, dtype=torch.uint8), "divide 8-bit masks by 255"),
        (torch.zeros(33, 8, 8), "is needed"),
    ],
)
def test_bad_clips(clip: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        visibility_to_latent(clip, (1, 1))


def test_drawn_noise_depends_on_the_generator_alone() -> None:
    shape = (2, 16, 9, 4, 8)
    sigma, noise = draw_condition_noise(shape, torch.Generator().manual_seed(3), (0.2, 0.4))
    again, _ = draw_condition_noise(shape, torch.Generator().manual_seed(3), (0.2, 0.4))
    assert torch.equal(sigma, again)
    assert sigma.shape == (2, 1, 9, 1, 1)
    assert noise.shape == shape
    assert float(sigma.min()) >= 0.2
    assert float(sigma.max()) <= 0.4
    assert sigma.unique().numel() == 18


def test_noised_takes_levels_in_any_form() -> None:
    latents, noise = torch.randn(2, 16, 3, 2, 2), torch.randn(2, 16, 3, 2, 2)
    level = torch.tensor([0.0, 0.5, 1.0])
    mixed = noised(latents, level, noise)
    assert torch.equal(mixed[:, :, 0], latents[:, :, 0])
    assert torch.equal(mixed[:, :, 2], noise[:, :, 2])
    assert torch.equal(noised(latents, level.expand(2, 3), noise), mixed)
    assert torch.equal(noised(latents, level[None, None, :, None, None], noise), mixed)
    assert torch.equal(noised(latents, 0.0, noise), latents)


@pytest.mark.parametrize("limits", [(0.3, 0.2), (-0.1, 0.2), (0.5, 1.5)])
def test_bad_limits(limits: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="is not a range"):
        draw_condition_noise((1, 16, 1, 2, 2), torch.Generator(), limits)
