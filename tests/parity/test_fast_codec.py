"""The Wan codec that takes many latents at a time gives the numbers of diffusers' own."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from flythrough.engine.acceleration import announce_plain_codec
from flythrough.models.accounting import needed_by, weight_bytes
from flythrough.models.fast.settings import CodecSettings
from flythrough.models.fast.wan_codec import FastWanCodec
from flythrough.models.fast.wan_network import why_not_codec
from flythrough.models.wan_codec import WanCodec, codec_of, load_any_codec, wan_codec

HEIGHT, WIDTH = 32, 48


def network(width: int = 8, **config: Any) -> Any:
    """diffusers' autoencoder with weights that leave nothing at zero or one."""
    from diffusers import AutoencoderKLWan

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net: Any = AutoencoderKLWan(base_dim=width, **config).eval().requires_grad_(False)
        for parameter in net.parameters():
            if parameter.ndim == 1:
                parameter.normal_(0, 0.3)
            elif parameter[0].numel() == 1:
                parameter.normal_(1, 0.3)
    return net


@pytest.fixture(scope="module")
def net() -> Any:
    return network()


def draw(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(5))


def gaps(plain: WanCodec, fast: WanCodec, latents: int, batch: int = 1) -> tuple[float, float]:
    """Largest difference of decoded pixels and of encoded latents."""
    z = 2 * draw(batch, 16, latents, HEIGHT // 8, WIDTH // 8) - 1
    video = draw(batch, 3, 4 * latents - 3, HEIGHT, WIDTH)
    ours, stock = fast.decode(z), plain.decode(z)
    found, wanted = fast.encode(video), plain.encode(video)
    assert ours.shape == stock.shape
    assert found.shape == wanted.shape
    return float((ours - stock).abs().max()), float((found - wanted).abs().max())


@pytest.mark.parametrize("latents", [1, 2, 9])
@pytest.mark.parametrize("folded", [0, 16, 1000])
def test_equals_diffusers(net: Any, latents: int, folded: int) -> None:
    """One, two and nine latents; convolutions over space and time, or of frames side by side."""
    fast = FastWanCodec(net, torch.float32, CodecSettings(folded=folded))
    assert max(gaps(WanCodec(net), fast, latents, batch=2 if latents == 2 else 1)) < 1e-5


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("folded", [0, 1000])
def test_passes_of_any_length_give_the_same(net: Any, count: int, folded: int) -> None:
    settings = CodecSettings(folded=folded, latents_per_pass=count)
    assert max(gaps(WanCodec(net), FastWanCodec(net, torch.float32, settings), 9)) < 1e-5


def test_equals_diffusers_at_the_widths_of_the_published_one() -> None:
    """Two sizes of decoder and encoder width, and blocks of another depth."""
    net = network(16, decoder_base_dim=24, num_res_blocks=1)
    assert max(gaps(WanCodec(net), FastWanCodec(net, torch.float32), 2)) < 1e-5


@pytest.mark.parametrize(("dtype", "least"), [(torch.float16, 55.0), (torch.bfloat16, 40.0)])
def test_half_precision_is_near(net: Any, dtype: torch.dtype, least: float) -> None:
    plain, fast = WanCodec(net), FastWanCodec(net, dtype)
    z = 2 * draw(1, 16, 3, HEIGHT // 8, WIDTH // 8) - 1
    wanted, found = plain.decode(z), fast.decode(z)
    assert found.dtype == torch.float32
    assert -10 * torch.log10((found - wanted).square().mean()) > least
    video = draw(1, 3, 5, HEIGHT, WIDTH)
    torch.testing.assert_close(fast.encode(video), plain.encode(video), atol=0.02, rtol=0.02)


def test_what_float16_cannot_hold_saturates() -> None:
    """Weights that drive the residual stream beyond 65504 give finite pixels."""
    wild = network()
    for block in wild.decoder.mid_block.resnets:
        block.conv2.bias.fill_(4e5)
    assert FastWanCodec(wild, torch.float16).decode(draw(1, 16, 2, 4, 6)).isfinite().all()


def test_still_and_wrong_lengths_are_as_before(net: Any) -> None:
    from flythrough.errors import InputError

    plain, fast = WanCodec(net), FastWanCodec(net, torch.float32)
    image = draw(1, 3, 1, HEIGHT, WIDTH)
    torch.testing.assert_close(
        fast.encode_still(image), plain.encode_still(image), atol=1e-5, rtol=0
    )
    assert (fast.latent_channels, fast.spatial, fast.temporal) == (16, 8, 4)
    with pytest.raises(InputError, match="one more than a multiple of 4"):
        fast.encode(draw(1, 3, 4, HEIGHT, WIDTH))


def test_other_autoencoders_are_told_apart(net: Any) -> None:
    assert why_not_codec(net) is None
    patched = network(8, patch_size=2, in_channels=12, out_channels=12)
    assert "patches" in str(why_not_codec(patched))
    assert "Wan 2.2" in str(why_not_codec(network(8, is_residual=True)))


def published(folded: int) -> FastWanCodec:
    """The shapes of the published codec in float16."""
    from diffusers import AutoencoderKLWan

    with torch.device("meta"):
        net: Any = AutoencoderKLWan().eval().requires_grad_(False)
    half = torch.nn.Module.to(net, torch.float16)
    return FastWanCodec(half, torch.float16, CodecSettings(folded=folded))


def activations(codec: FastWanCodec) -> tuple[float, float]:
    """GiB foretold to decode and to encode a chunk of 384x640, input and result included."""
    decode = needed_by(lambda: codec.decode(torch.empty(1, 16, 9, 48, 80)), [codec.net])
    encode = needed_by(lambda: codec.encode(torch.empty(1, 3, 33, 384, 640)), [codec.net])
    return decode.peak_bytes / 2**30, encode.peak_bytes / 2**30


@pytest.mark.parametrize("folded", [0, 96])
def test_a_pass_is_bounded_by_frames_and_memory(
    folded: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole chunks on large cards, fewer latents on smaller ones or of larger frames, never none;
    a pass keeps to the eighth of the card that it may take."""
    codec, counts = published(folded), {}
    for card in (16, 24, 40, 80, 140):
        monkeypatch.setattr(codec, "_budget", lambda card=card: card / 8 * 2**30)
        counts[card] = codec.latents_per_pass(384, 640)
        if card > 16:
            assert max(activations(codec)) < card / 8
    assert counts[140] >= counts[80] >= 9 > counts[40] > counts[24] > counts[16] == 1
    assert codec.latents_per_pass(2160, 3840) == 1
    assert codec.latents_per_pass(192, 320) > counts[140]


@pytest.mark.parametrize(("folded", "decode", "encode"), [(0, 4.52, 4.73), (96, 7.33, 7.53)])
def test_activations_are_foretold_as_measured(
    folded: int, decode: float, encode: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GiB that PyTorch allocated on an H200 for nine latents in one pass, weights apart and the
    matrix library's workspace included: folded frames count, and kernels that keep channels last
    need no copies."""
    codec = published(folded)
    monkeypatch.setattr(codec, "_budget", lambda: 17.5 * 2**30)
    assert activations(codec) == pytest.approx((decode, encode), rel=0.04)


def test_a_folder_opens_in_the_type_asked_for(net: Any, tmp_path: Path) -> None:
    """float32 is diffusers' own layers; half precision the fast ones where they can."""
    network().save_pretrained(tmp_path)
    cpu = torch.device("cpu")
    plain, fast = (load_any_codec(tmp_path, cpu, t) for t in (torch.float32, torch.bfloat16))
    assert type(plain) is WanCodec
    assert isinstance(fast, FastWanCodec)
    z = draw(1, 16, 2, 4, 6)
    torch.testing.assert_close(plain.decode(z), WanCodec(net).decode(z))
    torch.testing.assert_close(fast.decode(z), plain.decode(z), atol=0.05, rtol=0)
    said: list[str] = []
    announce_plain_codec(fast, said.append)
    announce_plain_codec(plain, said.append)
    assert not said
    announce_plain_codec(wan_codec(network(is_residual=True), torch.bfloat16), said.append)
    assert said == [
        "the video codec takes the plain path, because its blocks have averaging shortcuts (Wan "
        "2.2)."
    ]


def test_memory_is_foretold_for_the_layers_that_run() -> None:
    """Half precision has half the weights; a pass of all latents shows in the peak."""
    from diffusers import AutoencoderKLWan

    needs = []
    for dtype in (torch.float32, torch.float16):
        with torch.device("meta"):
            net: Any = AutoencoderKLWan(base_dim=8).eval().requires_grad_(False)
        codec = codec_of(torch.nn.Module.to(net, dtype), dtype)
        assert isinstance(codec, FastWanCodec) == (dtype == torch.float16)
        latents = torch.empty(1, 16, 9, 8, 8, device="meta")
        need = needed_by(partial(codec.decode, latents), [codec.net])
        needs.append((weight_bytes(codec.net), need.peak_bytes, need.flops))
    (wide, _, all_products), (half, peak, fewer_products) = needs
    assert 0.45 < half / wide < 0.55
    assert peak > 2.5 * 8 * 33 * 64 * 64 * 2
    assert 0.85 < fewer_products / all_products < 1
