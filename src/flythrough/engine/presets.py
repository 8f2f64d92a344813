"""Named recipes: options that belong together, as data. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

from flythrough.engine.warp_options import Fill
from flythrough.engine.words import NoiseField
from flythrough.rollout.spec import Method
from flythrough.scene.settings import SceneKind

PresetName = Literal["realtime"]
FAST_CODEC = "taehv"
"""The folder of a fast codec in a model folder, and what a rollout that uses it notes."""
WarpBand = Literal["short", "patch-mid"]
"""The history band that takes the warp, as users write it."""


class CameraSwitches(TypedDict, total=False):
    """Switches of the camera method, as in ``engine.request.GenerateRequest``."""

    method: Method | None
    preset: PresetName | None
    warp_band: WarpBand | None
    visible_threshold: float | None
    align: bool
    select: bool
    fill: Fill | None
    warp_settings: str | None
    style_lora: Path | None
    style_scale: float
    camera_convention: str | None
    camera_scale: float | None
    scene: SceneKind | None
    strength: float | None
    chunk_frames: int | None
    overlap: int | None
    noise_field: NoiseField | None
    caption: str | None
    restyle: float | None


def known_switches(given: CameraSwitches) -> dict[str, Any]:
    """``given`` as plain keywords.

    Raises:
        TypeError: a name that is no switch, as for any unknown keyword.
    """
    if unknown := sorted(given.keys() - CameraSwitches.__annotations__.keys()):
        raise TypeError(
            f"{unknown[0]!r} is no argument of a pipeline; beside those it names, it takes "
            f"{', '.join(CameraSwitches.__annotations__)}"
        )
    switches: dict[str, Any] = dict(given)
    if switches.get("style_lora") is not None:
        switches["style_lora"] = Path(switches["style_lora"])
    return switches


@dataclass(frozen=True, kw_only=True)
class Preset:
    """What a preset sets where the user did not.

    Attributes:
        steps: for each pyramid stage of a distilled model.
        amplify_first_chunk: twice the steps in chunk 0.
        visible_threshold, warp_band: see ``conditioning.warped_history.WarpHistorySettings``.
        samples_per_axis: points along each side of a mesh cell, at most.
        pixel_limit: pixels that the geometry network sees, at most.
        fast_codec: use the TAEHV codec in the model's folder ``taehv``, if it is there.
    """

    steps: tuple[int, ...]
    amplify_first_chunk: bool
    visible_threshold: float
    warp_band: WarpBand
    samples_per_axis: int
    pixel_limit: int
    fast_codec: bool


PRESETS: dict[PresetName, Preset] = {
    # Warp-as-History, efficient real-time recipe: three network calls a chunk.
    "realtime": Preset(
        steps=(1, 1, 1),
        amplify_first_chunk=False,
        visible_threshold=0.6,
        warp_band="patch-mid",
        samples_per_axis=2,
        pixel_limit=130_000,
        fast_codec=True,
    ),
}
