"""Single calls of the denoiser: the three stages, our paths and diffusers' own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from flythrough.bench.sizes import Size
from flythrough.conditioning.history import native_history, target_indices
from flythrough.conditioning.warped_history import WarpHistorySettings, warped_history
from flythrough.models.helios import HeliosTransformer
from flythrough.models.history_tokens import History

STAGES = ("quarter", "half", "full")
Call = Callable[..., Tensor]


def latents(size: Size, frames: int, device: torch.device) -> Tensor:
    """Random [1,16,frames,h,w] at the full resolution."""
    return torch.randn(1, 16, frames, size.height // 8, size.width // 8, device=device)


def seen_share(share: float, frames: int, size: Size, device: torch.device) -> Tensor:
    """Visibility [1,frames,h,w] that leaves about ``share`` of the tokens: a band at the right is
    unseen, as behind a pan."""
    width = size.width // 16
    visible = torch.zeros(1, frames, size.height // 8, size.width // 8, device=device)
    visible[..., : 2 * round(share * width)] = 1
    return visible


def stage_inputs(
    net: HeliosTransformer,
    size: Size,
    stage: int,
    device: torch.device,
    kind: str = "native",
    share: float = 0.86,
    seed: int = 0,
) -> dict[str, Any]:
    """Arguments of one call: ``kind`` is text, native, warp or patch-mid; every ``seed`` has values
    of its own."""
    dtype = net.dtype
    torch.manual_seed(3 + seed)
    past: Tensor = latents(size, 0 if kind == "text" else 19, device)
    prefix = torch.zeros_like(latents(size, 1, device))
    history: History
    if kind in ("warp", "patch-mid"):
        settings = WarpHistorySettings(mode="short" if kind == "warp" else "patch_mid")
        visible = seen_share(share, 9, size, device)
        history, target = warped_history(
            latents(size, 1, device), past, latents(size, 9, device), visible, settings=settings
        )
    else:
        prefix = prefix if kind == "text" else latents(size, 1, device)
        history, target = native_history(past, prefix), target_indices(1, device=device)
    shrink = 2 ** (len(STAGES) - 1 - stage)
    noisy = latents(size, 9, device)[..., : size.height // 8 // shrink, : size.width // 8 // shrink]
    width = int(net.config["text_dim"])
    text = torch.randn(1, size.text_tokens, width, device=device)
    return {
        "hidden_states": noisy.to(dtype).contiguous(),
        "timestep": torch.tensor([640.0 - seed], device=device),
        "encoder_hidden_states": text.to(dtype),
        "indices_hidden_states": target.to(device),
        "history": history,
    }


def packed(net: HeliosTransformer, given: dict[str, Any]) -> dict[str, Any]:
    """The same with the history embedded once, as in a run."""
    return {**given, "history": net.pack_history(given["history"])}


def stock_denoiser(net: HeliosTransformer) -> Any:
    """diffusers' own transformer over the same weights, in the same memory."""
    from diffusers import HeliosTransformer3DModel

    with torch.device("meta"):
        stock = HeliosTransformer3DModel.from_config(dict(net.config))
    stock.load_state_dict(net.state_dict(), assign=True)
    rope = type(stock.rope)(rope_dim=net.config["rope_dim"], theta=net.config["rope_theta"])
    stock.rope = rope.to(net.device)
    return stock.eval().requires_grad_(False)


def stock_call(stock: Any, given: dict[str, Any]) -> Tensor:
    """diffusers' transformer on the arguments of ours; it has no visible-token selection."""
    history: History = given["history"]
    bands = {"short": history.short, "mid": history.mid, "long": history.long}
    extra: dict[str, Any] = {}
    for name, band in bands.items():
        assert band is not None
        extra[f"latents_history_{name}"] = band.latents.to(given["hidden_states"].dtype)
        extra[f"indices_latents_history_{name}"] = band.indices
    found: Tensor = stock(
        given["hidden_states"],
        given["timestep"],
        given["encoder_hidden_states"],
        indices_hidden_states=given["indices_hidden_states"],
        return_dict=False,
        **extra,
    )[0]
    return found


def relative_gap(found: Tensor, wanted: Tensor) -> float:
    """Root mean square of the difference over that of ``wanted``."""
    difference = (found.double() - wanted.double()).square().mean().sqrt()
    return float(difference / wanted.double().square().mean().sqrt())


def psnr(found: Tensor, wanted: Tensor) -> float:
    """Decibels, the peak being the span of ``wanted``."""
    error = (found.double() - wanted.double()).square().mean()
    span = wanted.double().max() - wanted.double().min()
    return float(10 * torch.log10(span.square() / error)) if error > 0 else float("inf")
