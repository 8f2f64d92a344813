"""Published TAEHV weights: which configuration they are for, and fitting them to a network."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from flythrough.errors import WeightsError
from flythrough.models.taehv import TAEHV
from flythrough.models.taehv_config import Flags, TAEHVConfig
from flythrough.models.taehv_layers import TGrow


def fit_state_dict(model: TAEHV, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """``state`` for ``model``: frame-splitting weights with too many rows keep their last ones.

    This is how the published weights serve preview decoders with fewer frames a latent. Raises
    WeightsError naming the keys that are missing, unknown or of another shape.
    """
    wanted = model.state_dict()
    fitted = dict(state)
    for name, layer in model.named_modules():
        key = f"{name}.conv.weight"
        if isinstance(layer, TGrow) and key in fitted:
            fitted[key] = fitted[key][-layer.conv.out_channels :]
    missing = sorted(wanted.keys() - fitted.keys())
    unknown = sorted(fitted.keys() - wanted.keys())
    shapes = [k for k in wanted.keys() & fitted.keys() if wanted[k].shape != fitted[k].shape]
    for fault, keys in (("misses", missing), ("has unknown", unknown), ("has misshaped", shapes)):
        if keys:
            raise WeightsError(
                f"the codec's weight file {fault} {', '.join(sorted(keys)[:4])} "
                f"({len(keys)} in all) for its configuration; use weights and config.json of one "
                "and the same codec"
            )
    return fitted


def infer_config(state: dict[str, Tensor]) -> TAEHVConfig:
    """The configuration that published weights (no config file) were made for, from their shapes.

    Framing cannot be seen in shapes and is left at "standard"; use ``dataclasses.replace`` for the
    CogVideoX and H3 files.
    """
    try:
        width = state["encoder.0.weight"].shape[0]
        config = TAEHVConfig(
            patch_size=round((state["encoder.0.weight"].shape[1] / 3) ** 0.5),
            latent_channels=state["encoder.17.weight"].shape[0],
            encoder_width=width,
            encoder_time_downscale=_flags(state, "encoder", (2, 7, 12), axis=1),
        )
        if "decoder.0.weight" in state:
            widths = (1, 8, 15)
            own = [state[f"decoder.{i}.conv.3.weight"].shape[0] for i in widths]
            last = state["decoder.22.weight"].shape[1]
            up = _flags(state, "decoder", (7, 14, 21), axis=0)
        else:
            own = [state[f"decoder.{i}.conv.4.weight"].shape[0] for i in (3, 9, 15)]
            last = state["decoder.22.weight"].shape[1]
            up = _flags(state, "decoder", (7, 13, 19), axis=0)
    except KeyError as error:
        raise WeightsError(
            f"the weight file has no {error.args[0]}, so it is no TAEHV codec; give a file of "
            "madebyollin/taehv or a codec folder with a config.json"
        ) from error
    return replace(
        config,
        decoder_widths=(own[0], own[1], own[2], last),
        decoder_time_upscale=up,
        variant="super" if "decoder.0.weight" in state else "base",
    )


def _flags(state: dict[str, Tensor], side: str, at: tuple[int, int, int], axis: int) -> Flags:
    found = [state[f"{side}.{i}.conv.weight"].shape for i in at]
    first, second, third = (shape[axis] > shape[1 - axis] for shape in found)
    return first, second, third
