"""Where the time of one call goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from flythrough.bench.clock import synchronise

_KERNEL = torch._C._autograd.DeviceType.CUDA


class Profile:
    """One call of ``work``, after two others, as torch's profiler saw it.

    Args:
        shapes: tell operators apart by the shapes they were given, too.
    """

    def __init__(
        self, work: Callable[[], object], device: torch.device, *, shapes: bool = False
    ) -> None:
        kinds = [torch.profiler.ProfilerActivity.CPU]
        self.on_gpu = device.type == "cuda"
        if self.on_gpu:
            kinds.append(torch.profiler.ProfilerActivity.CUDA)
        with torch.inference_mode():
            for _ in range(2):
                work()
            synchronise(device)
            with torch.profiler.profile(activities=kinds, record_shapes=shapes) as self.seen:
                work()
                synchronise(device)

    def kernels(self) -> dict[str, float]:
        """Milliseconds of every kernel by name; on a CPU, of every operator by itself."""
        found = self.seen.key_averages()
        if self.on_gpu:
            # Operators are told with the time of the kernels that they launch: those count once.
            return {
                e.key: e.self_device_time_total / 1e3 for e in found if e.device_type == _KERNEL
            }
        return {event.key: event.self_cpu_time_total / 1e3 for event in found}

    def table(self, rows: int = 40, *, shapes: bool = False) -> str:
        """A table of ``rows`` lines, longest first."""
        found: Any = self.seen.key_averages(group_by_input_shape=shapes)
        key = "self_cuda_time_total" if self.on_gpu else "self_cpu_time_total"
        made: str = found.table(
            sort_by=key, row_limit=rows, max_name_column_width=100, max_shapes_column_width=120
        )
        return made
