"""From the host to a device without waiting for what the device is doing."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def uploaded(
    values: np.ndarray | Tensor, device: torch.device, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Values of the host on ``device`` as ``dtype``; an array is copied and stays as it is.

    A GPU gets them from pinned memory in their own type and converts them itself: the host goes on
    at once, and 8-bit pictures are a quarter of the bytes.
    """
    given = torch.from_numpy(np.array(values)) if isinstance(values, np.ndarray) else values
    if device.type == "cuda" and given.device.type == "cpu":
        return given.pin_memory().to(device, non_blocking=True).to(dtype)
    return given.to(device, dtype)
