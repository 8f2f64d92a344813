"""One byte string for one value: the basis of every digest in this folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b
from mmap import mmap
from typing import Any

import numpy as np

from flythrough.errors import RolloutError


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces; equal values give equal text on every platform.

    Raises:
        ValueError, TypeError: the value holds NaN, an infinity or something JSON cannot say.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest_of(*parts: str | bytes | np.ndarray | None) -> str:
    """blake2b-128 in hexadecimal of the parts; each is framed by its kind and length, so no two
    different lists of parts share their bytes. Arrays count with dtype and shape."""
    total = blake2b(digest_size=16)
    for part in parts:
        if part is None:
            total.update(b"none;")
        elif isinstance(part, np.ndarray):
            little = part.astype(part.dtype.newbyteorder("<"), copy=False)
            total.update(f"array:{part.dtype.name}:{list(part.shape)};".encode())
            total.update(np.ascontiguousarray(little).data)
        else:
            data = part.encode() if isinstance(part, str) else part
            total.update(f"{type(part).__name__}:{len(data)};".encode())
            total.update(data)
    return total.hexdigest()


def frozen_array(
    value: Any, dtype: type[np.generic], shape: Sequence[int | None], name: str
) -> np.ndarray:
    """A read-only, contiguous array of exactly ``dtype`` and ``shape`` (None: any length >= 1).

    An array that nobody can write to is returned as it is, others are copied.

    Raises:
        RolloutError: another dtype or shape.
    """
    array = np.asarray(value)
    fits = array.ndim == len(shape) and all(
        have >= 1 if want is None else have == want
        for have, want in zip(array.shape, shape, strict=False)
    )
    if array.dtype != dtype or not fits:
        wanted = ", ".join("n" if length is None else str(length) for length in shape)
        raise RolloutError(
            f"{name} is {array.dtype} {list(array.shape)} but must be {np.dtype(dtype).name} "
            f"[{wanted}]; convert it first."
        )
    if not array.flags.c_contiguous or not _is_frozen(array):
        array = np.array(array, order="C")
        array.setflags(write=False)
    return array


def _is_frozen(array: np.ndarray) -> bool:
    """Whether neither the array nor anything whose memory it shows can be written to.

    A file mapped for reading counts as frozen: who made the map keeps the file as it is.
    """
    if array.flags.writeable:
        return False
    base: object = array.base
    if base is None or isinstance(base, bytes | mmap):
        return True
    return isinstance(base, np.ndarray) and _is_frozen(base)
