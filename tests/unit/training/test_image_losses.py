"""Picture losses: what the loss on colour sees and what it ignores."""

from __future__ import annotations

import pytest
import torch

from flythrough.training.image_losses import chroma


def test_greys_have_no_chroma() -> None:
    greys = torch.linspace(0, 1, 11).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    found = chroma(greys)
    assert found.shape == (11, 2, 2, 2)
    assert found.abs().max() < 1e-6


def test_chroma_ignores_brightness_and_sees_green_against_magenta() -> None:
    picture = 0.4 + 0.2 * torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(chroma(picture + 0.1), chroma(picture))
    # 0.299 r + 0.587 g + 0.114 b stays: what red and blue gain, green loses.
    shift = torch.tensor([0.587, -(0.299 + 0.114), 0.587]).view(3, 1, 1) * 0.1
    luma = torch.tensor([0.299, 0.587, 0.114])
    assert float(torch.tensordot(luma, shift[:, 0, 0], 1)) == pytest.approx(0, abs=1e-7)
    moved = (chroma(picture + shift) - chroma(picture)).mean((0, 2, 3))
    torch.testing.assert_close(moved, torch.tensor([0.0587 / 1.772, 0.0587 / 1.402]))


def test_pure_colours_span_the_range() -> None:
    blue, yellow, red, cyan = chroma(
        torch.tensor([[0.0, 0, 1], [1, 1, 0], [1, 0, 0], [0, 1, 1]])[..., None, None]
    )[..., 0, 0]
    assert [float(blue[0]), float(yellow[0])] == pytest.approx([0.5, -0.5])
    assert [float(red[1]), float(cyan[1])] == pytest.approx([0.5, -0.5])
