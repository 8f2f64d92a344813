"""A model folder becomes ready-to-run parts; every part is loaded strictly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from flythrough.disk import read_json
from flythrough.errors import WeightsError
from flythrough.models.catalog import ModelDefaults, ModelFolder
from flythrough.models.codec import load_codec
from flythrough.models.fast.denoiser import FastDenoiser
from flythrough.models.fast.st_diff import FastStDiff
from flythrough.models.helios import HeliosTransformer
from flythrough.models.placing import VisitingCodec, stream_layers
from flythrough.models.quiet import quiet_loading
from flythrough.models.st_diff import StDiff
from flythrough.models.text import PromptEncoder
from flythrough.models.wan_codec import Codec, load_any_codec

Placement = Literal["resident", "drop-text", "offload"]
"""``resident``: all weights on the device. ``drop-text``: the text encoder is streamed through the
device and dropped once the prompts are read. ``offload``: denoiser and text encoder stay in host
memory and are streamed layer by layer; the codec comes when it is used."""


@dataclass(frozen=True, eq=False, kw_only=True)
class LoadedParts:
    """The parts that every kind of model has, on one device.

    ``scheduler`` is the raw scheduler configuration; the sampling layer reads it.
    """

    folder: ModelFolder
    codec: Codec
    prompts: PromptEncoder
    scheduler: dict[str, Any]
    device: torch.device

    @property
    def defaults(self) -> ModelDefaults:
        return self.folder.defaults

    @property
    def streamed(self) -> bool:
        """Whether layers come from host memory, so that adapters can no longer be exchanged."""
        return isinstance(self.codec, VisitingCodec)


@dataclass(frozen=True, eq=False, kw_only=True)
class LoadedModel(LoadedParts):
    """A Helios-family model; ``fast`` is the denoiser's fast path where it is used.

    ``decodes_beside``: a GPU with memory for both decodes a chunk while it denoises the next.
    ``records``: calls that come back are recorded.
    """

    transformer: HeliosTransformer
    fast: FastDenoiser | None = None
    decodes_beside: bool = False
    records: bool = False

    @property
    def denoiser(self) -> HeliosTransformer | FastDenoiser:
        """What predicts velocities."""
        return self.transformer if self.fast is None else self.fast


@dataclass(frozen=True, eq=False, kw_only=True)
class LoadedStDiff(LoadedParts):
    """A WorldWarp model; ``fast`` is the denoiser's fast path where it is used."""

    transformer: StDiff
    fast: FastStDiff | None = None

    @property
    def denoiser(self) -> StDiff | FastStDiff:
        """What predicts velocities."""
        return self.transformer if self.fast is None else self.fast


def load_model(
    folder: ModelFolder,
    device: torch.device,
    dtype: torch.dtype,
    placement: Placement = "resident",
    *,
    codec: Path | None = None,
    codec_dtype: torch.dtype = torch.float32,
    denoiser_waits: bool = False,
) -> LoadedModel:
    """Load transformer, codec and text encoder of ``folder`` for work on ``device``.

    Transformer and text encoder run in ``dtype`` (the transformer's norms, tables and time
    embedding stay float32), the codec in ``codec_dtype``. With placement ``offload`` the
    transformer is left in host memory until :func:`stream_denoiser`, and with ``denoiser_waits``
    until its user takes it to the device. ``codec`` takes the place of the folder's own codec: a
    TAEHV folder or file.

    Raises:
        WeightsError: a part cannot be read or does not fit its configuration.
    """
    waits = denoiser_waits or placement == "offload"
    home = torch.device("cpu") if waits else device
    transformer = load_transformer(folder.path / "transformer", dtype, home)
    return LoadedModel(
        transformer=transformer.eval().requires_grad_(False),
        **_shared_parts(folder, device, dtype, placement, codec, codec_dtype),
    )


def load_st_diff_model(
    folder: ModelFolder,
    device: torch.device,
    dtype: torch.dtype,
    placement: Placement = "resident",
    *,
    codec_dtype: torch.dtype = torch.float32,
    denoiser_waits: bool = False,
) -> LoadedStDiff:
    """Like :func:`load_model` for the ST-Diff of ``folder``.

    Raises:
        WeightsError: there is none, or a part cannot be read or does not fit its configuration.
    """
    waits = denoiser_waits or placement == "offload"
    home = torch.device("cpu") if waits else device
    if folder.st_diff is None:
        raise WeightsError(
            f"The model {folder.name} holds no ST-Diff, which method worldwarp needs; use a folder "
            "whose transformer is a WanTransformer3DModel."
        )
    transformer = load_st_diff(folder.st_diff, dtype, home)
    return LoadedStDiff(
        transformer=transformer.eval().requires_grad_(False),
        **_shared_parts(folder, device, dtype, placement, None, codec_dtype),
    )


def _shared_parts(
    folder: ModelFolder,
    device: torch.device,
    dtype: torch.dtype,
    placement: Placement,
    codec: Path | None,
    codec_dtype: torch.dtype,
) -> dict[str, Any]:
    streamed = placement == "offload"
    home = torch.device("cpu") if streamed else device
    loaded: Codec
    if codec is None:
        loaded = load_any_codec(folder.path / "vae", home, codec_dtype)
    else:
        loaded = load_codec(codec, device=home, dtype=codec_dtype)
    return {
        "folder": folder,
        "codec": VisitingCodec(loaded, device) if streamed else loaded,
        "prompts": PromptEncoder.from_folder(
            folder.path, device=device, dtype=dtype, keep=placement == "resident"
        ),
        "scheduler": _read_scheduler(folder.path / "scheduler" / "scheduler_config.json"),
        "device": device,
    }


def stream_denoiser(model: LoadedModel | LoadedStDiff) -> None:
    """Finish placement ``offload``, once every adapter is attached."""
    stream_layers(model.transformer, model.device, prefetch=True)


def load_transformer(
    folder: Path, dtype: torch.dtype, device: torch.device | None = None
) -> HeliosTransformer:
    """The denoiser of a diffusers folder, whole or sharded; onto a GPU without a copy in host
    memory."""
    loaded: HeliosTransformer = _loaded(HeliosTransformer, folder, dtype, device)
    return loaded


def load_st_diff(folder: Path, dtype: torch.dtype, device: torch.device | None = None) -> StDiff:
    """The ST-Diff of a diffusers folder, as :func:`load_transformer`."""
    loaded: StDiff = _loaded(StDiff, folder, dtype, device)
    return loaded


def _loaded(kind: Any, folder: Path, dtype: torch.dtype, device: torch.device | None) -> Any:
    there = {"device_map": {"": str(device)}} if device and device.type == "cuda" else {}
    try:
        with quiet_loading():
            loaded, found = kind.from_pretrained(
                folder,
                torch_dtype=dtype,
                local_files_only=True,
                output_loading_info=True,
                **there,
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"The denoiser in {folder} cannot be loaded ({' '.join(str(error).split())[:200]}); "
            "check the folder or download it again."
        ) from error
    if found["missing_keys"]:
        lost = sorted(found["missing_keys"])
        raise WeightsError(
            f"The denoiser in {folder} lacks {len(lost)} tensors, such as {lost[0]}; check the "
            "folder or download it again."
        )
    if device is not None and not there:
        torch.nn.Module.to(loaded, device)
    return loaded


def _read_scheduler(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read ({error}); restore the file.") from error
    except TypeError as error:
        raise WeightsError(f"{path} holds no JSON object; restore the file.") from error
