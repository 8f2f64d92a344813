"""Picture losses: what the loss on colour sees and what it ignores."""

from __future__ import annotations

import pytest
import torch

from flythrough.training.image_losses import chroma, detail_loss, detail_ratio


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


def test_detail_is_about_its_amount_and_not_about_its_phase() -> None:
    source = torch.Generator().manual_seed(2)
    rough, other = torch.rand(2, 2, 3, 48, 64, generator=source)
    soft = torch.nn.functional.avg_pool2d(rough, 5, stride=1, padding=2)
    assert float(detail_loss(rough, rough)) == 0
    assert float(detail_loss(other, rough)) < 0.25
    assert float(detail_loss(soft, rough)) > 4 * float(detail_loss(other, rough))
    assert detail_ratio(soft, rough) < 0.3
    assert 0.95 < detail_ratio(other, rough) < 1.05


def test_detail_can_be_asked_for() -> None:
    source = torch.Generator().manual_seed(3)
    truth = torch.rand(1, 3, 32, 32, generator=source)
    made = (0.5 + 0.1 * torch.rand(1, 3, 32, 32, generator=source)).requires_grad_(True)
    optimizer = torch.optim.Adam([made], lr=0.02)
    first = float(detail_loss(made, truth).detach())
    for _ in range(40):
        loss = detail_loss(made, truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.3 * first
