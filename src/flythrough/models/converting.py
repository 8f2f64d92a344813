"""Pickled weights become safetensors: tensors only, no code of the file is run."""

from __future__ import annotations

import argparse
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from flythrough.disk import replacing
from flythrough.errors import WeightsError

_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Converted:
    """What was written.

    ``wrapper`` names the entry that held the tensors ("" for the file itself), ``left_out`` the
    entries beside it, ``separated`` the tensors that shared memory with another and got their own.
    """

    output: Path
    tensors: int
    bytes: int
    wrapper: str
    left_out: tuple[str, ...]
    separated: tuple[str, ...]


def convert(source: Path, output: Path | None = None, key: str | None = None) -> Converted:
    """Write the tensors of a ``.pt``, ``.pth``, ``.bin`` or ``.ckpt`` file as safetensors.

    Args:
        output: replaced whole; by default a new file beside ``source``.
        key: which entry holds the tensors, where there are several.

    Raises:
        WeightsError: the source is no file of tensors, or the target cannot be used.
    """
    target = _target(source, output)
    state, wrapper, left_out = _tensors(_unpickled(source), source, key)
    separated = _own_memory(state)
    metadata = {"format": "pt", "converted_from": source.name}
    if wrapper:
        metadata["converted_entry"] = wrapper
    try:
        with replacing(target) as partial:
            save_file(state, partial, metadata=metadata)
            partial.chmod(0o644)
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        raise WeightsError(
            f"{target} cannot be written ({' '.join(str(error).split())[:200]}); choose another "
            "place or other weights."
        ) from error
    size = sum(t.numel() * t.element_size() for t in state.values())
    return Converted(target, len(state), size, wrapper, left_out, separated)


def _target(source: Path, output: Path | None) -> Path:
    if not source.is_file():
        raise WeightsError(f"There is no file {source}; give the path of pickled weights.")
    if source.suffix.lower() == _SUFFIX:
        raise WeightsError(f"{source} is a safetensors file already; use it as it is.")
    target = source.with_suffix(_SUFFIX) if output is None else output
    if target.suffix.lower() != _SUFFIX:
        raise WeightsError(f"The output {target} must end in {_SUFFIX}; rename it.")
    if target.is_dir() or not target.absolute().parent.is_dir():
        raise WeightsError(
            f"{target} cannot be written, because it is a folder or lies in a folder that does not "
            "exist; name a file in an existing folder."
        )
    if output is None and target.exists():
        raise WeightsError(f"{target} exists; name the output with -o to replace it.")
    return target


def _unpickled(source: Path) -> Any:
    try:
        # Mapped, not read: a file may be larger than memory.
        mapped = zipfile.is_zipfile(source)
        # Trainers often keep their options beside the tensors: a plain record, which runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{source} holds more than tensors and plain values, or is no file of weights, and is "
            "not opened because that could run code; ask its author for safetensors."
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{source} is not a readable file of weights ({' '.join(str(error).split())[:160]}); "
            "download it again."
        ) from error


def _tensors(
    loaded: object, source: Path, key: str | None
) -> tuple[dict[str, Tensor], str, tuple[str, ...]]:
    """The set of tensors, the entry that held it, and the names of other entries."""
    if not isinstance(loaded, dict):
        raise WeightsError(
            f"{source} holds a {type(loaded).__name__}, not named tensors; give a state dict."
        )
    if key is None and _is_state(loaded):
        return _plain(loaded, source), "", ()
    sets = {str(name): value for name, value in loaded.items() if _is_state(value)}
    if key is not None and key not in sets:
        raise WeightsError(
            f"{source} has no set of tensors {key!r}; it has {', '.join(sets) or 'none'}."
        )
    if key is None and any(isinstance(value, Tensor) for value in loaded.values()):
        named = {k for k, v in loaded.items() if isinstance(k, str) and isinstance(v, Tensor)}
        odd = next(name for name in loaded if name not in named)
        raise WeightsError(
            f"{source} holds {odd!r} beside its tensors, which is no named tensor; remove it or "
            "give a plain state dict."
        )
    if key is None and len(sets) != 1:
        found = f"several sets of tensors ({', '.join(sets)})" if sets else "no set of tensors"
        remedy = "choose one with --key" if sets else "give a file with a state dict"
        raise WeightsError(f"{source} holds {found}; {remedy}.")
    wrapper = next(iter(sets)) if key is None else key
    others = tuple(str(name) for name in loaded if str(name) != wrapper)
    return _plain(sets[wrapper], source), wrapper, others


def _is_state(value: object) -> bool:
    if not isinstance(value, dict) or not value:
        return False
    named = all(isinstance(name, str) for name in value)
    return named and all(isinstance(tensor, Tensor) for tensor in value.values())


def _plain(state: dict[str, Tensor], source: Path) -> dict[str, Tensor]:
    for name, tensor in state.items():
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
            raise WeightsError(
                f"The tensor {name} of {source} is sparse, quantised or empty of data; store it "
                "densely first."
            )
    return {name: tensor.detach() for name, tensor in state.items()}


def _own_memory(state: dict[str, Tensor]) -> tuple[str, ...]:
    """Make every tensor contiguous and the only one in its memory, in place; names of copies."""
    seen: set[int] = set()
    copied = []
    for name, tensor in state.items():
        place = tensor.untyped_storage().data_ptr()
        if tensor.numel() and place in seen:
            state[name] = tensor.contiguous().clone()
            copied.append(name)
        else:
            state[name] = tensor.contiguous()
            seen.add(place)
    return tuple(copied)
