"""The models known by name: what they are, who may use them, and where they are published.

Facts only. Sizes are those of the files that ``models pull`` fetches. A revision is the commit of
the model hub that the entry was written against; where none is known the entry says so. Imports no
torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flythrough.errors import WeightsError

Kind = Literal["model", "geometry", "depth", "adapter", "codec", "captioner"]

PIPELINE_PARTS = ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")
"""Parts without which no video can be made, in the order in which they are shown."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One model.

    Attributes:
        kind: "model" is a whole folder; the others are single parts. "geometry" is a Pi3X or
            CUT3R network without a configuration, "depth" a monocular one as transformers has it.
        parts: folders (of a model) or weight files (of a single part) that belong to it.
        repository: owner and name on the hub; None where it is not published there.
        revision: the commit that is fetched; None takes the newest one.
        size: bytes to download, if known.
        page: where a model that is not on the hub is published.
        commercial: whether the licence allows commercial use.
    """

    name: str
    what: str
    kind: Kind
    licence: str
    parts: tuple[str, ...]
    repository: str | None = None
    revision: str | None = None
    size: int | None = None
    page: str = ""
    bundled: bool = False
    commercial: bool = True

    @property
    def patterns(self) -> list[str]:
        """Files to fetch, in the hub's wildcard form; other folders of a repository stay there."""
        if self.kind != "model":
            return [*self.parts, "README.md", "LICENSE*"]
        folders = [f"{part}/*" for part in self.parts]
        return ["model_index.json", *folders, "README.md", "LICENSE*"]

    @property
    def pinned(self) -> str:
        """The revision for people: its short form, or plainly that there is none."""
        if self.bundled:
            return "bundled"
        return self.revision[:10] if self.revision else "not pinned"


_HELIOS_BYTES = 80_481_086_028  # float32: 57.2 GB denoiser, 22.7 GB text encoder, 0.5 GB codec


def _helios(variant: str, what: str, revision: str) -> Entry:
    return Entry(
        name=f"helios-{variant.lower()}",
        what=what,
        kind="model",
        licence="Apache-2.0",
        parts=PIPELINE_PARTS,
        repository=f"BestWishYsh/Helios-{variant}",
        revision=revision,
        size=_HELIOS_BYTES,
    )


_NC = "CC-BY-NC-4.0"
_DEPTH_FILES = ("model.safetensors", "config.json", "preprocessor_config.json")


def _depth_anything(suffix: str, variant: str, what: str, licence: str = "Apache-2.0") -> Entry:
    commercial = "-NC-" not in licence
    return Entry(
        name=f"depth-anything{suffix}",
        what=what,
        kind="depth",
        licence=licence if commercial else f"{licence} (not commercial)",
        parts=_DEPTH_FILES,
        repository=f"depth-anything/Depth-Anything-V2-{variant}-hf",
        commercial=commercial,
    )


_ALL = (
    Entry(
        name="nano",
        what="small model that comes with Flythrough, 22 M denoiser",
        kind="model",
        licence="Apache-2.0",
        parts=(*PIPELINE_PARTS, "geometry", "lora"),
        bundled=True,
    ),
    _helios(
        "Base",
        "Helios 14B, 50 steps with guidance, best quality",
        "5c50b6bc90eae9bd815d2a50b0c9877e3fd2cf88",
    ),
    _helios(
        "Mid",
        "Helios 14B, pyramid with guidance, on the way to Distilled",
        "477c55427ec0ea774bdebd0fbe736313cfc5a312",
    ),
    _helios(
        "Distilled",
        "Helios 14B, pyramid of 2 steps a stage, fastest",
        "b991c0379a018f4de3227d95468237f56066f5bb",
    ),
    Entry(
        name="warp-as-history-lora",
        what="camera adapter for Helios Distilled",
        kind="adapter",
        licence="CC-BY-NC-4.0 (not commercial)",
        parts=("visible_lora_state_step1000.safetensors",),
        repository="yyfz233/warp-as-history",
        commercial=False,
    ),
    Entry(
        name="pi3x",
        what="Pi3X geometry network, 1.36 B",
        kind="geometry",
        licence="CC-BY-NC-4.0 (not commercial)",
        parts=("model.safetensors",),
        repository="yyfz233/Pi3X",
        revision="bb1deea4d7423de5b30691739cb451a3f57dc1d5",
        size=5_440_325_620,
        commercial=False,
    ),
    Entry(
        name="cut3r",
        what="CUT3R streaming geometry network (TTT3R runs on it), 0.79 B",
        kind="geometry",
        licence="CC-BY-NC-SA-4.0 (not commercial)",
        parts=("cut3r_512_dpt_4_64.safetensors",),
        page="https://github.com/CUT3R/CUT3R",
        size=3_173_000_000,
        commercial=False,
    ),
    Entry(
        name="depth-pro",
        what="Depth Pro, metric depth and focal length from one picture, 0.95 B",
        kind="depth",
        licence="apple-amlr (not commercial)",
        parts=_DEPTH_FILES,
        repository="apple/DepthPro-hf",
        commercial=False,
    ),
    _depth_anything("", "Small", "Depth Anything V2 Small, relative depth, 25 M"),
    _depth_anything("-base", "Base", "Depth Anything V2 Base, relative depth, 97 M", _NC),
    _depth_anything("-large", "Large", "Depth Anything V2 Large, relative depth, 335 M", _NC),
    _depth_anything("-metric", "Metric-Indoor-Small", "Depth Anything V2 Small, metres, indoors"),
    _depth_anything(
        "-metric-outdoor", "Metric-Outdoor-Small", "Depth Anything V2 Small, metres, outdoors"
    ),
    Entry(
        name="qwen2.5-vl-7b",
        what="Qwen2.5-VL, describes frames for WorldWarp's prompts, 8.3 B",
        kind="captioner",
        licence="Apache-2.0",
        parts=(
            *("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"),
            "model.safetensors.index.json",
            *(f"model-{number:05d}-of-00005.safetensors" for number in range(1, 6)),
        ),
        repository="Qwen/Qwen2.5-VL-7B-Instruct",
    ),
    Entry(
        name="taew2_1",
        what="TAEHV video codec for Wan 2.1 latents, 11 M",
        kind="codec",
        licence="MIT (repository; none stated for the weights)",
        parts=("safetensors/taew2_1.safetensors",),
        page="https://github.com/madebyollin/taehv",
    ),
)

ENTRIES: dict[str, Entry] = {entry.name: entry for entry in _ALL}

CAPTIONER_NAMES = tuple(entry.name for entry in _ALL if entry.kind == "captioner")
"""Names of models that describe pictures in words."""

MONOCULAR_NAMES = tuple(entry.name for entry in _ALL if entry.kind == "depth")
"""Names of networks that say the depth of one picture."""


def entry_named(name: str) -> Entry:
    """The entry of that name.

    Raises:
        WeightsError: there is none.
    """
    if name not in ENTRIES:
        raise WeightsError(
            f"There is no model named {name!r}; the names are {', '.join(ENTRIES)} "
            "(see `flythrough models list`)."
        )
    return ENTRIES[name]
