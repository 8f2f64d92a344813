"""Everything that is computed once and kept in the run folder: geometry, prompts, items.

Each network is loaded only if something is missing, and freed before the next is needed. With
several processes the first makes geometry and prompts, and each a share of the items.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import blake2b
from itertools import islice
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from flythrough import seeds
from flythrough.disk import read_json
from flythrough.engine.build import pick_dtype
from flythrough.engine.geometry_source import build_estimator
from flythrough.errors import InputError, WeightsError
from flythrough.evaluation.features import feature_library
from flythrough.geometry.estimator import Estimator
from flythrough.geometry.types import Geometry
from flythrough.models.catalog import folder_digest
from flythrough.models.expected import meta_network
from flythrough.models.text import PromptEncoder
from flythrough.models.wan_codec import Codec, codec_of, load_any_codec
from flythrough.scene.settings import WarpSettings
from flythrough.training.clip_sampling import Clip, ClipSettings, item_order, sample_clip
from flythrough.training.loop import rank_and_world, wait_for_all
from flythrough.training.lora.clips import TrainingClip
from flythrough.training.lora.geometry import PlayedClip, known_geometry
from flythrough.training.lora.items import (
    RenderedItem,
    encode_item,
    item_bytes,
    render_item,
    write_item,
)
from flythrough.training.lora.previews import fit_of_warp, write_batch_picture
from flythrough.training.lora.sampling import free_cache, prompts_of
from flythrough.training.lora.settings import LoraPlan
from flythrough.training.lora.task import Items
from flythrough.training.prompt_store import PromptStore

Notify = Callable[[str], None]
Progress = Callable[[str, int, int], None]
"""Called with what is done, how much of it is finished, and of how much."""

HELD_OUT = 4
PREVIEWS = 4
_GIB = 2**30
_GEOMETRY_BYTES = 7
_PAST_SHARE = 1.5
_LEAST_GAIN, _STANDING = 0.5, 30.0
"""dB: what warps should gain over a still frame, unless the camera stands and that is right too."""

Draw = tuple[int, Clip]
"""Row of the clip, and the window of it."""


class Preparation:
    """The clips of a run and what is made of them, below ``plan.request.folder``."""

    def __init__(
        self,
        plan: LoraPlan,
        clips: Sequence[TrainingClip],
        device: torch.device,
        notify: Notify,
        progress: Progress,
    ) -> None:
        self.plan, self.clips, self.device = plan, clips, device
        self.notify, self.progress = notify, progress
        self.folder, self.seed = plan.request.folder, plan.request.seed
        self.rank, self.world = rank_and_world()
        self.warp = _warp_settings(plan)
        self._played: dict[tuple[int, str], PlayedClip] = {}
        self.draws = self._drawn(plan.item_count(self.world), self.seed)
        self.heldout = self._drawn(HELD_OUT, seeds.fold(self.seed, "held-out"))

    def check_disk(self) -> None:
        """Refuse a run whose cache does not fit.

        Raises:
            InputError: too little space.
        """
        codec = self._codec_shape()
        one = item_bytes(self.plan.size, codec.latent_channels, codec.spatial)
        pixels = sum(len(clip) for clip in self.clips) * self.plan.size[0] * self.plan.size[1]
        need = int(_PAST_SHARE * one * (len(self.draws) + HELD_OUT)) + _GEOMETRY_BYTES * pixels
        home = self.folder.absolute()
        while not home.exists():
            home = home.parent
        free = shutil.disk_usage(home).free
        self.notify(f"the run folder takes up to {need / _GIB:.2f} GiB of disk.")
        if need > free:
            raise InputError(
                f"The run folder {self.folder} needs up to {need / _GIB:.1f} GiB but "
                f"{free / _GIB:.1f} GiB are free; give fewer --items or another folder."
            )

    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of latents at full size."""
        codec = self._codec_shape()
        height, width = self.plan.size
        return codec.latent_channels, height // codec.spatial, width // codec.spatial

    def make_geometry(self) -> None:
        """Depth and cameras of every clip, in both directions where they differ."""
        estimator: list[Estimator] = []

        def network() -> Estimator:
            if not estimator:
                estimator.append(self._estimator())
            return estimator[0]

        if self.rank == 0:
            for row in range(len(self.clips)):
                self.progress("depth and cameras", row, len(self.clips))
                for backwards in self._estimated_directions(row):
                    self._geometry(row, backwards, network)
            self.progress("depth and cameras", len(self.clips), len(self.clips))
        estimator.clear()
        free_cache(self.device)
        wait_for_all()

    def write_previews(self, *, keep: bool = False) -> list[Path]:
        """Pictures of the first items, and a word about how well their warps fit; with ``keep``
        those that are there stay."""
        written, fits = [], []
        for number, (row, clip) in enumerate(self.draws[:PREVIEWS]):
            path = self.folder / "previews" / f"batch-{number:03d}.png"
            self.progress("previews", number, min(PREVIEWS, len(self.draws)))
            if self.rank == 0 and not (keep and path.is_file()):
                item = self.rendered((row, clip))
                write_batch_picture(path, item, clip)
                fits.append(fit_of_warp(item))
            written.append(path)
            self.progress("previews", number + 1, min(PREVIEWS, len(self.draws)))
        self._judge([fit for fit in fits if fit is not None])
        return written

    def _judge(self, fits: Sequence[tuple[float, float]]) -> None:
        """Say how warps fit, and warn of cameras that explain nothing."""
        if not fits:
            return
        warped, still = (sum(fit[n] for fit in fits) / len(fits) for n in (0, 1))
        said = f"warps of the previews lie {warped:.1f} dB near their targets, a still {still:.1f}"
        if warped < still + _LEAST_GAIN and still < _STANDING:
            said += ": the cameras hardly explain the clip; look at previews/, give --camera FILE"
        self.notify(f"{said}.")

    def make_embeddings(self) -> list[list[tuple[str, Tensor]]]:
        """Of every clip: (prompt, features) with trigger, without, and of the empty prompt."""
        plan, encoder = self.plan, list[PromptEncoder]()
        length = plan.model.defaults.max_sequence_length
        fingerprint = folder_digest(plan.model.path / "text_encoder")
        store = PromptStore(self.folder / "prompts", fingerprint, length)

        def encode(prompt: str) -> Tensor:
            if not encoder:
                encoder.append(
                    PromptEncoder.from_folder(
                        plan.model.path,
                        device=self.device,
                        dtype=pick_dtype(self.device),
                        keep=False,
                    )
                )
            return encoder[0].encode([prompt], length)

        if self.rank != 0:
            wait_for_all()
        found = [
            [
                (prompt, store.embedding(prompt, encode))
                for prompt in prompts_of(clip.caption, plan.model.defaults.prompt_trigger)
            ]
            for clip in self.clips
        ]
        if self.rank == 0:
            wait_for_all()
        if encoder:
            encoder[0].release()
            free_cache(self.device)
        return found

    def make_items(self, embeddings: Sequence[Tensor]) -> tuple[Items, Items]:
        """What is trained on and what is held out, all of it encoded."""
        codec: list[Codec] = []
        made = []
        for name, draws in (("items", self.draws), ("heldout", self.heldout)):
            items = Items(self.folder / name, [row for row, _ in draws], embeddings)
            for number in range(1 + self.rank, len(draws) + 1, self.world):
                self.progress(f"preparing {name}", number - 1, len(draws))
                if _is_whole(items.file(number)):
                    continue
                if not codec:
                    codec.append(load_any_codec(self.plan.model.path / "vae", self.device))
                rendered = self.rendered(draws[number - 1])
                with torch.no_grad():
                    write_item(items.file(number), encode_item(codec[0], rendered, self.device))
            self.progress(f"preparing {name}", len(draws), len(draws))
            made.append(items)
        codec.clear()
        free_cache(self.device)
        wait_for_all()
        return made[0], made[1]

    def rendered(self, draw: Draw) -> RenderedItem:
        """The pixels of an item."""
        row, clip = draw
        reference = self.plan.request.reference
        with torch.no_grad():
            played = self._played_clip(row, clip.direction)
            return render_item(played, clip, self.warp, reference=reference)

    def forget(self) -> None:
        """Free what was needed for rendering."""
        self._played.clear()
        free_cache(self.device)

    def _drawn(self, count: int, seed: int) -> list[Draw]:
        settings = ClipSettings(augment=self.plan.request.reverse)
        rows = islice(item_order(len(self.clips), self.seed), count)
        return [
            (row, sample_clip(len(self.clips[row]), seed, self.clips[row].id, number, settings))
            for number, row in enumerate(rows, 1)
        ]

    def _played_clip(self, row: int, direction: str) -> PlayedClip:
        backwards = direction == "reverse"
        if (row, direction) not in self._played:
            own = backwards in self._estimated_directions(row)
            geometry = self._geometry(row, backwards and own, self._estimator).to(self.device)
            frames = self.clips[row].frames
            if backwards and own:
                self._played[row, direction] = PlayedClip(frames[::-1], geometry)
            else:
                whole = PlayedClip(frames, geometry)
                self._played[row, direction] = whole.reversed() if backwards else whole
        return self._played[row, direction]

    def _estimated_directions(self, row: int) -> tuple[bool, ...]:
        """Forwards, and backwards where the published trainer asks the network again."""
        asked_again = (
            self.plan.request.reference
            and self.plan.poses == "network"
            and self.clips[row].camera is None
        )
        return (False, True) if asked_again and self.plan.request.reverse else (False,)

    def _geometry(self, row: int, backwards: bool, estimator: Callable[[], Estimator]) -> Geometry:
        clip, reference = self.clips[row], self.plan.request.reference
        if backwards:
            clip = replace(clip, frames=clip.frames[::-1])
        file = self.folder / "geometry" / f"{self._geometry_name(row, backwards)}.safetensors"
        return known_geometry(
            clip,
            file,
            estimator,
            self.notify,
            reference=reference,
            by_features=self.plan.poses == "features",
        )

    def _geometry_name(self, row: int, backwards: bool) -> str:
        """A file name that changes with all that the geometry depends on."""
        clip, total = self.clips[row], blake2b(digest_size=8)
        total.update(clip.frames.tobytes())
        camera = "" if clip.camera is None else clip.camera.digest()
        words = [
            camera,
            self.plan.poses,
            str(self.plan.request.reference),
            str(self.warp.confidence),
        ]
        network = self.plan.model.geometry
        if clip.depth is not None:
            total.update(clip.depth.tobytes())
        elif network is not None:
            words.append(folder_digest(network))
        total.update("|".join(map(str, words)).encode())
        return f"{row:03d}-{'reverse' if backwards else 'forward'}-{total.hexdigest()}"

    def _estimator(self) -> Estimator:
        return build_estimator(
            "default", self.plan.model, self.device, self.warp.confidence, self.notify
        )

    def _codec_shape(self) -> Codec:
        file = self.plan.model.path / "vae" / "config.json"
        try:
            return codec_of(meta_network("vae", read_json(file))[1])
        except (OSError, ValueError, TypeError) as error:
            raise WeightsError(f"{file} cannot be read ({error}); restore the file.") from error


