"""Which tensors each part must have, from its configuration: networks are built without memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn

from flythrough.errors import WeightsError
from flythrough.models.catalog import ST_DIFF_CLASS
from flythrough.models.headers import StoredTensor
from flythrough.models.monocular_files import DEPTH_CLASSES

Config = dict[str, Any]


@dataclass(frozen=True)
class Expected:
    """The state dict of a network.

    Attributes:
        shapes: by name, in the network's order.
        integers: names of tensors that hold no floating-point numbers.
        shared: groups of names for one tensor; a file needs only one of each group.
        optional: names that the loader can do without.
        ignored: patterns of further names that the loader passes over.
    """

    shapes: dict[str, tuple[int, ...]]
    integers: frozenset[str] = frozenset()
    shared: tuple[frozenset[str], ...] = ()
    optional: frozenset[str] = frozenset()
    ignored: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """Numbers in all tensors, shared ones counted once."""
        twice = sum(prod(self.shapes[min(g)]) * (len(g) - 1) for g in self.shared)
        return sum(prod(shape) for shape in self.shapes.values()) - twice

    def missing(self, found: dict[str, StoredTensor]) -> list[str]:
        """Names that a file with these tensors lacks."""
        enough = {name for group in self.shared if group & found.keys() for name in group}
        needed = self.shapes.keys() - self.optional - enough
        return sorted(needed - found.keys())


def expected_tensors(part: str, config: Config) -> tuple[str, Expected]:
    """The class that ``config`` names, and the tensors its network has.

    ``part`` is ``transformer``, ``st_diff``, ``vae``, ``text_encoder``, ``geometry`` or ``depth``.

    Raises:
        WeightsError: the class is not one that Flythrough can use there, or the configuration does
            not describe a network of it.
    """
    name, module = meta_network(part, config)
    return name, _describe(module, part)


def meta_network(part: str, config: Config) -> tuple[str, nn.Module]:
    """Class name and network of a configuration, on the meta device: shapes without memory.

    Raises:
        WeightsError: as :func:`expected_tensors`.
    """
    makers = _MAKERS[part]
    name = _class_name(part, config)
    if name not in makers:
        raise WeightsError(
            f"the configuration describes a {name}, but the {part} must be a "
            f"{' or '.join(makers)}; use the folder of such a model"
        )
    try:
        with torch.device("meta"):
            return name, makers[name](config)
    except WeightsError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise WeightsError(
            f"the configuration describes no {name} ({' '.join(str(error).split())[:200]}); "
            "restore config.json"
        ) from error


def _class_name(part: str, config: Config) -> str:
    if part == "depth":
        kind = str(config.get("model_type", "unnamed network"))
        return DEPTH_CLASSES.get(kind, kind)
    if part != "text_encoder":
        return str(config.get("_class_name", "network without a class name"))
    is_umt5 = config.get("model_type") == "umt5"
    return "UMT5EncoderModel" if is_umt5 else str(config.get("model_type", "unnamed network"))


def _describe(module: nn.Module, part: str) -> Expected:
    state = module.state_dict(keep_vars=True)
    if part == "depth":
        state = _stored_names(module, state)
    groups: dict[int, set[str]] = {}
    for name, tensor in state.items():
        groups.setdefault(id(tensor), set()).add(name)
    ignored = getattr(module, "_keys_to_ignore_on_load_unexpected", None) or ()
    return Expected(
        shapes={name: tuple(tensor.shape) for name, tensor in state.items()},
        integers=frozenset(k for k, tensor in state.items() if not tensor.is_floating_point()),
        shared=tuple(frozenset(group) for group in groups.values() if len(group) > 1),
        optional=frozenset({"image_mean", "image_std"} if part == "geometry" else ()),
        ignored=tuple(ignored),
    )


def _stored_names(module: nn.Module, state: dict[str, Any]) -> dict[str, Any]:
    """The names in files of transformers, which may be older than those in its classes."""
    from transformers import PreTrainedModel
    from transformers.core_model_loading import revert_weight_conversion

    assert isinstance(module, PreTrainedModel)
    return dict(revert_weight_conversion(module, state))


def _helios(config: Config) -> nn.Module:
    from flythrough.models.helios import HeliosTransformer

    return HeliosTransformer.from_config(config)


def _st_diff(config: Config) -> nn.Module:
    from flythrough.models.st_diff import StDiff

    return StDiff.from_config(config)


def _taehv(config: Config) -> nn.Module:
    from flythrough.models.taehv import TAEHV
    from flythrough.models.taehv_config import config_from_dict

    return TAEHV(config_from_dict(config))


def _wan_codec(config: Config) -> nn.Module:
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan.from_config(config)


def _umt5(config: Config) -> nn.Module:
    from transformers import UMT5Config, UMT5EncoderModel

    return UMT5EncoderModel(UMT5Config.from_dict(config))


def _pi3x(config: Config) -> nn.Module:
    from flythrough.models.geometry_config import config_from_dict
    from flythrough.models.pi3x import Pi3X
    from flythrough.models.pi3x_config import Pi3XConfig

    return Pi3X(config_from_dict(Pi3XConfig, config))


def _ttt3r(config: Config) -> nn.Module:
    from flythrough.models.geometry_config import config_from_dict
    from flythrough.models.ttt3r import TTT3R
    from flythrough.models.ttt3r_config import TTT3RConfig

    return TTT3R(config_from_dict(TTT3RConfig, config))


def _depth(config: Config) -> nn.Module:
    from transformers import AutoConfig, AutoModelForDepthEstimation

    described = AutoConfig.for_model(**config)
    return AutoModelForDepthEstimation.from_config(described)


_MAKERS: dict[str, dict[str, Callable[[Config], nn.Module]]] = {
    "transformer": {"HeliosTransformer3DModel": _helios, ST_DIFF_CLASS: _st_diff},
    "st_diff": {ST_DIFF_CLASS: _st_diff},
    "vae": {"TAEHV": _taehv, "AutoencoderKLWan": _wan_codec},
    "text_encoder": {"UMT5EncoderModel": _umt5},
    "geometry": {"Pi3X": _pi3x, "TTT3R": _ttt3r},
    "depth": dict.fromkeys(DEPTH_CLASSES.values(), _depth),
}

PART_OF_CLASS: dict[str, str] = {
    name: part for part, names in _MAKERS.items() for name in names if part != "st_diff"
}
"""The part that a network of each class is; one beside a Helios is a transformer by itself."""
