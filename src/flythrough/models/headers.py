"""Names, shapes and types of the tensors in a safetensors file, read from its header alone."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from flythrough.errors import WeightsError

_LONGEST_HEADER = 100_000_000
_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    "F4": 4,
}
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
"""Types that a network's weights may be stored in."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as a file describes it; ``dtype`` by safetensors' names (F32, BF16, I64...)."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        return math.prod(self.shape)


def read_header(file: Path) -> dict[str, StoredTensor]:
    """Every tensor of ``file`` by name; only the header is read, whatever the file's size.

    Raises:
        WeightsError: the file is missing, no safetensors file, or cut short.
    """
    try:
        total = file.stat().st_size
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if total < 8 or length > min(total - 8, _LONGEST_HEADER):
                raise WeightsError(
                    f"{file} is no safetensors file or was cut short; download it again."
                )
            values = json.loads(opened.read(length))
        tensors = {name: _tensor(value) for name, value in values.items() if name != "__metadata__"}
        ends = [int(v["data_offsets"][1]) for k, v in values.items() if k != "__metadata__"]
    except OSError as error:
        raise WeightsError(f"{file} cannot be read ({error}); download it again.") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise WeightsError(f"{file} has a damaged header ({error}); download it again.") from error
    wanted = 8 + length + max(ends, default=0)
    if total != wanted:
        raise WeightsError(
            f"{file} has {total} bytes where its header asks for {wanted}; download it again."
        )
    return tensors


def _tensor(value: dict[str, object]) -> StoredTensor:
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not (isinstance(dtype, str) and isinstance(shape, list) and isinstance(offsets, list)):
        raise TypeError("an entry is malformed")
    tensor = StoredTensor(dtype, tuple(int(n) for n in shape))
    begin, end = int(offsets[0]), int(offsets[1])
    if dtype in _BITS and (end - begin) * 8 != tensor.count * _BITS[dtype]:
        raise ValueError(f"{end - begin} bytes for {dtype} of shape {shape}")
    return tensor