def check_geometry_source(plan: LoraPlan, clips: Sequence[TrainingClip]) -> None:
    """The model can estimate what is not given.

    Raises:
        WeightsError: it ships no geometry network.
        InputError: cameras are to be found by features but OpenCV is not installed.
    """
    if plan.poses == "features" and any(clip.camera is None for clip in clips):
        try:
            feature_library()
        except InputError as error:
            raise InputError(
                f"The cameras of {plan.model.name}'s clips are found by features, which needs "
                'OpenCV; run: pip install "flythrough[evaluate]", or give --camera FILE.'
            ) from error
    if plan.model.geometry is None and any(clip.depth is None for clip in clips):
        raise WeightsError(
            f"The model {plan.model.name} ships no geometry network to estimate depth with; give "
            "--camera FILE and --depth FILE, or put Pi3X into its folder geometry."
        )


def _warp_settings(plan: LoraPlan) -> WarpSettings:
    """As the model is run; as published with the far background counted as seen."""
    own = WarpSettings(**plan.model.defaults.warp)
    if not plan.request.reference:
        return own
    return replace(own, background="atlas", keyframes="joint", reference=True)


def _is_whole(file: Path) -> bool:
    """Whether an item is there; a file that was cut off is none."""
    try:
        with safe_open(file, framework="pt") as opened:
            return "target" in opened.keys()  # noqa: SIM118
    except (OSError, SafetensorError):
        return False
