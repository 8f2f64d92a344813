"""The switches ``--gpus``, ``--[no-]graphs``, ``--geometry-device`` and ``--codec-device``."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from flythrough.cli.groups import HARDWARE

Gpus = Annotated[int, Parameter(group=HARDWARE, help="GPUs that share each step of the denoiser.")]
Graphs = Annotated[
    bool | None,
    Parameter(
        group=HARDWARE,
        help="With --gpus: record calls as CUDA graphs, faster; default: where there is room.",
    ),
]
GeometryDevice = Annotated[
    str | None,
    Parameter(group=HARDWARE, help="Where geometry is estimated and scenes rendered, like cuda:1."),
]
CodecDevice = Annotated[
    str | None, Parameter(group=HARDWARE, help="Where videos are encoded and decoded, like cuda:1.")
]
