"""The critic of patches: whom its losses train, and a codec run with it that stops and goes on."""

from __future__ import annotations

import torch
from torch import nn

from flythrough.models.taehv import TAEHV
from flythrough.models.taehv_config import TAEHVConfig
from flythrough.training.codec import CodecSettings, CodecTask
from flythrough.training.patch_critic import PatchCritic, adversarial_losses, balance

TINY = TAEHVConfig(latent_channels=4, encoder_width=8, decoder_widths=(8, 8, 8, 8))


def pictures(seed: int) -> torch.Tensor:
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(seed))


def test_each_loss_trains_its_own_side() -> None:
    critic = PatchCritic(width=8)
    made = pictures(1).requires_grad_(True)
    losses = adversarial_losses(critic, made, pictures(2))
    weights = list(critic.parameters())
    grads = torch.autograd.grad(
        losses["adversarial"] + losses["features"], [made, *weights], allow_unused=True
    )
    assert grads[0] is not None
    assert grads[0].abs().sum() > 0
    assert all(g is None for g in grads[1:])
    grads = torch.autograd.grad(losses["critic"], [made, *weights], allow_unused=True)
    assert grads[0] is None
    assert all(g is not None for g in grads[1:])


def test_a_critic_learns_to_tell_soft_pictures() -> None:
    torch.manual_seed(0)
    critic = PatchCritic(width=8)
    optimizer = torch.optim.Adam(critic.parameters(), lr=2e-3)
    soft = nn.functional.avg_pool2d(pictures(3), 5, stride=1, padding=2)
    for _ in range(40):
        loss = adversarial_losses(critic, soft, pictures(3))["critic"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.2
    assert critic(pictures(4), pictures(4))[1].mean() > critic(soft, pictures(3))[1].mean()


def test_the_balance_makes_both_gradients_equally_long() -> None:
    layer = torch.tensor([1.0, 2.0], requires_grad=True)
    factor = balance((3 * layer).sum(), (0.5 * layer).sum(), layer)
    assert abs(float(factor) - 6) < 1e-5
    assert not factor.requires_grad
    assert float(balance((3 * layer).sum(), (1e-9 * layer).sum(), layer)) == 10


def test_with_the_encoder_kept_the_decoder_and_the_critic_learn() -> None:
    torch.manual_seed(1)
    net = TAEHV(TINY)
    settings = CodecSettings(
        size=(32, 32), view=(32, 32), frames=5, batch=1, adversarial=0.5, keep_encoder=True
    )
    video = torch.rand(1, 3, 5, 32, 32, generator=torch.Generator().manual_seed(5))
    task = CodecTask(net, settings, lambda *_: video, None, {})
    losses = task.loss(0, 0)
    losses["total"].backward()
    assert {"critic", "adversarial", "features", "balance"} <= set(losses)
    assert all(p.grad is None for p in net.encoder.parameters())
    assert all(p.grad is not None for p in net.decoder.parameters())
    assert all(p.grad is not None for p in task.modules["critic"].parameters())
