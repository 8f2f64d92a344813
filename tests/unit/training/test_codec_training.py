"""The codec's training: what is asked for enters the loss, what is kept does not learn."""

from __future__ import annotations

import pytest
import torch

from flythrough.models.taehv import TAEHV
from flythrough.models.taehv_config import TAEHVConfig
from flythrough.training.codec import CodecSettings, CodecTask

TINY = TAEHVConfig(latent_channels=4, encoder_width=8, decoder_widths=(8, 8, 8, 8))


@pytest.mark.parametrize("detail", [0.0, 0.5])
@pytest.mark.parametrize("keep_encoder", [False, True])
def test_detail_and_kept_encoder(detail: float, keep_encoder: bool) -> None:
    torch.manual_seed(1)
    net = TAEHV(TINY)
    settings = CodecSettings(
        size=(32, 32), view=(32, 32), frames=5, batch=1, detail=detail, keep_encoder=keep_encoder
    )
    video = torch.rand(1, 3, 5, 32, 32, generator=torch.Generator().manual_seed(5))
    losses = CodecTask(net, settings, lambda *_: video, None, {}).loss(0, 0)
    losses["total"].backward()
    assert ("detail" in losses) == bool(detail)
    assert all((p.grad is None) == keep_encoder for p in net.encoder.parameters())
    assert all(p.grad is not None for p in net.decoder.parameters())
